"""Additive rules: decode(Σ_i encode(x_i)). Only the sum ever needs to be held."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from medjax._engine import checks
from medjax._engine.kernels.sums import Row, Worker
from medjax._engine.kernels.threefry import random_bits
from medjax._engine.lazy import as_lazy
from medjax._engine.marks import sum_rule
from medjax._engine.participation import check_cohort
from medjax._engine.precision import at_least_float32
from medjax._engine.random import MaybeKey, Seed, stage_key, worker_keys
from medjax._engine.stacked import Stacked, Updates


@dataclass(frozen=True)
class Additive:
    """The family of rules decode(Σ_i encode(x_i)), whose workers can be streamed.

    In `simulate` the gradients of only a few workers exist at a time, and memory doesn't grow with
    n; over several devices only sums are exchanged.

    Attributes:
        name: the rule with its settings.
        encode: (x_i, i, key_i) to worker i's contribution, of x_i's shape, elementwise. x_i is one
            leaf of the worker's vector, flattened, in at least float32. The key is None unless
            `needs_key`.
        decode: (Σ_i encode(x_i), n, key) to the aggregate. Checks n where the rule restricts it.
        needs_key: whether encode or decode draw random numbers.
        weights: n to the (n,) weights w of a rule Σ_i w_i x_i; None for any other rule. Such a sum
            of gradients is the gradient of Σ_i w_i f_i, which costs less than all the gradients.
        restrict: (the indices of the workers who take part, the number of all workers) to the rule
            for these alone; None if it is the same for any workers.
        signs_only: whether it is a vote: encode depends on the sign of x_i alone and gives -1, 0 or
            1, and decode depends on the sign of the sum alone. `noisy_sign` may then stand in for
            `perturb`, and devices exchange bits.
        coin: for a vote that leaves no ties, (a leaf's size, key) to the -1 or 1 that a tied
            coordinate gets. The sum that decode sees has it.

    >>> squares = Additive("mean_square", lambda x, i, key: x**2, lambda total, n, key: total / n)
    >>> print(squares(jnp.array([[1.0], [3.0]])))
    [5.]
    """

    name: str
    encode: Callable[[Float[Array, " d"], Int[Array, ""], MaybeKey], Float[Array, " d"]]
    decode: Callable[[Float[Array, " d"], int, MaybeKey], Float[Array, " d"]]
    needs_key: bool = False
    weights: Callable[[int], Float[Array, " n"]] | None = None
    restrict: Callable[[Int[Array, " m"], int], "Additive"] | None = None
    signs_only: bool = False
    coin: Callable[[int, MaybeKey], Float[Array, " d"]] | None = None

    def __call__(self, updates: Stacked, key: Seed | None = None) -> Updates:
        """Aggregate the stacked updates.

        Raises:
            ValueError, TypeError: if the updates aren't stacked floating-point arrays, if the rule
                can't take so many workers, or if it draws and no key is given.
        """
        if self.needs_key and key is None:
            raise ValueError(f"{self.name} draws random numbers: give it a key")
        lazy = as_lazy(updates)
        n, leaves = lazy.num_workers, jax.tree.leaves(lazy.like)
        keys: list[Any] = [None] * len(leaves)
        server_keys: list[MaybeKey] = [None] * len(leaves)
        if self.needs_key and key is not None:
            base = stage_key(key, "rule")
            # The server's key is that of a worker after the last.
            keys = [worker_keys(jax.random.fold_in(base, i), n + 1) for i in range(len(leaves))]
            server_keys = [k[n] for k in keys]

        def encode(row: Row, worker: Worker) -> Row:
            i = worker.index
            return [
                self.encode(_widened(x), i, None if k is None else k[i])
                for x, k in zip(row, keys, strict=True)
            ]

        def decode(totals: Row) -> Row:
            return [self.decode(x, n, k) for x, k in zip(totals, server_keys, strict=True)]

        def coins() -> Row:
            assert self.coin is not None
            return [self.coin(leaf.size, k) for leaf, k in zip(leaves, server_keys, strict=True)]

        return sum_rule(
            self.name,
            updates,
            encode,
            decode,
            votes=self.signs_only,
            coins=None if self.coin is None else coins,
            weights=None if self.weights is None else self.weights(n),
        )


def _widened(x: Array) -> Array:
    return x.astype(at_least_float32(x.dtype))


def mean(weights: Sequence[float | int] | np.ndarray | Array | None = None) -> Additive:
    """The average (1/n) Σ_i x_i, or Σ_i w_i x_i / Σ_i w_i with weights.

    It isn't robust: NaN and ±∞ pass through. With local steps, and the workers' numbers of examples
    as weights, it is the average of federated averaging (McMahan et al., 2017). If only some of the
    workers take part in a step of `simulate`, both sums are over those.

    Args:
        weights: one non-negative number per worker, such as its number of examples; may be traced.
            A weight of 0 doesn't remove a worker's NaN or ±∞, since 0 · ∞ is NaN. If only workers
            of weight 0 take part, the result is 0.

    Raises:
        TypeError: if the weights aren't real numbers.
        ValueError: if a weight is negative or not finite, or if all are 0; when called, if the
            number of weights isn't the number of workers.

    >>> print(mean()(jnp.array([[1.0], [2.0], [6.0]])))
    [3.]
    """
    if weights is None:
        return Additive(
            "mean",
            lambda x, i, key: x,
            lambda total, n, key: total / n,
            weights=lambda n: jnp.full((n,), 1 / n),
        )
    traced = isinstance(weights, Tracer)
    checks.real("weights", weights, minimum=0.0, ndim=1)
    w: Any = weights.astype(float) if traced else np.asarray(weights, dtype=np.float64)
    if not traced and not np.any(w > 0):
        raise ValueError(f"weights must be a list of numbers with a positive sum, got {weights!r}")
    shares = w / w.max()  # so that the sum can't overflow
    return _weighted(shares / shares.sum())


def _weighted(shares: Any) -> Additive:
    """Return Σ_i w_i x_i of the workers' shares, whose sum is 1."""

    def checked_shares(n: int) -> Array:
        if n != len(shares):
            raise ValueError(f"mean has {len(shares)} weights, got updates of {n} workers")
        return jnp.asarray(shares)

    def encode(x: Array, i: Array, key: MaybeKey) -> Array:
        del key
        return jnp.asarray(shares, x.dtype)[i] * x

    def decode(total: Array, n: int, key: MaybeKey) -> Array:
        del key
        checked_shares(n)
        return total

    def restrict(workers: Array, num_workers: int) -> Additive:
        check_cohort("mean(weights)", len(shares), num_workers)
        mine = jnp.asarray(shares)[workers]
        total = mine.sum()
        return _weighted(mine / jnp.where(total > 0, total, 1))

    return Additive("mean(weights)", encode, decode, weights=checked_shares, restrict=restrict)


def majority_vote(
    *,
    zero: Literal["zero", "plus", "random"] = "zero",
    tie: Literal["zero", "random"] = "zero",
) -> Additive:
    """The sign of the sum of signs, sign(Σ_i sign(x_i)) (Bernstein et al., 2018).

    A NaN has no sign and abstains; ±∞ votes like any other number. So f non-finite workers can move
    a coordinate only where they could also do so with finite numbers.

    Args:
        zero: the vote of a worker with an exact 0: none ("zero", as in `jnp.sign`), +1 ("plus"), or
            +1 or -1 with even odds ("random").
        tie: the result of a tied vote: 0 ("zero"), or +1 or -1 with even odds ("random").

    Raises:
        ValueError: if an option isn't one of these; when called, if one is "random" and no key is
            given.

    >>> print(majority_vote()(jnp.array([[3.0, 1.0], [-1.0, -1.0], [2.0, 0.0]])))
    [1. 0.]
    """
    checks.option("zero", zero, ("zero", "plus", "random"))
    checks.option("tie", tie, ("zero", "random"))

    def encode(x: Array, i: Array, key: MaybeKey) -> Array:
        del i
        vote = jnp.sign(jnp.where(jnp.isnan(x), 0, x))
        if zero == "plus":
            return jnp.where(x == 0, 1, vote)
        if zero == "random" and key is not None:
            return jnp.where(x == 0, _coin(x.size, key).astype(x.dtype), vote)
        return vote

    name = "majority_vote" if zero == tie == "zero" else f"majority_vote(zero={zero}, tie={tie})"
    return Additive(
        name,
        encode,
        lambda total, n, key: jnp.sign(total),
        needs_key="random" in (zero, tie),
        signs_only=True,
        coin=_coin if tie == "random" else None,
    )


def _coin(size: int, key: MaybeKey) -> Float[Array, " d"]:
    """Draw -1 or 1 with even odds for each coordinate."""
    assert key is not None
    return jnp.where(random_bits(key, size) >> 31, 1, -1).astype(jnp.float32)

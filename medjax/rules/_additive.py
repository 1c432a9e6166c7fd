"""Additive rules: decode(Σ_i encode(x_i)). Only the sum ever needs to be held."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int, Key

from medjax import _checks
from medjax._kernels.sums import Worker
from medjax._kernels.threefry import random_bits
from medjax._participation import check_cohort
from medjax._promised import Promised, Row, promise
from medjax._random import Seed, stage_key, worker_keys
from medjax._stacked import Stacked, Updates

Draw = Key[Array, ""] | None


@dataclass(frozen=True)
class Additive:
    """The family of rules of the form decode(Σ_i encode(x_i)).

    Attributes:
        name: the rule with its settings.
        encode: (x_i, i, key_i) to what worker i contributes, of x_i's shape; x_i is one worker's
            leaf, flattened, in at least float32. `key_i` is None unless `needs_key`.
        decode: (Σ_i encode(x_i), n, key) to the aggregate. Checks n where the rule restricts it.
        needs_key: whether encode or decode draw random numbers.
        weights: n to the (n,) weights w of a rule that is Σ_i w_i x_i; None for any other. Of plain
            gradients such a sum is the gradient of Σ_i w_i f_i, which costs less than all of them.
        of: (the indices of the workers that are present, how many there are at all) to the rule of
            those alone; None if it is the same whoever they are.
        signs_only: whether it is a vote: encode looks at nothing but the sign of x_i, so that
            `noisy_sign` may stand in for `perturb`, and gives -1, 0 or 1; decode looks at nothing
            but the sign of the sum, so that devices need exchange no more than bits.
        coin: of a vote that leaves no ties, (a leaf's size, key) to the -1 or 1 that a tied
            coordinate gives: the sum, when it comes to decode, has been given it.
    """

    name: str
    encode: Callable[[Float[Array, " d"], Int[Array, ""], Draw], Float[Array, " d"]]
    decode: Callable[[Float[Array, " d"], int, Draw], Float[Array, " d"]]
    needs_key: bool = False
    weights: Callable[[int], Float[Array, " n"]] | None = None
    of: Callable[[Int[Array, " m"], int], "Additive"] | None = None
    signs_only: bool = False
    coin: Callable[[int, Draw], Float[Array, " d"]] | None = None

    def __call__(self, updates: Promised | Stacked, key: Seed | None = None) -> Updates:
        """The aggregate of the stacked updates.

        Raises:
            ValueError, TypeError: if the updates aren't stacked floating-point arrays, if the rule
                can't take so many workers, or if it draws and no key is given.
        """
        promised = promise(updates)
        n = promised.num_workers
        if self.needs_key and key is None:
            raise ValueError(f"{self.name} draws random numbers: give it a key")
        if self.weights is not None and promised.weighted is not None:
            return promised.weighted_sum(self.weights(n))
        leaves = jax.tree.leaves(promised.like)
        keys: list[Draw] = [None] * len(leaves)
        if self.needs_key and key is not None:
            base = stage_key(key, "rule")
            # The server's key is that of a worker after the last.
            keys = [worker_keys(jax.random.fold_in(base, i), n + 1) for i in range(len(leaves))]

        def encode(row: Row, worker: Worker) -> Row:
            i = worker.index
            return [
                self.encode(_widened(x), i, None if k is None else k[i])
                for x, k in zip(row, keys, strict=True)
            ]

        def coins() -> Row:
            assert self.coin is not None
            return [
                self.coin(leaf.size, None if k is None else k[n])
                for leaf, k in zip(leaves, keys, strict=True)
            ]

        decided = coins if self.coin is not None else None
        totals = promised.sum(encode, votes=self.signs_only, coins=decided)
        aggregate = [
            self.decode(total, n, None if k is None else k[n])
            for total, k in zip(totals, keys, strict=True)
        ]
        return promised.unflatten(aggregate)


def _widened(x: Array) -> Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def mean(weights: Sequence[float | int] | np.ndarray | Array | None = None) -> Additive:
    """The average (1/n) Σ_i x_i, or Σ_i w_i x_i / Σ_i w_i. Not robust: NaN and ±∞ pass through.

    With local steps, and weighted by the workers' numbers of examples, it is the average of
    federated averaging (McMahan et al., 2017): where `simulate` asks only some of the workers, both
    sums are over these.

    Args:
        weights: one non-negative number for each worker, such as its number of examples; perhaps
            traced. A weight of 0 doesn't shut out a worker's NaN or ±∞: 0 · ∞ is NaN.

    Raises:
        TypeError: if the weights aren't real numbers.
        ValueError: if a weight is negative or not finite, if all are 0, or, when traced, if their
            number isn't that of the workers.

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
    _checks.real("weights", weights, minimum=0.0, ndim=1)
    w: Any = weights.astype(float) if traced else np.asarray(weights, dtype=np.float64)
    if not traced and not np.any(w > 0):
        raise ValueError(f"weights must be a list of numbers with a positive sum, got {weights!r}")
    shares = w / w.max()  # first, so that the sum can't overflow
    shares = shares / shares.sum()

    def checked_shares(n: int) -> Array:
        if n != len(shares):
            raise ValueError(f"mean has {len(shares)} weights, got updates of {n} workers")
        return jnp.asarray(shares)

    def encode(x: Array, i: Array, key: Draw) -> Array:
        del key
        return jnp.asarray(shares, x.dtype)[i] * x

    def decode(total: Array, n: int, key: Draw) -> Array:
        del key
        checked_shares(n)
        return total

    def of(workers: Array, num_workers: int) -> Additive:
        check_cohort("mean(weights)", len(shares), num_workers)
        return mean(jnp.asarray(shares)[workers])

    return Additive("mean(weights)", encode, decode, weights=checked_shares, of=of)


def majority_vote(
    *,
    zero: Literal["zero", "plus", "random"] = "zero",
    tie: Literal["zero", "random"] = "zero",
) -> Additive:
    """The sign of the sum of signs, sign(Σ_i sign(x_i)) (Bernstein et al., 2018).

    A NaN has no sign and abstains; ±∞ votes as any other number does. So f non-finite workers
    can move a coordinate only where they could have done so with finite numbers.

    Args:
        zero: what a worker with an exact 0 votes: nothing ("zero", as `jnp.sign`), +1 ("plus"), or
            +1 or -1 with even odds ("random").
        tie: what a tied vote gives: 0 ("zero"), or +1 or -1 with even odds ("random").

    Raises:
        ValueError: if an option isn't one of these; when called, if one is "random" and there is
            no key.

    >>> print(majority_vote()(jnp.array([[3.0, 1.0], [-1.0, -1.0], [2.0, 0.0]])))
    [1. 0.]
    """
    _checks.option("zero", zero, ("zero", "plus", "random"))
    _checks.option("tie", tie, ("zero", "random"))

    def encode(x: Array, i: Array, key: Draw) -> Array:
        del i
        vote = jnp.where(x > 0, 1, jnp.where(x < 0, -1, 0)).astype(x.dtype)
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


def _coin(size: int, key: Draw) -> Float[Array, " d"]:
    assert key is not None
    return jnp.where(random_bits(key, size) >> 31, 1, -1).astype(jnp.float32)

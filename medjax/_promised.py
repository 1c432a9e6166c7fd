"""Updates of n workers that are computed when they are needed, and no more at a time than needed.

`simulate` gives the optimizer not the stacked gradients but a promise of them. A stage before the
aggregation adds itself to the promise (`then`), and the rule decides how it is kept: an additive
one asks for a few workers at a time (`sum`), a coordinate-wise one for all of them (`rows`). Any
other transform fails with it, looking into the pytree, which raises `StackedNeeded`, or otherwise;
it is then given the stacked gradients.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, Never, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, PyTree

from medjax._kernels.sums import Row, Worker, sum_over_workers
from medjax._shards import Axes, here, over_shards, total
from medjax._stacked import Promise, Stacked, Updates, flatten
from medjax._votes import total_sign

Stage: TypeAlias = Callable[[Row, Worker], Row]
"""What a worker does to its update before it sends it."""


class StackedNeeded(Exception):
    """Raised where promised updates are looked into as if they were there."""


@dataclass(frozen=True)
class Promised(Promise):
    """The updates of n workers, not yet computed.

    Attributes:
        like: one worker's update, as shapes and dtypes.
        num_workers: n.
        at_once: how many workers' updates are to exist at a time where that is enough.
        inputs: what each worker computes its update of, leaves (n, ...). Of several devices each
            has a part of them.
        compute: (inputs, first, count) to the updates of `count` workers from `first` on, leaves
            (count, *shape). The inputs are perhaps those of a part of the workers, of which `first`
            then counts.
        weighted: (inputs, weights w) to Σ_i w_i x_i by a cheaper way than computing all x_i, if
            there is one.
        stages: what the workers do to them, in order.
    """

    like: PyTree
    num_workers: int
    at_once: int
    inputs: PyTree
    compute: Callable[[PyTree, int | Int[Array, ""], int], Stacked]
    weighted: Callable[[PyTree, Float[Array, " n"]], Updates] | None = None
    stages: tuple[Stage, ...] = ()

    def then(self, stage: Stage) -> "Promised":
        """The same with one more stage; a weighted sum of what comes out can't be shortened."""
        return replace(self, stages=(*self.stages, stage), weighted=None)

    def one_by_one(self, stage: Stage) -> "Promised":
        """`then`, for a stage that isn't elementwise: one worker at a time, before the rule's sum.

        A worker's vector then stays in cache; and a rule that takes several workers in a turn would
        have the stage compiled as many times.
        """
        inputs = (jnp.arange(self.num_workers, dtype=jnp.int32), self.inputs)

        def compute(inputs: PyTree, first: int | Array, count: int) -> Stacked:
            indices, rest = inputs
            index = lax.dynamic_slice_in_dim(indices, first, count)
            workers = Worker.of(index)

            def one(row: Row, worker: Worker) -> Row:
                return stage(self._staged(row, worker), worker)

            rows = _flat(self.compute(rest, first, count), count)
            return self.unflatten(lax.map(lambda each: one(*each), (rows, workers)), count)

        return replace(self, inputs=inputs, compute=compute, stages=(), weighted=None)

    def map(
        self,
        f: Callable[[list[Float[Array, "w _"]], Axes], PyTree],
        out: Literal["workers", "all"],
    ) -> PyTree:
        """f of the updates of the workers on each device, as `over_shards`."""

        def local(inputs: PyTree, first: int | Array, names: Axes) -> PyTree:
            count = _count(inputs)
            rows = _flat(self.compute(inputs, 0, count), count)
            if self.stages:
                rows = jax.vmap(self._staged)(
                    rows, Worker.of(first + jnp.arange(count, dtype=jnp.int32))
                )
            return f(rows, names)

        return over_shards(local, self.inputs, self.num_workers, out)

    def rows(self) -> list[Float[Array, "n _"]]:
        """All workers' updates, a matrix for each leaf."""
        return self.map(lambda rows, names: rows, "workers")

    def stacked(self) -> Stacked:
        """All workers' updates, leaves (n, *shape)."""
        return self.unflatten(self.rows(), self.num_workers)

    def sum(
        self,
        encode: Callable[[Row, Worker], Row],
        *,
        votes: bool = False,
        coins: Callable[[], Row] | None = None,
    ) -> Row:
        """Σ_i encode(x_i, i), worker by worker in order, from `at_once` updates at a time.

        Args:
            encode: one worker's update, leaf by leaf, to what it contributes to each leaf's sum.
            votes: whether that is -1, 0 or 1, and the sign of the sum is all that is needed: sums
                of other devices' workers are then no more than it.
            coins: what decides tied votes, -1 or 1 for each coordinate; None if they stay 0.
        """

        def local(inputs: PyTree, first: int | Array, names: Axes) -> Row:
            own = self._sum(encode, inputs, first)
            if not votes:
                return total(own, names)
            decided = None if coins is None else coins()
            return total_sign(own, _count(inputs), self.num_workers, names, decided)

        return over_shards(local, self.inputs, self.num_workers, "all")

    def weighted_sum(self, weights: Float[Array, " n"]) -> Updates:
        """Σ_i w_i x_i by the cheaper way."""
        assert self.weighted is not None

        def local(inputs: PyTree, first: int | Array, names: Axes) -> Updates:
            assert self.weighted is not None
            own = here(weights, first, _count(inputs))
            return total(self.weighted(inputs, own), names)

        return over_shards(local, self.inputs, self.num_workers, "all")

    def _sum(
        self, encode: Callable[[Row, Worker], Row], inputs: PyTree, offset: int | Array
    ) -> Row:
        """The sum over the workers here, of index `offset` on."""
        n = _count(inputs)
        at_once = min(self.at_once, n)
        row = [
            jax.ShapeDtypeStruct((leaf.size,), leaf.dtype) for leaf in jax.tree.leaves(self.like)
        ]
        sums = jax.eval_shape(encode, row, Worker(jnp.int32(0), 0))

        def encode_own(row: Row, worker: Worker) -> Row:
            encoded = encode(self._staged(row, worker), worker)
            if isinstance(offset, int):
                return encoded
            # There is nobody of index n on.
            return [jnp.where(worker.index < self.num_workers, x, 0) for x in encoded]

        def add(first: int | Array, count: int, total: Row) -> Row:
            rows = _flat(self.compute(inputs, first, count), count)
            even = isinstance(offset, int) or n % 2 == 0
            return sum_over_workers(
                encode_own,
                rows,
                offset + first,
                total,
                paired=even and (at_once % 2 == 0 or at_once == n),
            )

        total = [jnp.zeros(x.shape, x.dtype) for x in sums]
        if at_once < n:
            total = lax.fori_loop(0, n // at_once, lambda k, t: add(k * at_once, at_once, t), total)
        rest = n % at_once if at_once < n else n
        return add(n - rest, rest, total) if rest else total

    def unflatten(self, row: list[Array], *leading: int) -> PyTree:
        """Flat leaves, perhaps with leading axes, to a pytree of the update's shapes and dtypes."""
        leaves, treedef = jax.tree.flatten(self.like)
        shaped = [
            x.reshape(*leading, *leaf.shape).astype(leaf.dtype)
            for x, leaf in zip(row, leaves, strict=True)
        ]
        return jax.tree.unflatten(treedef, shaped)

    def _staged(self, row: Row, worker: Worker) -> Row:
        for stage in self.stages:
            row = stage(row, worker)
        return row


def promise(updates: Stacked | Promised) -> Promised:
    """Stacked updates as a promise that is kept already; a promise is left as it is.

    Raises:
        ValueError, TypeError: if the updates aren't stacked floating-point arrays.
    """
    if isinstance(updates, Promised):
        return updates
    n, leaves, treedef = flatten(updates)
    like = [jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype) for leaf in leaves]
    stacked = jax.tree.unflatten(treedef, leaves)
    return Promised(
        jax.tree.unflatten(treedef, like), n, n, stacked, lambda stacked, first, count: stacked
    )


def _count(inputs: PyTree) -> int:
    return jax.tree.leaves(inputs)[0].shape[0]


def _flat(updates: Stacked, count: int) -> list[Float[Array, "count _"]]:
    return [leaf.reshape(count, -1) for leaf in jax.tree.leaves(updates)]


def _refuse(*_: Any) -> Never:
    raise StackedNeeded


# Promised updates have no leaves to give.
jax.tree_util.register_pytree_node(Promised, _refuse, _refuse)

"""Lazy stacked updates: the gradients of n workers, computed a chunk at a time on demand.

`simulate` computes gradients lazily where the optimizer's jaxpr allows it (`streaming`): an
additive rule then asks for a few workers at a time (`LazyUpdates.sum`), and memory doesn't grow
with n.
Stacked arrays that exist already are the trivial case (`as_lazy`), so that each rule is written
once. Only the engine and the library's own stages ever see this class.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from medjax._engine.chunks import Chunk, by_chunk, map_each
from medjax._engine.kernels.sums import Row, Worker, sum_over_workers
from medjax._engine.mesh import Axes, axes, local_slice, over_shards, total
from medjax._engine.stacked import PyTree, Stacked, Updates, flatten
from medjax._engine.vote_exchange import total_sign

RowStage: TypeAlias = Callable[[Row, Worker], Row]
"""(a worker's flat leaves, the worker) to the flat leaves that it sends."""


@dataclass(frozen=True)
class LazyUpdates:
    """The updates of n workers, not yet computed.

    Attributes:
        like: one worker's update, as shapes and dtypes.
        num_workers: n.
        chunk: how many workers' updates exist at a time where the rule can do with a chunk.
        inputs: what each worker computes its update from, leaves (n, ...). Each of several devices
            holds a part of them.
        compute: (inputs, first, count) to the updates of the `count` workers from `first` on,
            leaves (count, *shape). `first` counts within the inputs given, which may be a device's
            part.
        weighted: (inputs, weights w) to Σ_i w_i x_i by a cheaper way than computing all x_i, if
            there is one.
        stages: what the workers apply to their updates, in order.
        in_pairs: whether a stage draws for both workers of a pair at once.
        draws_batches: whether `compute` draws batches from data that stay where they are. Otherwise
            some workers' share of the inputs is a copy, which costs more than it may save.
    """

    like: PyTree
    num_workers: int
    chunk: Chunk
    inputs: PyTree
    compute: Callable[[PyTree, int | Int[Array, ""], int], Stacked]
    weighted: Callable[[PyTree, Float[Array, " n"]], Updates] | None = None
    stages: tuple[RowStage, ...] = ()
    in_pairs: bool = False
    draws_batches: bool = False

    def then(self, stage: RowStage, *, in_pairs: bool = False) -> "LazyUpdates":
        """Append an elementwise stage. It invalidates the shortcut for weighted sums."""
        stages, in_pairs = (*self.stages, stage), self.in_pairs or in_pairs
        return replace(self, stages=stages, weighted=None, in_pairs=in_pairs)

    def then_in_turn(self, stage: RowStage) -> "LazyUpdates":
        """Append a stage that runs for one worker at a time on a CPU, before the rule's sum.

        For stages that aren't elementwise, such as a sort or a transform. A worker's vector stays
        in cache, and the stage is compiled once: a sum adds up several rows in each turn of its
        loop, and would contain the stage as many times.
        """
        inputs = (jnp.arange(self.num_workers, dtype=jnp.int32), self.inputs)

        def compute(inputs: PyTree, first: int | Array, count: int) -> Stacked:
            indices, rest = inputs
            workers = Worker.of(lax.dynamic_slice_in_dim(indices, first, count))

            def send(row: Row, worker: Worker) -> Row:
                return stage(self._apply_stages(row, worker), worker)

            rows = _flat(self.compute(rest, first, count), count)
            return self.unflatten(map_each(send, rows, workers), count)

        return replace(
            self, inputs=inputs, compute=compute, stages=(), weighted=None, in_pairs=False
        )

    def map(
        self,
        f: Callable[[list[Float[Array, "w _"]], Axes], PyTree],
        out: Literal["workers", "all"],
    ) -> PyTree:
        """Apply f to the updates of the workers on each device; see `over_shards`."""

        def local(inputs: PyTree, first: int | Array, names: Axes) -> PyTree:
            count = _count(inputs)
            rows = _flat(self.compute(inputs, 0, count), count)
            if self.stages:
                workers = Worker.of(first + jnp.arange(count, dtype=jnp.int32))
                rows = jax.vmap(self._apply_stages)(rows, workers)
            return f(rows, names)

        return over_shards(local, self.inputs, self.num_workers, out)

    def rows(self) -> list[Float[Array, "n _"]]:
        """Compute all workers' updates, a matrix for each leaf."""
        return self.map(lambda rows, names: rows, "workers")

    def first_rows(self, count: int) -> list[Float[Array, "n _"]]:
        """Compute the first workers' updates; the other rows are arbitrary.

        Several devices compute all: the rows that a device holds are as many as the others'.
        """
        if axes() or not self.draws_batches:
            return self.rows()
        rows = _flat(self.compute(self.inputs, 0, count), count)
        if self.stages:
            rows = jax.vmap(self._apply_stages)(rows, Worker.of(jnp.arange(count, dtype=jnp.int32)))
        return [jnp.pad(x, ((0, self.num_workers - count), (0, 0))) for x in rows]

    def stacked(self) -> Stacked:
        """Compute all workers' updates, leaves (n, *shape)."""
        return self.unflatten(self.rows(), self.num_workers)

    def sum(
        self,
        encode: RowStage,
        *,
        votes: bool = False,
        coins: Callable[[], Row] | None = None,
    ) -> Row:
        """Return Σ_i encode(x_i, i), added in the order of the workers, a chunk at a time.

        Args:
            encode: one worker's flat leaves to its contribution to each leaf's sum, elementwise.
            votes: whether contributions are -1, 0 or 1 and only the sign of the sum matters: then
                devices exchange packed bits, and the sign comes in place of the sum.
            coins: decides tied votes, -1 or 1 for each coordinate; None leaves them 0.
        """

        def local(inputs: PyTree, first: int | Array, names: Axes) -> Row:
            local_sum = self._local_sum(encode, inputs, first)
            if not votes:
                return total(local_sum, names)
            decided = None if coins is None else coins()
            return total_sign(local_sum, _count(inputs), self.num_workers, names, decided)

        return over_shards(local, self.inputs, self.num_workers, "all")

    def weighted_sum(self, weights: Float[Array, " n"]) -> Updates:
        """Return Σ_i w_i x_i by the shortcut `weighted`."""
        shortcut = self.weighted
        assert shortcut is not None

        def local(inputs: PyTree, first: int | Array, names: Axes) -> Updates:
            return total(shortcut(inputs, local_slice(weights, first, _count(inputs))), names)

        return over_shards(local, self.inputs, self.num_workers, "all")

    def unflatten(self, row: list[Array], *leading: int) -> PyTree:
        """Restore the update's structure, shapes and dtypes from flat leaves.

        Args:
            row: flat leaves, behind the leading axes.
            leading: the sizes of the leading axes.
        """
        leaves, treedef = jax.tree.flatten(self.like)
        shaped = [
            x.reshape(*leading, *leaf.shape).astype(leaf.dtype)
            for x, leaf in zip(row, leaves, strict=True)
        ]
        return jax.tree.unflatten(treedef, shaped)

    def _local_sum(self, encode: RowStage, inputs: PyTree, offset: int | Array) -> Row:
        """Sum over the workers of these inputs, whose indices start at `offset`."""
        n = _count(inputs)
        sums = jax.eval_shape(encode, row_like(self.like), Worker.of(jnp.int32(0)))

        def encode_local(row: Row, worker: Worker) -> Row:
            # With 64-bit types enabled, loops count in int64; stages are traced for an int32 index.
            worker = Worker(jnp.asarray(worker.pair, jnp.int32), worker.second)
            encoded = encode(self._apply_stages(row, worker), worker)
            if isinstance(offset, int):
                return encoded
            # Where n doesn't divide by the devices, the last have padding: workers from n on.
            return [jnp.where(worker.index < self.num_workers, x, 0) for x in encoded]

        def in_chunks(chunk: int, inputs: PyTree) -> Row:
            def add(first: int | Array, count: int, so_far: Row) -> Row:
                rows = _flat(self.compute(inputs, first, count), count)
                even = isinstance(offset, int) or n % 2 == 0
                paired = self.in_pairs and even and (chunk % 2 == 0 or chunk == n)
                return sum_over_workers(encode_local, rows, offset + first, so_far, paired=paired)

            sum_ = [jnp.zeros(x.shape, x.dtype) for x in sums]
            if chunk < n:
                sum_ = lax.fori_loop(0, n // chunk, lambda k, s: add(k * chunk, chunk, s), sum_)
            rest = n % chunk if chunk < n else n
            return add(n - rest, rest, sum_) if rest else sum_

        return by_chunk(in_chunks, self.chunk.up_to(n), inputs)

    def _apply_stages(self, row: Row, worker: Worker) -> Row:
        for stage in self.stages:
            row = stage(row, worker)
        return row


def as_lazy(updates: Stacked) -> LazyUpdates:
    """Wrap stacked updates that exist already.

    Raises:
        ValueError, TypeError: if the updates aren't stacked floating-point arrays.
    """
    n, leaves, treedef = flatten(updates)
    like = [jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype) for leaf in leaves]
    stacked = jax.tree.unflatten(treedef, leaves)
    return LazyUpdates(
        jax.tree.unflatten(treedef, like),
        n,
        Chunk(n, n),
        stacked,
        lambda stacked, first, count: stacked,
    )


def row_like(like: PyTree) -> list[jax.ShapeDtypeStruct]:
    """Return the shapes and dtypes of one worker's flat leaves."""
    return [jax.ShapeDtypeStruct((x.size,), x.dtype) for x in jax.tree.leaves(like)]


def _count(inputs: PyTree) -> int:
    return jax.tree.leaves(inputs)[0].shape[0]


def _flat(updates: Stacked, count: int) -> list[Float[Array, "count _"]]:
    return [leaf.reshape(count, -1) for leaf in jax.tree.leaves(updates)]

"""The amount to compute at a time: of how many workers, and of how many of their examples."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Int

from medjax._engine.chunks import Chunk
from medjax._engine.stacked import PyTree
from medjax.objectives import Objective
from medjax.training._local import Local, count, evaluate_examples, num_rows

# On a CPU, a vmap over more examples than this runs in chunks of workers, down to one worker:
# beyond it activations fall out of cache.
_EXAMPLES_PER_CHUNK = 8192

# Where an example has more activations than the first of these, as in convolutional networks, and
# all workers' batches more than the second, 192 MiB of float32, a CPU computes one worker after
# another, and at most the third at a time, 64 MiB.
_MANY_PER_EXAMPLE = 1 << 13
_MANY_NUMBERS = 3 << 24
_MANY_AT_A_TIME = 1 << 24

# So many numbers of gradients, 64 MiB of float32, exist at a time on a CPU where the rule doesn't
# need all. Smaller chunks are slower, as the matrix products of a few workers are small.
_NUMBERS_PER_CHUNK = 1 << 24

# So many numbers of gradients and activations, 2 GiB of float32, exist at a time on an accelerator.
# An H100 takes a millisecond or more for them: larger chunks would save no time that can be seen,
# and the smallest accelerators have 8 GiB.
_NUMBERS_ON_ACCELERATOR = 1 << 29

# So many numbers of activations, 256 MiB of float32, exist at a time where something is measured,
# and so many are computed in a turn: some seconds of two cores, a millisecond of an H100.
_NUMBERS_MEASURED = 1 << 26
_NUMBERS_IN_TURN = 1 << 28


class Slices(NamedTuple):
    """Rows in slices of one length, of which the last begins among those of the one before.

    Attributes:
        number: the number of slices.
        length: the number of rows of each.
        total: the number of all rows.
    """

    number: int
    length: int
    total: int

    def start(self, k: Int[Array, ""]) -> Int[Array, ""]:
        """Return the first row of the k-th slice."""
        return jnp.minimum(k * self.length, self.total - self.length)

    def of(self, k: Int[Array, ""]) -> tuple[Bool[Array, " length"], Int[Array, " length"]]:
        """Return which rows of the k-th slice no other has, and the indices of its rows."""
        rows = self.start(k) + jnp.arange(self.length, dtype=jnp.int32)
        return rows >= k * self.length, rows

    def cut(self, x: Array, k: Int[Array, ""]) -> Array:
        """Take the k-th slice's rows."""
        if self.number == 1:
            return x
        return lax.dynamic_slice_in_dim(x, self.start(k), self.length)


def training_slices(objective: Objective, params: PyTree, local: Local) -> Slices:
    """Cut each worker's examples, so that measuring all workers' slices is a turn."""
    rows = num_rows(local.examples)
    each = max(1, _num_activations(objective, params, local) // rows)
    return cut_rows(rows, min(_NUMBERS_IN_TURN // (each * count(local)), _NUMBERS_MEASURED // each))


def held_out_slices(objective: Objective, params: PyTree, batch: PyTree, state: PyTree) -> Slices:
    """Cut held-out examples, so that measuring a slice is a turn."""
    rows = num_rows(batch, axis=0)
    local = Local(batch, jnp.int32(rows), None, state)
    one = jax.eval_shape(lambda tree: jax.tree.map(lambda x: x[None], tree), local)
    each = max(1, _num_activations(objective, params, one) // rows)
    return cut_rows(rows, _NUMBERS_MEASURED // each)


def cut_rows(rows: int, most: int) -> Slices:
    """Cut rows into even slices of at most so many."""
    number = -(-rows // max(1, most))
    return Slices(number, -(-rows // number), rows)


def measuring_chunk(objective: Objective, params: PyTree, local: Local, slices: Slices) -> Chunk:
    """Return how many workers' slices, with their gradients, may exist at a time."""

    def cut(tree: Local) -> Local:
        return tree._replace(examples=jax.tree.map(lambda x: x[:, : slices.length], tree.examples))

    some = jax.eval_shape(cut, local)
    limit = max(1, _NUMBERS_MEASURED // _num_activations(objective, params, some))
    chunk = gradient_chunk(objective, params, some)
    return Chunk(min(chunk.cpu, limit), chunk.accelerator)


def activation_chunk(objective: Objective, params: PyTree, local: Local) -> Chunk:
    """Return how many workers' activations may exist at a time, where all gradients are kept."""
    each = _num_activations(objective, params, local)
    return Chunk(
        _workers_in_cache(each, local),
        max(1, _NUMBERS_ON_ACCELERATOR // each),
    )


def _workers_in_cache(each: int, local: Local) -> int:
    """Return how many workers of so many activations each a CPU takes at a time."""
    rows = num_rows(local.examples)
    many = each > _MANY_PER_EXAMPLE * rows and each * count(local) > _MANY_NUMBERS
    return 1 if many else max(1, _EXAMPLES_PER_CHUNK // rows)


def rows_at_a_time(objective: Objective, params: PyTree, local: Local) -> Chunk:
    """Return how many of each worker's examples may have activations at a time."""
    rows = num_rows(local.examples)
    each = max(1, _num_activations(objective, params, local) // rows)
    cpu = _examples_in_cache(each, params) if each > _MANY_PER_EXAMPLE else rows
    return Chunk(cpu, max(1, _NUMBERS_ON_ACCELERATOR // each)).up_to(rows)


def _examples_in_cache(each: int, params: PyTree) -> int:
    """Return how many examples of many activations each a CPU takes at a time."""
    # Adding up gradients must not take longer than computing them.
    enough = max(_MANY_AT_A_TIME, 2 * sum(leaf.size for leaf in jax.tree.leaves(params)))
    return max(1, enough // each)


def gradient_chunk(objective: Objective, params: PyTree, local: Local) -> Chunk:
    """Return how many workers' gradients may exist at a time, with their activations."""
    size = max(1, sum(leaf.size for leaf in jax.tree.leaves(params)))
    each = size + _num_activations(objective, params, local)
    most = _workers_in_cache(each - size, local)
    return Chunk(
        max(1, min(most, _NUMBERS_PER_CHUNK // size)),
        max(1, _NUMBERS_ON_ACCELERATOR // each),
    )


def fastest_chunk(objective: Objective, params: PyTree, local: Local) -> Chunk:
    """Return how many workers' gradients to compute at a time where not all must be kept."""
    n = count(local)
    return Chunk(*(_even_part(n, limit) for limit in gradient_chunk(objective, params, local)))


def example_chunk(objective: Objective, params: PyTree, local: Local) -> Chunk:
    """Return how many examples of all workers' to take at a time, for one gradient of them all."""
    each = max(1, _num_activations(objective, params, local) // num_rows(local.examples))
    many = each > _MANY_PER_EXAMPLE
    cpu = _examples_in_cache(each, params) if many else _EXAMPLES_PER_CHUNK
    return Chunk(cpu, max(1, _NUMBERS_ON_ACCELERATOR // each))


def _even_part(n: int, limit: int) -> int:
    """Return n if it is within the limit, else an even number up to the limit, at least 2.

    Sums take workers in pairs. A divisor of n above half the limit is preferred, as it leaves no
    remainder to compile.
    """
    if limit >= n:
        return n
    limit = max(2, limit - limit % 2)
    divisors = (part for part in range(limit, limit // 2, -2) if n % part == 0)
    return next(divisors, limit)


def _num_activations(objective: Objective, params: PyTree, local: Local) -> int:
    """Return about how many numbers one worker's forward pass computes, at least 1.

    Every result of an operation counts, fused or not.
    """
    worker = jax.eval_shape(lambda tree: jax.tree.map(lambda x: x[0], tree), local)

    def forward(params: PyTree, worker: Local) -> PyTree:
        return evaluate_examples(objective, params, worker.examples, worker.keys, worker.states)

    jaxpr = jax.make_jaxpr(forward)(params, worker).jaxpr
    sizes = (math.prod(getattr(v.aval, "shape", ())) for e in jaxpr.eqns for v in e.outvars)
    return max(1, sum(sizes))

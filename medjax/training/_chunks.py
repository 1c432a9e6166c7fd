"""The number of workers whose gradients to compute at a time."""

import math

import jax

from medjax._engine.chunks import Chunk
from medjax._engine.stacked import PyTree
from medjax.objectives import Objective
from medjax.training._local import Local, count, evaluate_examples, num_rows

# On a CPU, a vmap over more examples than this runs in chunks of workers, down to one worker:
# beyond it activations fall out of cache. (The activations of one worker's examples have to fit.)
_EXAMPLES_PER_CHUNK = 8192

# So many numbers of gradients, 64 MiB of float32, exist at a time on a CPU where the rule doesn't
# need all. Smaller chunks are slower, as the matrix products of a few workers are small.
_NUMBERS_PER_CHUNK = 1 << 24

# So many numbers of gradients and activations, 2 GiB of float32, exist at a time on an accelerator.
# An H100 takes a millisecond or more for them: larger chunks would save no time that can be seen,
# and the smallest accelerators have 8 GiB.
_NUMBERS_ON_ACCELERATOR = 1 << 29


def activation_chunk(objective: Objective, params: PyTree, local: Local) -> Chunk:
    """Return how many workers' activations may exist at a time, where all gradients are kept."""
    each = _num_activations(objective, params, local)
    return Chunk(
        max(1, _EXAMPLES_PER_CHUNK // num_rows(local.examples)),
        max(1, _NUMBERS_ON_ACCELERATOR // each),
    )


def gradient_chunk(objective: Objective, params: PyTree, local: Local) -> Chunk:
    """Return how many workers' gradients may exist at a time, with their activations."""
    size = max(1, sum(leaf.size for leaf in jax.tree.leaves(params)))
    each = size + _num_activations(objective, params, local)
    examples = num_rows(local.examples)
    return Chunk(
        max(1, min(_EXAMPLES_PER_CHUNK // examples, _NUMBERS_PER_CHUNK // size)),
        max(1, _NUMBERS_ON_ACCELERATOR // each),
    )


def fastest_chunk(objective: Objective, params: PyTree, local: Local) -> Chunk:
    """Return how many workers' gradients to compute at a time where not all must be kept."""
    n = count(local)
    return Chunk(*(_even_part(n, limit) for limit in gradient_chunk(objective, params, local)))


def example_chunk(objective: Objective, params: PyTree, local: Local) -> Chunk:
    """Return how many examples of all workers' to take at a time, for one gradient of them all."""
    each = _num_activations(objective, params, local) // num_rows(local.examples)
    return Chunk(_EXAMPLES_PER_CHUNK, max(1, _NUMBERS_ON_ACCELERATOR // max(1, each)))


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

"""Bits that algorithms send, from their messages' sizes."""

import math
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from medjax._engine import checks
from medjax._engine.participation import check_cohort
from medjax._engine.stacked import PyTree
from medjax.compressors import Bits, Compressor, PlainCompressor
from medjax.compressors import communication as of_vectors
from medjax.topologies import Topology
from medjax.workers import Algorithm

PerWorker: TypeAlias = Callable[[PyTree, int], tuple[float, float]]
"""(parameters, m) to the bits that one of m workers sends in a round, and those that it gets."""


def communication(algorithm: Algorithm, params: PyTree, num_workers: int) -> Bits:
    """Return the bits that m workers and the server exchange in a round.

    Where a coin decides what is sent, as MARINA's, it is the expectation. Numbers as small as a
    step's number or a coin aren't counted.

    Args:
        algorithm: of `medjax.algorithms`, or one's own.
        params: the parameters, or their shapes and dtypes.
        num_workers: m, of those who take part.

    Raises:
        ValueError, TypeError: if m isn't a positive integer, or the number of nodes without a
            server; or as for the compressor's `bits`.

    >>> from medjax.algorithms import scaffold
    >>> communication(scaffold(5, 0.1), jnp.zeros(1000), 10)
    Bits(up=320000, down=640000)
    """
    m = checks.integer("num_workers", num_workers, minimum=1)
    if algorithm.nodes is not None:
        check_cohort("the topology", algorithm.nodes, m)
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x)), params)
    up, down = (algorithm.bits or vectors())(like, m)
    return Bits(math.ceil(m * up), math.ceil(m * down))


def vectors(up: int = 1, down: int = 1) -> PerWorker:
    """Count whole vectors of the parameters' size, such as a move, a gradient, a momentum."""

    def count(params: PyTree, num_workers: int) -> tuple[float, float]:
        whole = of_vectors(params, 1).up
        return up * whole, down * whole

    return count


def compressed(
    compressor: Compressor | PlainCompressor, probability: float | jax.Array = 0.0
) -> PerWorker:
    """Count compressed vectors up, but for whole ones with a probability; and whole ones down."""

    def count(params: PyTree, num_workers: int) -> tuple[float, float]:
        message, whole = of_vectors(params, 1, up=compressor)
        return float(probability) * whole + (1 - float(probability)) * message, whole

    return count


def to_neighbours(topology: Topology, each: PerWorker) -> PerWorker:
    """Count what nodes send to all their neighbours, and get from them."""
    n = topology.num_nodes
    degree = np.count_nonzero(topology.weights * (1 - np.eye(n))) / n  # on average

    def count(params: PyTree, num_workers: int) -> tuple[float, float]:
        sent = each(params, num_workers)[0] * degree
        return sent, sent

    return count


def signs(*, never_0: bool, average: bool = False) -> PerWorker:
    """Count signs up: a bit for a coordinate where it can't be 0, else two; and the decision down.

    Args:
        never_0: whether a worker's can't be 0.
        average: whether the decision is an average, one of so many values, and not a vote.
    """

    def count(params: PyTree, num_workers: int) -> tuple[float, float]:
        size = sum(x.size for x in jax.tree.leaves(params))
        decided = 1 if never_0 and num_workers % 2 else 2
        if average:
            values = num_workers + 1 if never_0 else 2 * num_workers + 1
            decided = math.ceil(math.log2(values))
        return size * (1 if never_0 else 2), size * decided

    return count

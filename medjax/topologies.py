"""Topologies: who talks to whom in decentralised training, and with which weights.

    algorithm = medjax.algorithms.d_psgd(medjax.topologies.ring(8), lr=0.05)

A topology of n nodes has an (n, n) matrix W, symmetric and doubly stochastic: node i takes W_ij of
what node j sends, and keeps W_ii of its own. Graphs get the weights of Metropolis and Hastings,

    W_ij = 1/(1 + max(degree_i, degree_j)) for neighbours,  W_ii = 1 - Σ_j W_ij.

>>> from medjax import topologies
>>> topologies.ring(4)
Topology('ring(4)', spectral_gap=0.6667)
>>> print(topologies.star(4).weights[1])
[0.25 0.75 0.   0.  ]
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike

from medjax._engine import checks

_TRIES = 1000
_TOLERANCE = 1e-6  # what a matrix of float32 is off by


@dataclass(frozen=True, eq=False, repr=False)
class Topology:
    """The weights with which n nodes average; built by a function of `medjax.topologies`.

    Attributes:
        name: the topology with its settings.
        weights: W, read-only.
        spectral_gap: 1 - max(|λ_2|, |λ_n|) of W's eigenvalues λ_1 = 1 ≥ λ_2 ≥ ... ≥ λ_n. An average
            of all nodes brings the distance to consensus down by 1 - gap at least; 0 if some nodes
            never hear of some others.
    """

    name: str
    weights: Float[np.ndarray, "n n"]
    spectral_gap: float

    @property
    def num_nodes(self) -> int:
        """The number of nodes, n."""
        return len(self.weights)

    def __repr__(self) -> str:
        return f"Topology({self.name!r}, spectral_gap={self.spectral_gap:.4g})"


def complete(num_nodes: int) -> Topology:
    """All nodes are neighbours: W = 11ᵀ/n.

    Args:
        num_nodes: n.
    """
    n = _number(num_nodes)
    return _metropolis(f"complete({n})", n, combinations(range(n), 2))


def ring(num_nodes: int) -> Topology:
    """Node i has the neighbours i - 1 and i + 1, modulo n.

    From three nodes on, all weights are 1/3, and the eigenvalues 1/3 + 2/3 cos(2πk/n).

    Args:
        num_nodes: n.
    """
    n = _number(num_nodes)
    return _metropolis(f"ring({n})", n, ((i, (i + 1) % n) for i in range(n)))


def torus(rows: int, columns: int) -> Topology:
    """A grid whose opposite borders are joined: each node has four neighbours.

    Node (r, c) is node r · columns + c. From three rows and columns on, all weights are 1/5.

    Args:
        rows: the number of rows.
        columns: the number of columns.
    """
    rows = checks.integer("rows", rows, minimum=1)
    columns = checks.integer("columns", columns, minimum=1)
    index = np.arange(rows * columns).reshape(rows, columns)
    edges = [
        pair
        for axis in (0, 1)
        for pair in zip(
            index.ravel().tolist(), np.roll(index, -1, axis).ravel().tolist(), strict=True
        )
    ]
    return _metropolis(f"torus({rows}, {columns})", rows * columns, edges)


def star(num_nodes: int) -> Topology:
    """Node 0 is everybody's only neighbour.

    Args:
        num_nodes: n.
    """
    n = _number(num_nodes)
    return _metropolis(f"star({n})", n, ((0, i) for i in range(1, n)))


def exponential(num_nodes: int) -> Topology:
    """Node i has the neighbours i ± 2^k, modulo n, for all 2^k < n.

    There are at most 2 ⌈log₂ n⌉ of them. Where n = 2^m, m > 1, the spectral gap is 2/m.

    The undirected form of the static exponential graph (Assran et al., 2019; Ying et al., 2021),
    whose nodes send to i + 2^k alone, so that its W isn't symmetric.

    Args:
        num_nodes: n.
    """
    n = _number(num_nodes)
    steps = [2**k for k in range(n.bit_length()) if 2**k < n]
    return _metropolis(
        f"exponential({n})", n, ((i, (i + step) % n) for i in range(n) for step in steps)
    )


def erdos_renyi(num_nodes: int, probability: float, seed: int) -> Topology:
    """Each two nodes are neighbours with probability p, independently; drawn until it is connected.

    Args:
        num_nodes: n.
        probability: p.
        seed: an integer of at least 0, of which the graph is a function.

    Raises:
        ValueError: if p isn't in [0, 1], or none of 1,000 graphs is connected; p should be well
            above ln(n)/n.
        TypeError: if a number isn't one.
    """
    n = _number(num_nodes)
    checks.fraction("probability", probability)
    rng = np.random.default_rng(checks.integer("seed", seed, minimum=0))
    name = f"erdos_renyi({n}, {probability:g}, seed={seed})"
    for _ in range(_TRIES):
        upper = np.triu(rng.random((n, n)) < probability, 1)
        if _connected(upper | upper.T):
            return _metropolis(name, n, np.argwhere(upper))
    raise ValueError(
        f"none of {_TRIES} graphs of {n} nodes with probability {probability:g} is connected; "
        f"above ln(n)/n = {np.log(n) / n:.2g} most are"
    )


def from_matrix(matrix: ArrayLike) -> Topology:
    """Use weights of one's own.

    Args:
        matrix: W (n, n), of numbers of at least 0, symmetric, whose rows have the sum 1, up to
            1e-6. The identity is allowed: nodes that never talk.

    Raises:
        ValueError: if it isn't such.
    """
    weights = np.array(matrix, np.float64)
    if weights.ndim != 2 or weights.shape[0] != weights.shape[1] or not weights.size:
        raise ValueError(f"the weights must be a matrix (n, n), got shape {weights.shape}")
    if not np.all(weights >= -_TOLERANCE):
        raise ValueError(f"the weights must be at least 0, got {weights.min():g}")
    sums = weights.sum(axis=1)
    for what, found, wanted, valid in (
        ("symmetric", weights, weights.T, "W_ij = W_ji"),
        ("doubly stochastic", sums, np.ones_like(sums), "each row has the sum 1"),
    ):
        error = np.abs(found - wanted)
        if error.max() > _TOLERANCE:
            at = np.unravel_index(error.argmax(), error.shape)
            where, value, other = [int(i) for i in at], found[at], wanted[at]
            raise ValueError(
                f"the weights must be {what}, {valid}: at {where} it is {value:g}, not {other:g}"
            )
    return _topology(f"from_matrix({len(weights)})", np.maximum(weights, 0))


def from_graph(graph: Any) -> Topology:
    """Use a graph of networkx, or another with its `adjacency()`.

    Node i of the topology is the i-th of the graph. Weights of edges and loops aren't looked at.

    Args:
        graph: its `adjacency()` gives each node with its neighbours, as networkx's does.

    Raises:
        ValueError: if it has no nodes, if an edge has one direction only, or if it isn't connected.
        TypeError: if it has no `adjacency()`.
    """
    if not callable(getattr(graph, "adjacency", None)):
        raise TypeError(f"a graph has adjacency(), as those of networkx, got {graph!r}")
    neighbours = {node: list(others) for node, others in graph.adjacency()}
    if not neighbours:
        raise ValueError("the graph has no nodes")
    index = {node: i for i, node in enumerate(neighbours)}
    n = len(index)
    joined = np.zeros((n, n), bool)
    for node, others in neighbours.items():
        joined[index[node], [index[other] for other in others]] = True
    one_way = np.argwhere(joined & ~joined.T)
    if len(one_way):
        a, b = (list(index)[i] for i in one_way[0])
        raise ValueError(f"the graph must be undirected, it has an edge from {a!r} to {b!r} alone")
    if not _connected(joined):
        raise ValueError("the graph isn't connected: some nodes would never hear of some others")
    return _metropolis(f"from_graph({n})", n, np.argwhere(joined))


TOPOLOGIES: Mapping[str, Callable[..., Topology]] = {
    "complete": complete,
    "ring": ring,
    "torus": torus,
    "star": star,
    "exponential": exponential,
    "erdos_renyi": erdos_renyi,
}
"""The families of graphs by name."""


def _number(num_nodes: int) -> int:
    return checks.integer("num_nodes", num_nodes, minimum=1)


def _metropolis(name: str, num_nodes: int, edges: Iterable[Iterable[int]]) -> Topology:
    """Give a graph the weights of Metropolis and Hastings; loops and repeated edges don't count."""
    joined = np.zeros((num_nodes, num_nodes), bool)
    for i, j in edges:
        joined[i, j] = joined[j, i] = i != j
    degrees = joined.sum(axis=1)
    weights = joined / (1.0 + np.maximum(degrees[:, None], degrees[None]))
    np.fill_diagonal(weights, 1 - weights.sum(axis=1))
    return _topology(name, weights)


def _topology(name: str, weights: Float[np.ndarray, "n n"]) -> Topology:
    weights.setflags(write=False)
    sizes = np.sort(np.abs(np.linalg.eigvalsh(weights)))
    # The largest is 1, that of the average.
    gap = 1.0 if len(sizes) == 1 else float(np.clip(1 - sizes[-2], 0, 1))
    return Topology(name, weights, gap)


def _connected(joined: Bool[np.ndarray, "n n"]) -> bool:
    reached = np.zeros(len(joined), bool)
    new = reached.copy()
    new[0] = True
    while new.any():
        reached |= new
        new = joined[new].any(axis=0) & ~reached
    return bool(reached.all())

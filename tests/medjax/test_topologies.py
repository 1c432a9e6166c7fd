"""Topologies: their weights and eigenvalues, against closed forms."""

import itertools
from typing import Any

import numpy as np
import pytest

from medjax import topologies
from medjax.topologies import TOPOLOGIES, Topology

SETTINGS: dict[str, tuple[Any, ...]] = {"torus": (3, 4), "erdos_renyi": (9, 0.4, 1)}
ALL = [f(*SETTINGS.get(name, (9,))) for name, f in TOPOLOGIES.items()]


def eigenvalues(topology: Topology) -> np.ndarray:
    return np.linalg.eigvalsh(topology.weights)


def waves(n: int, offsets: list[int]) -> np.ndarray:
    """The eigenvalues of a ring whose node i has the neighbours i + s: waves are eigenvectors."""
    angles = 2 * np.pi * np.outer(np.arange(n), offsets) / n
    return np.sort((1 + np.cos(angles).sum(axis=1)) / (1 + len(offsets)))


@pytest.mark.parametrize("topology", ALL, ids=lambda t: t.name)
def test_weights_are_symmetric_and_doubly_stochastic(topology: Topology):
    w = topology.weights
    np.testing.assert_array_equal(w, w.T)
    np.testing.assert_allclose(w.sum(axis=1), 1, rtol=1e-12)
    assert w.min() >= 0
    assert np.diagonal(w).min() > 0
    assert topology.num_nodes == len(w)
    # Connected, and no eigenvalue is -1.
    assert 0 < topology.spectral_gap <= 1
    sizes = np.sort(np.abs(eigenvalues(topology)))
    assert topology.spectral_gap == pytest.approx(1 - sizes[-2], abs=1e-9)


def test_complete():
    np.testing.assert_allclose(topologies.complete(5).weights, np.full((5, 5), 0.2))
    assert topologies.complete(5).spectral_gap == pytest.approx(1)


@pytest.mark.parametrize("n", [3, 8])
def test_ring(n: int):
    wanted = np.sort(1 / 3 + 2 / 3 * np.cos(2 * np.pi * np.arange(n) / n))
    np.testing.assert_allclose(eigenvalues(topologies.ring(n)), wanted, atol=1e-12)


def test_torus():
    rows, columns = 3, 5
    pairs = itertools.product(np.arange(rows) / rows, np.arange(columns) / columns)
    wanted = [(1 + 2 * np.cos(2 * np.pi * r) + 2 * np.cos(2 * np.pi * c)) / 5 for r, c in pairs]
    found = eigenvalues(topologies.torus(rows, columns))
    np.testing.assert_allclose(found, np.sort(wanted), atol=1e-12)


def test_star():
    # Leaves keep 1 - 1/n; what sums to 0 over them shrinks by no more.
    assert topologies.star(6).spectral_gap == pytest.approx(1 / 6)


@pytest.mark.parametrize(("n", "offsets"), [(7, [1, 6, 2, 5, 4, 3]), (8, [1, 7, 2, 6, 4])])
def test_exponential(n: int, offsets: list[int]):
    found = eigenvalues(topologies.exponential(n))
    np.testing.assert_allclose(found, waves(n, offsets), atol=1e-12)


@pytest.mark.parametrize("m", [2, 3, 6])
def test_the_gap_of_exponential_graphs(m: int):
    assert topologies.exponential(2**m).spectral_gap == pytest.approx(2 / m)


@pytest.mark.parametrize(
    "build",
    [
        *(topologies.complete, topologies.ring, topologies.star, topologies.exponential),
        lambda n: topologies.torus(1, n),
    ],
)
def test_one_and_two_nodes(build: Any):
    np.testing.assert_array_equal(build(1).weights, [[1]])
    np.testing.assert_array_equal(build(2).weights, [[0.5, 0.5], [0.5, 0.5]])
    assert build(1).spectral_gap == build(2).spectral_gap == 1


def test_metropolis_weights_of_a_path():
    # Degrees 1, 2, 1.
    path = Graph({0: [1], 1: [0, 2], 2: [1]})
    wanted = np.array([[2, 1, 0], [1, 1, 1], [0, 1, 2]]) / 3
    np.testing.assert_allclose(topologies.from_graph(path).weights, wanted)


def test_erdos_renyi_is_a_function_of_its_seed():
    drawn = [topologies.erdos_renyi(20, 0.3, seed).weights for seed in (0, 0, 1)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert np.any(drawn[0] != drawn[2])
    edges = (np.triu(drawn[0], 1) > 0).sum()
    # Binomial of 190 and 0.3: a standard deviation of 6.3.
    assert abs(edges - 57) < 4 * 6.3
    np.testing.assert_allclose(topologies.erdos_renyi(4, 1.0, 0).weights, np.full((4, 4), 0.25))


class Graph:
    """A graph with the interface of networkx."""

    def __init__(self, neighbours: dict[Any, list[Any]]) -> None:
        self.neighbours = neighbours

    def adjacency(self) -> Any:
        return ((a, {b: {} for b in others}) for a, others in self.neighbours.items())


def test_graphs_of_any_nodes():
    # With loops, and nodes in an order of their own.
    graph = Graph({"b": ["a", "c"], "a": ["a", "b", "c"], "c": ["b", "a"]})
    np.testing.assert_allclose(topologies.from_graph(graph).weights, np.full((3, 3), 1 / 3))


def test_own_weights():
    w = np.float32([[0.9, 0.1], [0.1, 0.9]])
    found = topologies.from_matrix(w)
    np.testing.assert_array_equal(found.weights, np.float64(w))
    assert found.spectral_gap == pytest.approx(0.2)
    assert topologies.from_matrix(np.eye(3)).spectral_gap == 0
    with pytest.raises(ValueError, match="read-only"):
        found.weights[0, 0] = 1


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: topologies.ring(0), "num_nodes must be at least 1, got 0"),
        (lambda: topologies.torus(2, 0), "columns must be at least 1, got 0"),
        (lambda: topologies.erdos_renyi(9, 1.5, 0), "probability must be at most 1, got 1.5"),
        (lambda: topologies.erdos_renyi(50, 0.01, 0), r"none of 1000 graphs .* ln\(n\)/n = 0.078"),
        (lambda: topologies.from_matrix(np.ones((2, 3))), r"\(n, n\), got shape \(2, 3\)"),
        (lambda: topologies.from_matrix(np.full((1, 1), np.nan)), "must be at least 0, got nan"),
        (lambda: topologies.from_matrix([[1.5, -0.5], [-0.5, 1.5]]), "at least 0, got -0.5"),
        (lambda: topologies.from_matrix([[0.5, 0.5], [0.4, 0.6]]), r"symmetric.* at \[0, 1\]"),
        (lambda: topologies.from_matrix(np.ones((2, 2))), r"sum 1: at \[0\] it is 2, not 1"),
        (lambda: topologies.from_graph(Graph({})), "has no nodes"),
        (lambda: topologies.from_graph(Graph({0: [1], 1: []})), "edge from 0 to 1 alone"),
        (lambda: topologies.from_graph(Graph({0: [], 1: []})), "isn't connected"),
    ],
)
def test_mistakes(build: Any, message: str):
    with pytest.raises(ValueError, match=message):
        build()


def test_graphs_have_their_interface():
    with pytest.raises(TypeError, match=r"adjacency\(\), as those of networkx, got \[\(0, 1\)\]"):
        topologies.from_graph([(0, 1)])

"""Geometric rules against references that are written from the definitions, in float64."""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from scipy.cluster import hierarchy

from medjax import rules


def norms(x: np.ndarray) -> np.ndarray:
    return np.linalg.norm(x, axis=-1)


def distances(x: np.ndarray) -> np.ndarray:
    return norms(x[:, None] - x)


def clipped_to_median(x: np.ndarray) -> np.ndarray:
    return x * np.minimum(1, np.median(norms(x)) / norms(x))[:, None]


def krum_order(x: np.ndarray, k: int) -> np.ndarray:
    # Of the sorted squared distances, the first is that to itself.
    return np.argsort(np.sort(distances(x) ** 2, axis=1)[:, 1 : k + 1].sum(axis=1))


def geometric_median(x: np.ndarray, nu: float = 0.1, num_steps: int = 3) -> np.ndarray:
    z = np.zeros(x.shape[1])
    for _ in range(num_steps):
        beta = 1 / np.maximum(nu, norms(x - z))
        z = beta @ x / beta.sum()
    return z


def centered_clipping(x: np.ndarray, tau: float, num_steps: int) -> np.ndarray:
    v = np.zeros(x.shape[1])
    for _ in range(num_steps):
        v = v + np.mean((x - v) * np.minimum(1, tau / norms(x - v))[:, None], axis=0)
    return v


def best_subset(x: np.ndarray, f: int, score: Callable[[np.ndarray], float]) -> np.ndarray:
    subsets = itertools.combinations(range(len(x)), len(x) - f)
    return x[list(min(subsets, key=lambda chosen: score(x[list(chosen)])))].mean(axis=0)


def monna(x: np.ndarray, f: int, reference: int) -> np.ndarray:
    return x[np.argsort(norms(x - x[reference]))[: len(x) - f]].mean(axis=0)


def caf(x: np.ndarray, f: int) -> np.ndarray:
    c, best, smallest = np.ones(len(x)), x.mean(axis=0), np.inf
    while c.sum() > len(x) - 2 * f:
        mean = c @ x / c.sum()
        values, directions = np.linalg.eigh((c * (x - mean).T) @ (x - mean) / c.sum())
        if values[-1] < smallest:
            best, smallest = mean, values[-1]
        p = ((x - mean) @ directions[:, -1]) ** 2
        c = c * (1 - p / p[c > 0].max())
        c[c < 1e-12] = 0  # that of the largest, after rounding
    return best


def bulyan(x: np.ndarray, f: int) -> np.ndarray:
    n = len(x)
    selected = x[krum_order(x, n - f - 2)[: n - 2 * f]]
    near = np.argsort(np.abs(selected - np.median(selected, axis=0)), axis=0)[: n - 4 * f]
    return np.take_along_axis(selected, near, axis=0).mean(axis=0)


def dnc(x: np.ndarray, f: int) -> np.ndarray:
    centred = x - x.mean(axis=0)
    top = np.linalg.svd(centred)[2][0]
    return x[np.argsort((centred @ top) ** 2)[: len(x) - f]].mean(axis=0)


def signguard(x: np.ndarray) -> np.ndarray:
    n, length = len(x), np.median(norms(x))
    usual = (norms(x) >= 0.1 * length) & (norms(x) <= 3 * length)
    triples = np.stack([np.mean(s, axis=1) for s in (x > 0, x < 0, x == 0)], axis=1)
    bandwidth = np.sort(distances(triples), axis=1)[:, n // 2 - 1].mean() + 1e-6
    modes = triples
    for _ in range(100):
        modes = np.stack([triples[norms(triples - m) <= bandwidth].mean(axis=0) for m in modes])
    clusters = distances(modes) <= bandwidth
    kept = usual & clusters[np.argmax(clusters.sum(axis=1))]
    return clipped_to_median(x)[kept if kept.any() else usual].mean(axis=0)


def clipped_clustering(x: np.ndarray) -> np.ndarray:
    labels = hierarchy.fcluster(hierarchy.linkage(x, "average", "cosine"), 2, "maxclust")
    sizes = np.bincount(labels)
    largest = next(label for label in labels if sizes[label] == sizes.max())
    return clipped_to_median(x)[labels == largest].mean(axis=0)


# Each rule's settings for (n, f), and the reference.
RULES: dict[str, tuple[Callable[..., dict[str, Any]], Callable[..., np.ndarray]]] = {
    "krum": (
        lambda n, f: {"num_byzantine": f},
        lambda x, f: x[krum_order(x, max(1, len(x) - f - 2))[0]],
    ),
    "multi_krum": (
        lambda n, f: {"num_byzantine": f, "num_selected": n - 2 * f, "num_neighbors": n - f - 1},
        lambda x, f: x[krum_order(x, len(x) - f - 1)[: len(x) - 2 * f]].mean(axis=0),
    ),
    "geometric_median": (
        lambda n, f: {"nu": 0.5 * f, "num_steps": n},
        lambda x, f: geometric_median(x, 0.5 * f, len(x)),
    ),
    "centered_clipping": (
        lambda n, f: {"tau": 0.5 * f, "num_steps": n},
        lambda x, f: centered_clipping(x, 0.5 * f, len(x)),
    ),
    "mda": (
        lambda n, f: {"num_byzantine": f},
        lambda x, f: best_subset(x, f, lambda s: distances(s).max()),
    ),
    "smea": (
        lambda n, f: {"num_byzantine": f},
        lambda x, f: best_subset(x, f, lambda s: np.linalg.norm(s - s.mean(axis=0), 2)),
    ),
    "monna": (
        lambda n, f: {"num_byzantine": f, "reference": 2},
        lambda x, f: monna(x, f, 2),
    ),
    "caf": (lambda n, f: {"num_byzantine": f}, caf),
    "cge": (
        lambda n, f: {"num_byzantine": f},
        lambda x, f: x[np.argsort(norms(x))[: len(x) - f]].mean(axis=0),
    ),
    "bulyan": (lambda n, f: {"num_byzantine": f}, bulyan),
    # All coordinates, so that there is nothing to be drawn.
    "dnc": (lambda n, f: {"num_byzantine": f, "num_iterations": 2}, dnc),
    "signguard": (lambda n, f: {"fraction": 1.0}, lambda x, f: signguard(x)),
    "clipped_clustering": (lambda n, f: {}, lambda x, f: clipped_clustering(x)),
}
# In test_stateful_rules.py and test_fltrust.py.
STATEFUL = {"centered_clipping_from_last", "byzantine_sgd", "fltrust"}


def test_every_rule_has_a_reference():
    elsewhere = {"mean", "median", "majority_vote", "trimmed_mean", "meamed", "phocas"}
    assert set(rules.RULES) == set(RULES) | STATEFUL | elsewhere


@pytest.mark.slow
@pytest.mark.parametrize(
    # Half precision is compared with float32 in test_geometric_laws.py.
    ("n", "f", "dtype", "tolerance"),
    [(5, 1, np.float64, 1e-9), (8, 3, np.float32, 1e-4)],
)
def test_equals_reference(n: int, f: int, dtype: Any, tolerance: float):
    sizes = dict.fromkeys(RULES, n) | {"bulyan": max(n, 4 * f + 3)}

    @jax.jit
    def apply_each(xs: dict[int, jax.Array]) -> dict[str, jax.Array]:
        built = {name: rules.RULES[name](**RULES[name][0](m, f)) for name, m in sizes.items()}
        keys = {name: 0 if rule.needs_key else None for name, rule in built.items()}
        return {name: rule(xs[sizes[name]], keys[name]) for name, rule in built.items()}

    def draw(n: int, seed: int) -> np.ndarray:
        rng = np.random.default_rng([n, f, seed])
        x = rng.normal(size=(n, 6)) + 0.5
        x[:f] = 5 * rng.normal(size=(f, 6)) - 2
        if seed >= 5:
            x += 1000  # which all have in common
        return x.astype(dtype)

    with jax.enable_x64(True):
        for seed in range(8):
            xs = {m: draw(m, seed) for m in set(sizes.values())}
            for name, actual in apply_each(xs).items():
                assert actual.dtype == dtype, name
                expected = RULES[name][1](xs[sizes[name]].astype(np.float64), f)
                actual = np.asarray(actual, np.float64)
                np.testing.assert_allclose(
                    actual, expected, tolerance, tolerance / 10, err_msg=f"{name}, seed {seed}"
                )

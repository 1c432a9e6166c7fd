"""Partitions by size: the number of examples, or of a class's examples, that a worker has."""

import numpy as np

from medjax._engine import checks
from medjax.partition._partition import Labels, Partition, Parts, in_order, prepare


def iid() -> Partition:
    """Split the examples uniformly at random into parts whose sizes differ by at most one.

    McMahan et al. (2017) call it IID.
    """

    def partition(labels: Labels, num_workers: int, seed: int) -> Parts:
        labels, rng = prepare(labels, num_workers, seed)
        return in_order(np.array_split(rng.permutation(len(labels)), num_workers))

    return partition


def dirichlet(alpha: float, min_examples: int = 1) -> Partition:
    """Split each class among the workers in proportions drawn from Dirichlet(α, ..., α).

    Small α gives workers few classes and unequal sizes; α → ∞ gives identical distributions
    (Yurochkin et al., 2019; Hsu et al., 2019, fix the sizes instead). A worker left with fewer than
    `min_examples` takes random ones from the worker that has most, the only change to the draw.

    Args:
        alpha: α > 0.
        min_examples: the smallest number of examples that a worker may have.

    Raises:
        ValueError: if α isn't a finite number above 0 or `min_examples` < 1; when called, if there
            are too few examples.
    """
    checks.real("alpha", alpha, minimum=0.0, exclusive=True)
    least = checks.integer("min_examples", min_examples, minimum=1)

    def partition(labels: Labels, num_workers: int, seed: int) -> Parts:
        labels, rng = prepare(labels, num_workers, seed)
        _check_enough(len(labels), num_workers, least)
        parts: list[list[int]] = [[] for _ in range(num_workers)]
        for label in np.unique(labels):
            examples = rng.permutation(np.nonzero(labels == label)[0])
            shares = _dirichlet(rng, alpha, num_workers)
            pieces = np.split(examples, _cuts(shares, len(examples)))
            for part, share in zip(parts, pieces, strict=True):
                part.extend(share.tolist())
        return _topped_up(rng, parts, least)

    return partition


def power_law(exponent: float, min_examples: int = 1) -> Partition:
    """Give the workers random examples, with sizes in proportion to 1, 2^-a, 3^-a, ..., n^-a.

    Sizes are rounded to whole examples and assigned to workers at random. a = 0 is `iid`. A worker
    left with fewer than `min_examples` takes random ones from the worker that has most. Li et al.
    (2020), FedProx, also let the numbers of examples follow a power law.

    Args:
        exponent: a ≥ 0.
        min_examples: the smallest number of examples that a worker may have.

    Raises:
        ValueError, TypeError: if a isn't a finite number of at least 0 or `min_examples` isn't an
            integer of at least 1; when called, if there are too few examples.

    >>> sorted(len(part) for part in power_law(1.0)(np.zeros(110, int), num_workers=3, seed=0))
    [20, 30, 60]
    """
    checks.real("exponent", exponent, minimum=0.0)
    least = checks.integer("min_examples", min_examples, minimum=1)

    def partition(labels: Labels, num_workers: int, seed: int) -> Parts:
        labels, rng = prepare(labels, num_workers, seed)
        _check_enough(len(labels), num_workers, least)
        sizes = (1.0 + rng.permutation(num_workers)) ** -exponent
        shares = np.split(rng.permutation(len(labels)), _cuts(sizes / sizes.sum(), len(labels)))
        return _topped_up(rng, [share.tolist() for share in shares], least)

    return partition


def _cuts(shares: np.ndarray, num_examples: int) -> np.ndarray:
    """Return where to cut the examples into parts of these shares, to the nearest example."""
    return np.round(np.cumsum(shares)[:-1] * num_examples).astype(int)


def _check_enough(num_examples: int, num_workers: int, least: int) -> None:
    if num_examples < num_workers * least:
        raise ValueError(
            f"{num_workers} workers with at least {least} examples each need "
            f"{num_workers * least} examples, there are {num_examples}"
        )


def _topped_up(rng: np.random.Generator, parts: list[list[int]], least: int) -> Parts:
    """Return the sorted parts, after small ones took random examples from the largest."""
    for part in parts:
        while len(part) < least:
            largest = max(parts, key=len)
            part.append(largest.pop(int(rng.integers(len(largest)))))
    return in_order([np.array(part) for part in parts])


def _dirichlet(rng: np.random.Generator, alpha: float, n: int) -> np.ndarray:
    """Draw from Dirichlet(α, ..., α) in logarithms, since gammas of a tiny α round to 0."""
    # If G ~ Gamma(α + 1) and U ~ Uniform(0, 1], then G · U^(1/α) ~ Gamma(α). Only ratios matter, so
    # all U may be divided by the largest; the powers of the others may then vanish.
    log_gamma, log_u = np.log(rng.gamma(alpha + 1, size=n)), np.log1p(-rng.random(n))
    with np.errstate(over="ignore"):
        log_gamma += (log_u - log_u.max()) / alpha
    gamma = np.exp(log_gamma - log_gamma.max())
    return gamma / gamma.sum()

"""Which worker has which example: from identical to disjoint distributions.

A factory gives a `Partition`, a function (labels, num_workers, seed) to one sorted array of indices
per worker, drawn on the host. Every example goes to exactly one worker, and every worker has at
least one. `medjax.stack_workers` then makes the workers' data one array.

>>> labels = np.array([0, 0, 1, 1, 2, 2])
>>> [labels[part].tolist() for part in by_label(1)(labels, num_workers=3, seed=0)]
[[2, 2], [0, 0], [1, 1]]
"""

from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, Integer

from medjax import _checks

Labels = Integer[np.ndarray, " N"]
Parts = list[Int[np.ndarray, " _"]]


@runtime_checkable
class Partition(Protocol):
    """Splits the examples among the workers."""

    def __call__(self, labels: Labels, num_workers: int, seed: int) -> Parts:
        """The sorted indices of each worker's examples.

        Raises:
            ValueError: if such a split doesn't exist; the message says why.
        """
        ...


def iid() -> Partition:
    """A uniformly random split into parts whose sizes differ by at most one."""

    def partition(labels: Labels, num_workers: int, seed: int) -> Parts:
        rng = _start(labels, num_workers, seed)
        return _sorted(np.array_split(rng.permutation(len(labels)), num_workers))

    return partition


def by_label(classes_per_worker: int) -> Partition:
    """Each worker has examples of exactly c classes and, where n · c allows, nobody else has them.

    The classes are put in random order and dealt out in turn, c to each of the n workers, from the
    start again where they run out. With n · c = K classes, they are exclusive (Chen et al., 2020);
    with more, a class is shared by ⌊nc/K⌋ or ⌈nc/K⌉ workers, who split its examples evenly.

    Args:
        classes_per_worker: c.

    Raises:
        ValueError: if c < 1; when called, if c is more than the number of classes, if n · c is
            less (some examples would go to nobody), or if a class has fewer examples than workers.
    """
    c = _checks.integer("classes_per_worker", classes_per_worker, minimum=1)

    def partition(labels: Labels, num_workers: int, seed: int) -> Parts:
        rng = _start(labels, num_workers, seed)
        classes = np.unique(labels)
        if c > len(classes):
            raise ValueError(f"{c} classes per worker are more than the {len(classes)} classes")
        if num_workers * c < len(classes):
            raise ValueError(
                f"{num_workers} workers with {c} classes each cover at most {num_workers * c} of "
                f"the {len(classes)} classes, and every example must go to a worker"
            )
        dealt = np.resize(rng.permutation(classes), num_workers * c).reshape(num_workers, c)
        parts: list[list[np.ndarray]] = [[] for _ in range(num_workers)]
        for label in classes:
            (holders,) = np.nonzero((dealt == label).any(axis=1))
            examples = rng.permutation(np.nonzero(labels == label)[0])
            if len(examples) < len(holders):
                raise ValueError(
                    f"class {label} has {len(examples)} examples, too few for the "
                    f"{len(holders)} workers that share it"
                )
            for worker, share in zip(holders, np.array_split(examples, len(holders)), strict=True):
                parts[worker].append(share)
        return _sorted([np.concatenate(part) for part in parts])

    return partition


def shards(shards_per_worker: int = 2) -> Partition:
    """Sort the examples by label, cut them into n · s shards, deal s random ones to each worker.

    McMahan et al. (2017), where s = 2. Shard sizes differ by at most one.

    Args:
        shards_per_worker: s.

    Raises:
        ValueError: if s < 1; when called, if there are fewer examples than shards.
    """
    s = _checks.integer("shards_per_worker", shards_per_worker, minimum=1)

    def partition(labels: Labels, num_workers: int, seed: int) -> Parts:
        rng = _start(labels, num_workers, seed)
        if len(labels) < num_workers * s:
            raise ValueError(
                f"{num_workers} workers with {s} shards each need {num_workers * s} examples, "
                f"there are {len(labels)}"
            )
        shuffled = rng.permutation(len(labels))
        by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
        pieces = np.array_split(by_class, num_workers * s)
        hands = rng.permutation(num_workers * s).reshape(num_workers, s)
        return _sorted([np.concatenate([pieces[k] for k in hand]) for hand in hands])

    return partition


def dirichlet(alpha: float, min_examples: int = 1) -> Partition:
    """Each class is split among the workers in proportions drawn from Dirichlet(α, ..., α).

    Small α gives workers of few classes and unequal sizes; α → ∞ gives identical distributions
    (Yurochkin et al., 2019; Hsu et al., 2019, fix the sizes instead). A worker left with fewer than
    `min_examples` takes random ones from whoever has most, which is the only change to the draw.

    Args:
        alpha: α > 0.
        min_examples: the least that any worker has.

    Raises:
        ValueError: if α isn't a finite number above 0 or `min_examples` < 1; when called, if there
            are too few examples.
    """
    _checks.real("alpha", alpha, minimum=0.0, exclusive=True)
    least = _checks.integer("min_examples", min_examples, minimum=1)

    def partition(labels: Labels, num_workers: int, seed: int) -> Parts:
        rng = _start(labels, num_workers, seed)
        if len(labels) < num_workers * least:
            raise ValueError(
                f"{num_workers} workers with at least {least} examples each need "
                f"{num_workers * least} examples, there are {len(labels)}"
            )
        parts: list[list[int]] = [[] for _ in range(num_workers)]
        for label in np.unique(labels):
            examples = rng.permutation(np.nonzero(labels == label)[0])
            shares = _dirichlet(rng, alpha, num_workers)
            cuts = np.round(np.cumsum(shares)[:-1] * len(examples)).astype(int)
            for part, share in zip(parts, np.split(examples, cuts), strict=True):
                part.extend(share.tolist())
        for part in parts:
            while len(part) < least:
                largest = max(parts, key=len)
                part.append(largest.pop(int(rng.integers(len(largest)))))
        return _sorted([np.array(part) for part in parts])

    return partition


PARTITIONS: Mapping[str, Callable[..., Partition]] = {
    "iid": iid,
    "by_label": by_label,
    "shards": shards,
    "dirichlet": dirichlet,
}
"""Every partition's factory by its name."""


def _start(labels: Labels, num_workers: int, seed: int) -> np.random.Generator:
    n = _checks.integer("num_workers", num_workers, minimum=1)
    if len(labels) < n:
        raise ValueError(f"{n} workers need at least {n} examples, there are {len(labels)}")
    return np.random.default_rng(_checks.integer("seed", seed, minimum=0))


def _dirichlet(rng: np.random.Generator, alpha: float, n: int) -> np.ndarray:
    """One draw of Dirichlet(α, ..., α), by logarithms, as gammas of a tiny α round to 0."""
    # If G ~ Gamma(α + 1) and U ~ Uniform(0, 1], then G · U^(1/α) ~ Gamma(α).
    # Only ratios matter, so the largest U may count as 1; the others' powers may vanish.
    log_gamma, log_u = np.log(rng.gamma(alpha + 1, size=n)), np.log1p(-rng.random(n))
    with np.errstate(over="ignore"):
        log_gamma += (log_u - log_u.max()) / alpha
    gamma = np.exp(log_gamma - log_gamma.max())
    return gamma / gamma.sum()


def _sorted(parts: list[np.ndarray]) -> Parts:
    return [np.sort(part) for part in parts]

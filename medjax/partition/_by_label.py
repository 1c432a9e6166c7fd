"""Partitions by the examples' labels, which decide the classes that a worker has."""

import numpy as np

from medjax._engine import checks
from medjax.partition._partition import Labels, Partition, Parts, in_order, prepare


def by_label(classes_per_worker: int) -> Partition:
    """Give each worker examples of exactly c classes, which no other worker has if n · c allows it.

    The classes are shuffled and dealt out in turn, c to each of the n workers, starting again when
    they run out. If n · c equals the number of classes K, they are exclusive (Chen et al., 2020).
    If it is more, a class is shared by ⌊nc/K⌋ or ⌈nc/K⌉ workers, who split its examples evenly.

    Args:
        classes_per_worker: c.

    Raises:
        ValueError: if c < 1; when called, if c is more than the number of classes, if n · c is
            less (some examples would go to no worker), or if a class has fewer examples than
            workers.
    """
    c = checks.integer("classes_per_worker", classes_per_worker, minimum=1)

    def partition(labels: Labels, num_workers: int, seed: int) -> Parts:
        labels, rng = prepare(labels, num_workers, seed)
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
        return in_order([np.concatenate(part) for part in parts])

    return partition


def shards(shards_per_worker: int = 2) -> Partition:
    """Sort the examples by label, cut them into n · s shards and deal s at random to each worker.

    McMahan et al. (2017), where s = 2. Shard sizes differ by at most one.

    Args:
        shards_per_worker: s.

    Raises:
        ValueError: if s < 1; when called, if there are fewer examples than shards.
    """
    s = checks.integer("shards_per_worker", shards_per_worker, minimum=1)

    def partition(labels: Labels, num_workers: int, seed: int) -> Parts:
        labels, rng = prepare(labels, num_workers, seed)
        if len(labels) < num_workers * s:
            raise ValueError(
                f"{num_workers} workers with {s} shards each need {num_workers * s} examples, "
                f"there are {len(labels)}"
            )
        shuffled = rng.permutation(len(labels))
        by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
        pieces = np.array_split(by_class, num_workers * s)
        hands = rng.permutation(num_workers * s).reshape(num_workers, s)
        return in_order([np.concatenate([pieces[k] for k in hand]) for hand in hands])

    return partition


def gamma_similarity(similarity: float) -> Partition:
    """Deal a share γ of the examples at random, and the others sorted by label.

    Each worker has an equal share of γN examples drawn at random, and an equal run of the others in
    order of their labels. The runs are assigned to workers at random, and sizes differ by at most
    one. γ = 1 is `iid`; γ = 0 gives each worker one class, if there are as many workers as classes
    and the classes have equal sizes.

    Karimireddy et al. (2020), SCAFFOLD; the name is from ByzFL.

    Args:
        similarity: γ from 0 to 1.

    Raises:
        ValueError, TypeError: if γ isn't a number from 0 to 1.

    >>> labels = np.repeat([0, 1], 8)
    >>> [labels[part].tolist() for part in gamma_similarity(0.5)(labels, num_workers=2, seed=2)]
    [[0, 0, 0, 0, 0, 0, 1, 1], [0, 0, 1, 1, 1, 1, 1, 1]]
    """
    checks.fraction("similarity", similarity)

    def partition(labels: Labels, num_workers: int, seed: int) -> Parts:
        labels, rng = prepare(labels, num_workers, seed)
        shuffled = rng.permutation(len(labels))
        mixed, others = np.split(shuffled, [round(similarity * len(labels))])
        by_class = others[np.argsort(labels[others], kind="stable")]
        # Larger pieces come first among the shares and last among the runs, so that the sums differ
        # by at most one.
        shares = np.array_split(mixed, num_workers)
        runs = np.array_split(by_class[::-1], num_workers)[::-1]
        parts = [np.concatenate(pair) for pair in zip(shares, runs, strict=True)]
        return in_order([parts[k] for k in rng.permutation(num_workers)])

    return partition

"""The partition by the clients that the data come from."""

import numpy as np

from medjax.partition._partition import Labels, Partition, Parts, in_order, prepare


def natural() -> Partition:
    """Give each worker all the examples of one or several clients, dealt out whole at random.

    An example's label is the client that it comes from: the writer of handwriting, as in the
    FEMNIST of Caldas et al. (2018), LEAF, or the author of text. The workers' numbers of clients
    differ by at most one; their numbers of examples differ as much as the clients' do.

    Raises:
        ValueError: when called, if there are fewer clients than workers.

    >>> writers = np.array([7, 7, 7, 8, 9, 9])
    >>> [writers[part].tolist() for part in natural()(writers, num_workers=2, seed=0)]
    [[7, 7, 7, 8], [9, 9]]
    """

    def partition(labels: Labels, num_workers: int, seed: int) -> Parts:
        labels, rng = prepare(labels, num_workers, seed)
        clients, owners = np.unique(labels, return_inverse=True)
        if len(clients) < num_workers:
            raise ValueError(
                f"{num_workers} workers need at least {num_workers} clients, there are "
                f"{len(clients)}"
            )
        turns = rng.permutation(num_workers)[np.arange(len(clients)) % num_workers]
        holders = rng.permutation(turns)[owners]
        sizes = np.bincount(holders, minlength=num_workers)
        return in_order(np.split(np.argsort(holders), np.cumsum(sizes)[:-1]))

    return partition

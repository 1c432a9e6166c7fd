"""Partitions of the examples among the workers, from identical to disjoint distributions.

A factory builds a `Partition`, a function of (labels, num_workers, seed) that returns one sorted
array of indices per worker, drawn on the host. Labels are integers, in an array or a list. Every
example goes to exactly one worker, and every worker has at least one. `medjax.stack_workers` then
puts the workers' data in one array.

>>> import numpy as np
>>> labels = np.array([0, 0, 1, 1, 2, 2])
>>> [labels[part].tolist() for part in by_label(1)(labels, num_workers=3, seed=0)]
[[2, 2], [0, 0], [1, 1]]
"""

from collections.abc import Callable, Mapping

from medjax.partition._by_label import by_label as by_label
from medjax.partition._by_label import gamma_similarity as gamma_similarity
from medjax.partition._by_label import shards as shards
from medjax.partition._by_size import dirichlet as dirichlet
from medjax.partition._by_size import iid as iid
from medjax.partition._by_size import power_law as power_law
from medjax.partition._natural import natural as natural
from medjax.partition._partition import Labels as Labels
from medjax.partition._partition import Partition as Partition
from medjax.partition._partition import Parts as Parts
from medjax.partition._worker_data import WorkerData as WorkerData
from medjax.partition._worker_data import stack_workers as stack_workers

PARTITIONS: Mapping[str, Callable[..., Partition]] = {
    "iid": iid,
    "by_label": by_label,
    "shards": shards,
    "dirichlet": dirichlet,
    "gamma_similarity": gamma_similarity,
    "power_law": power_law,
    "natural": natural,
}
"""Every partition's factory by its name."""

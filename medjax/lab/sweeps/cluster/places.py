"""Room for workers on a cluster: each GPU, or each node if there is none."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Place(NamedTuple):
    """Room for workers on a node.

    Attributes:
        node: the node's identity at Ray.
        host: its address.
        number: how many workers it takes.
        gpus: what each of them takes of Ray's resources; as `cpus`.
    """

    node: str
    host: str
    number: int
    gpus: int
    cpus: float


def places(nodes: Sequence[Mapping[str, Any]], *, on_cpus: bool = False) -> list[Place]:
    """Find room for workers: one for each GPU, or, if there is none, one for each node.

    On a CPU, XLA uses all cores: a worker takes them all.

    Args:
        nodes: as Ray describes them.
        on_cpus: whether GPUs are left alone.
    """
    found = []
    alive = [node for node in nodes if node["Alive"]]
    gpus = [0 if on_cpus else int(node["Resources"].get("GPU", 0)) for node in alive]
    for node, count in zip(alive, gpus, strict=True):
        cores = node["Resources"].get("CPU", 0.0)
        number, each = (count, (1, 0.0)) if any(gpus) else (int(cores >= 1), (0, cores))
        if number:
            found.append(Place(node["NodeID"], node["NodeManagerAddress"], number, *each))
    return found

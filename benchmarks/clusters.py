"""Sweeps on a Ray cluster of two nodes, both on this machine, that lose their driver or a node."""

import os
import shutil
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks import kills
from benchmarks.faults import Ending, run_command
from benchmarks.survival import (
    SWEEP,
    TINY,
    Scene,
    differences,
    first_arguments,
    survivors,
    torn_files,
    undisturbed,
)

_ALONE = SWEEP._replace(  # of four programs, each a chunk to give away
    arguments=("--rule", "noisy_sign", "mean", "median", "krum", "--b", "0.1", *TINY)
)
_HEAD: dict[str, Any] = {"num_cpus": 0, "object_store_memory": 80 << 20}
_NODE: dict[str, Any] = _HEAD | {"num_cpus": 1}
_SHARES = (0.3, 0.9)  # of a sweep's life, in which nodes are lost: before, none has joined it
# What the nodes are to have in their environment; programs are kept, however small they are.
_ENVIRONMENT = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "RAY_USAGE_STATS_ENABLED": "0"}


def sweeps(count: int) -> tuple[int, int]:
    """Let half of `count` sweeps lose their driver, and half of them a node.

    The driver is killed, and the same command then goes on. A sweep goes on itself if a node is
    killed.

    Returns:
        The number of sweeps, and of those after which the table is the one of this machine alone.
    """
    undisturbed(_ALONE)
    with two_nodes() as cluster:
        scene = _ALONE._replace(arguments=(*_ALONE.arguments, "--ray", cluster.address))
        whole = undisturbed(scene)
        for complaint in (complaints := list(differences(_ALONE, whole.folder))):
            print(f"on a cluster: {complaint}", file=sys.stderr)
        if complaints:
            return count, 0
        drivers, nodes = (count + 1) // 2, count // 2
        _, survived = survivors(scene, kills.moments(whole, drivers))
        low, high = _SHARES
        for k in range(nodes):
            share = low + (high - low) * (k + 0.5) / nodes
            survived += _survives_without_a_node(cluster, scene, share * whole.seconds)
    return count, survived


@contextmanager
def two_nodes() -> Iterator[Any]:
    """Start a cluster of two nodes with a core each, and a head with none, on this machine."""
    from ray.cluster_utils import Cluster

    # A short path, for its sockets, and not where `ray.init` looks for a cluster.
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        (Path(folder) / "ray").mkdir()
        environment = mock.patch.dict(os.environ, _ENVIRONMENT | {"RAY_TMPDIR": folder})
        with environment, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)  # in which a node begins
            cluster = Cluster()
            try:
                cluster.add_node(**_HEAD, include_dashboard=False)
                cluster.add_node(**_NODE)
                cluster.add_node(**_NODE)
                yield cluster
            finally:
                cluster.shutdown()


def _survives_without_a_node(cluster: Any, scene: Scene, seconds: float) -> bool:
    with tempfile.TemporaryDirectory() as room:
        folder = Path(room) / "out"
        ending = _without_a_node(cluster, scene, folder, seconds)
        complaints = list(torn_files(folder))
        if ending.code != 0 or ending.errors:
            complaints.append(f"ended with {ending.code}: {ending.errors}")
        else:
            complaints += differences(_ALONE, folder)
    for complaint in complaints:
        print(f"a node is lost after {seconds:.1f} s: {complaint}", file=sys.stderr)
    return not complaints


def _without_a_node(cluster: Any, scene: Scene, folder: Path, seconds: float) -> Ending:
    """Run the command, and kill a node meanwhile; if that came too late, it is repeated earlier."""
    node, _ = cluster.worker_nodes
    killing = threading.Timer(seconds, cluster.remove_node, (node,), {"allow_graceful": False})
    killing.start()
    ending = run_command(scene.module, first_arguments(scene, folder), folder.parent)
    killing.cancel()
    killing.join()
    if node in cluster.worker_nodes:
        shutil.rmtree(folder)
        return _without_a_node(cluster, scene, folder, 0.8 * seconds)
    cluster.add_node(**_NODE)
    return ending

"""Disks that become full, or read-only, under a run, a sweep or a figure of the paper."""

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

import numpy as np

from benchmarks.faults import FULL, READ_ONLY, Fault
from benchmarks.survival import PAPER, RUN, SWEEP, survivors, undisturbed

_SCENES = (RUN, SWEEP, PAPER)
_SIZE = "16m"


def full(count: int) -> tuple[int, int]:
    """Let the disk become full at so many moments, spread over all that is written.

    It is a small file system of its own where one can be mounted. Elsewhere no file can grow.

    Returns:
        How many times, and how many of them were survived.
    """
    return _spread(FULL, count, _small_disk)


def read_only(count: int) -> tuple[int, int]:
    """Let the disk become read-only, as full: what would change a file is refused from then on."""
    return _spread(READ_ONLY, count, tempfile.TemporaryDirectory)


def _spread(
    kind: str, count: int, room: Callable[[], AbstractContextManager[str]]
) -> tuple[int, int]:
    counts = [len(part) for part in np.array_split(range(count), len(_SCENES))]
    tried = survived = 0
    for scene, these in zip(_SCENES, counts, strict=True):
        each = undisturbed(scene).changes / these
        faults = [Fault(kind, change=int((k + 0.5) * each)) for k in range(these)]
        more, good = survivors(scene, faults, room)
        tried, survived = tried + more, survived + good
    return tried, survived


@contextmanager
def _small_disk() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as place:
        mount = ("mount", "-t", "tmpfs", "-o", f"size={_SIZE}", "tmpfs", place)
        mounted = False
        with suppress(OSError):
            mounted = subprocess.run(mount, capture_output=True).returncode == 0
        try:
            yield place
        finally:
            if mounted:
                subprocess.run(("umount", "--lazy", place), check=True)

"""Disks that become full or read-only under a run, a sweep or a figure of the paper."""

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
    """Let the disk become full at `count` moments, spread over all changes of files.

    The disk is a small file system where one can be mounted. Elsewhere files can't grow any more.

    Returns:
        The number of times, and of those that were survived.
    """
    return _spread(FULL, count, _small_disk)


def read_only(count: int) -> tuple[int, int]:
    """Let the disk become read-only at `count` moments; return what `full` does."""
    return _spread(READ_ONLY, count, tempfile.TemporaryDirectory)


def _spread(
    kind: str, count: int, room: Callable[[], AbstractContextManager[str]]
) -> tuple[int, int]:
    counts = [len(part) for part in np.array_split(range(count), len(_SCENES))]
    tried = survived = 0
    for scene, part in zip(_SCENES, counts, strict=True):
        if part == 0:
            continue
        spacing = undisturbed(scene).changes / part
        faults = [Fault(kind, change=int((k + 0.5) * spacing)) for k in range(part)]
        new_tried, new_survived = survivors(scene, faults, room)
        tried, survived = tried + new_tried, survived + new_survived
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

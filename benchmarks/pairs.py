"""Two processes that begin the same run or sweep in one folder at the same time."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.faults import Ending, begin_command
from benchmarks.survival import RUN, SWEEP, Scene, differences, first_arguments

_REFUSALS = ("another process is at work in ", " already holds a run: ")
_MOST_REPEATS = 4


def check(count: int) -> tuple[int, int]:
    """Begin `count` pairs of commands, in turn of a run and of a sweep.

    Returns:
        The number of pairs, and of those of which one ends as an undisturbed command does and the
        other in one line.
    """
    good = 0
    for k in range(count):
        scene = (RUN, SWEEP)[k % 2]
        with tempfile.TemporaryDirectory() as room:
            complaints = list(_complaints(scene, Path(room)))
        good += not complaints
        for complaint in complaints:
            print(f"{scene.module}, twice: {complaint}", file=sys.stderr)
    return count, good


def _complaints(scene: Scene, room: Path) -> Iterator[str]:
    """Begin two at once, and describe what is wrong afterwards."""
    folder = room / "out"
    first, second = _both(scene, folder)
    for _ in range(_MOST_REPEATS):
        # A sweep that gets to the folder after the other has left it has nothing to do.
        if scene == SWEEP and second.code == 0:
            first, second = _both(scene, folder)
    if first.code != 0 or first.errors:
        yield f"the first ended with {first.code}: {first.errors}"
        return
    if second.code != 2 or not _refused(second.errors):
        yield f"the second ended with {second.code}: {second.errors}"
    yield from differences(scene, folder)


def _both(scene: Scene, folder: Path) -> tuple[Ending, Ending]:
    """Begin a command twice; the one that succeeds comes first."""
    shutil.rmtree(folder, ignore_errors=True)
    arguments = first_arguments(scene, folder)
    ends = [begin_command(scene.module, arguments, folder.parent) for _ in range(2)]
    first, second = sorted((end() for end in ends), key=lambda ending: ending.code != 0)
    return first, second


def _refused(errors: str) -> bool:
    line = errors.removesuffix("\n")
    return (
        line.startswith("error: ")
        and line.isprintable()
        and any(each in line for each in _REFUSALS)
    )

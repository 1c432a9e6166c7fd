"""Comparison of a disturbed and then continued command with an undisturbed one."""

import atexit
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq
from matplotlib.image import imread

from benchmarks.faults import FILLER, KILL, Ending, Fault, run_command
from medjax.lab.storage import checkpoints, files, results
from medjax.lab.storage.keeper import FOLDER, Keeper
from medjax.lab.sweeps import store

_STEPS = 30
TINY = (
    *("--dataset", "digits", "--model", "logistic", "--batch-size", "8"),
    *("--steps", str(_STEPS), "--eval-every", "10"),
)
"""The other settings of runs and sweeps."""

_KEPT = ("--checkpoint-every", "5")


class Scene(NamedTuple):
    """A command to disturb.

    Attributes:
        module: the module whose `main` is called.
        arguments: its arguments besides --out.
        table: the name of the table that it writes.
    """

    module: str
    arguments: tuple[str, ...]
    table: str


RUN = Scene(
    "medjax.lab.commands.run",
    ("--rule", "noisy_median", "--b", "0.1", "--worker-momentum", "0.9", *TINY, *_KEPT),
    checkpoints.METRICS,
)
SWEEP = Scene(  # of two programs
    "medjax.lab.commands.sweep",
    ("--rule", "noisy_sign", "mean", "--b", "0.1", "--momentum", "0.9", *TINY, *_KEPT),
    store.TABLE,
)
PAPER = Scene("experiments.paper.__main__", ("fig1",), "trajectories.parquet")


class Undisturbed(NamedTuple):
    """An undisturbed command: its output folder, its changes of files, its seconds."""

    folder: Path
    changes: int
    seconds: float


@cache
def undisturbed(scene: Scene) -> Undisturbed:
    """Run the command, twice, so that the second time doesn't compile."""
    with tempfile.TemporaryDirectory() as room:
        run_undisturbed(scene, Path(room))
    kept = Path(tempfile.mkdtemp())  # every fault is compared with it
    atexit.register(shutil.rmtree, kept, ignore_errors=True)
    return run_undisturbed(scene, kept)


def run_undisturbed(scene: Scene, room: Path) -> Undisturbed:
    """Run the command without a fault.

    Raises:
        RuntimeError: if it fails.
    """
    folder = room / "out"
    ending = run_command(scene.module, first_arguments(scene, folder), room)
    if ending.code != 0:
        raise RuntimeError(f"{scene.module} ended with {ending.code}: {ending.errors}")
    return Undisturbed(folder, ending.changes, ending.seconds)


def survivors(
    scene: Scene,
    faults: Sequence[Fault],
    room: Callable[[], AbstractContextManager[str]] = tempfile.TemporaryDirectory,
) -> tuple[int, int]:
    """Inject the faults one by one, and print on stderr what is wrong afterwards.

    Args:
        scene: the command.
        faults: the faults.
        room: makes an empty folder for each.

    Returns:
        The number of faults, and of those that were survived.
    """
    survived = 0
    for fault in faults:
        with room() as place:
            complaints = list(_complaints(scene, fault, Path(place)))
        survived += not complaints
        for complaint in complaints:
            print(f"{scene.module}, {fault}: {complaint}", file=sys.stderr)
    return len(faults), survived


def first_arguments(scene: Scene, folder: Path) -> tuple[str, ...]:
    """Return the arguments of the command that begins in the folder."""
    return (*scene.arguments, "--out", str(folder))


def _next_arguments(scene: Scene, folder: Path) -> tuple[str, ...] | None:
    """Return what a user would run next: the same again, --resume, or nothing."""
    if scene != RUN or not (folder / scene.table).exists():
        return first_arguments(scene, folder)
    if results.read_json(folder / checkpoints.SUMMARY).get("step") == _STEPS:
        return None
    return ("--resume", str(folder))


def _complaints(scene: Scene, fault: Fault, room: Path) -> Iterator[str]:
    """Inject a fault, continue, and describe what is wrong."""
    folder = room / "out"
    ending = _disturb(scene, fault, room)
    (room / FILLER).unlink(missing_ok=True)
    yield from _ending_complaints(ending, fault)
    yield from torn_files(folder)
    arguments = _next_arguments(scene, folder)
    if arguments is not None:
        ending = run_command(scene.module, arguments, room)
        if ending.code != 0 or ending.errors:
            yield f"{arguments} ended with {ending.code}: {ending.errors}"
            return
    yield from differences(scene, folder, lock=arguments is None)


def differences(scene: Scene, folder: Path, *, lock: bool = False) -> Iterator[str]:
    """Describe what is other than after the undisturbed command.

    Args:
        scene: the command.
        folder: its output folder.
        lock: whether the lock of a killed process may be there.
    """
    whole = undisturbed(scene).folder
    if not pq.read_table(folder / scene.table).equals(pq.read_table(whole / scene.table)):
        yield "the table differs"
    names = _names(folder)
    if lock and files.LOCK in names:  # which no process holds any more
        names.remove(files.LOCK)
    if names != _names(whole):
        yield f"the files differ: {names}, not {_names(whole)}"
    if scene == RUN and _last_state(folder) != _last_state(whole):
        yield "the last state differs"


def _disturb(scene: Scene, fault: Fault, room: Path) -> Ending:
    """Run the command with a fault; a kill that came too late is repeated earlier."""
    folder = room / "out"
    ending = run_command(scene.module, first_arguments(scene, folder), room, fault)
    while fault.seconds is not None and ending.code == 0:
        fault = fault._replace(seconds=0.8 * fault.seconds)
        shutil.rmtree(folder)
        ending = run_command(scene.module, first_arguments(scene, folder), room, fault)
    return ending


def _ending_complaints(ending: Ending, fault: Fault) -> Iterator[str]:
    """Check that a kill kills, and a disk's refusal gives one line and exit code 1.

    The exit code is 2 if the command had written nothing yet.
    """
    if fault.kind == KILL:
        if ending.code != -9:
            yield f"ended before the kill, with {ending.code}: {ending.errors}"
    elif ending.code == 0:  # there was nothing left to write
        if ending.errors:
            yield f"said {ending.errors}"
    elif (
        ending.code not in (1, 2)
        or not ending.errors.startswith("error: ")
        or ending.errors.count("\n") != 1
    ):
        yield f"ended with {ending.code}: {ending.errors}"


_READERS: dict[str, Callable[[Path], object]] = {
    ".json": lambda path: json.loads(path.read_text()),
    ".parquet": pq.read_table,
    ".png": imread,
    ".svg": lambda path: path.read_text().index("</svg>"),
}
_UNREADABLE = (OSError, SyntaxError, ValueError)  # SyntaxError is Pillow's, of a torn PNG


def torn_files(folder: Path) -> Iterator[str]:
    """Describe the files that can't be read."""
    for path in (*folder.glob("*"), *folder.glob(f"{store.PARTS}/*")):
        if path.is_file() and not files.is_leftover(path):
            try:
                _READERS.get(path.suffix, Path.read_text)(path)
            except _UNREADABLE as error:
                yield f"{path.name} is torn: {error!r}"


def _names(folder: Path) -> list[str]:
    """Return the sorted names of all files, without the numbers of the kept checkpoints.

    These depend on the pace.
    """
    others = [*folder.glob("*"), *folder.glob(f"{store.PARTS}/*")]
    kept = ("a step" if x.name.isdigit() else x.name for x in folder.glob(f"{FOLDER}/*"))
    return sorted([*(str(x.relative_to(folder)) for x in others), *kept])


def _last_state(folder: Path) -> tuple[int, list[bytes]] | None:
    """Return the step and the leaves of the last checkpoint."""
    keeper = Keeper(folder / FOLDER, 1)
    try:
        start = keeper.latest()
        return start and (start.step, [x.tobytes() for x in start.leaves])
    finally:
        keeper.close()

"""What things happen to, what a user does next, and whether all is then as if nothing had."""

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

from benchmarks.faults import FILLER, KILL, Ending, Fault, carry_out
from medjax.lab.storage import checkpoints, files, results
from medjax.lab.storage.keeper import FOLDER, Keeper
from medjax.lab.sweep import store

_STEPS = 30
_TINY = (
    *("--dataset", "digits", "--model", "logistic", "--batch-size", "8", "--checkpoint-every", "5"),
    *("--steps", str(_STEPS), "--eval-every", "10"),
)


class Scene(NamedTuple):
    """A command.

    Attributes:
        module: whose `main` is called.
        arguments: for it, but for --out.
        table: what it writes.
    """

    module: str
    arguments: tuple[str, ...]
    table: str


RUN = Scene(
    "medjax.lab.commands.run",
    ("--rule", "noisy_median", "--b", "0.1", "--worker-momentum", "0.9", *_TINY),
    checkpoints.METRICS,
)
SWEEP = Scene(  # of two programs
    "medjax.lab.commands.sweep",
    ("--rule", "noisy_sign", "mean", "--b", "0.1", "--momentum", "0.9", *_TINY),
    store.TABLE,
)
PAPER = Scene("experiments.paper.__main__", ("fig1",), "trajectories.parquet")


class Undisturbed(NamedTuple):
    """A command to which nothing happened: its folder, its changes to files, its seconds."""

    folder: Path
    changes: int
    seconds: float


@cache
def undisturbed(scene: Scene) -> Undisturbed:
    """Carry the command out: twice, as the first time it compiles."""
    with tempfile.TemporaryDirectory() as room:
        _carried_out(scene, Path(room))
    kept = Path(tempfile.mkdtemp())  # until nobody asks any more
    atexit.register(shutil.rmtree, kept, ignore_errors=True)
    return _carried_out(scene, kept)


def _carried_out(scene: Scene, room: Path) -> Undisturbed:
    folder = room / "out"
    ending = carry_out(scene.module, _first(scene, folder), room)
    if ending.code != 0:
        raise RuntimeError(f"{scene.module} ended with {ending.code}: {ending.errors}")
    return Undisturbed(folder, ending.changes, ending.seconds)


def survivors(
    scene: Scene,
    faults: Sequence[Fault],
    room: Callable[[], AbstractContextManager[str]] = tempfile.TemporaryDirectory,
) -> tuple[int, int]:
    """Let each of the faults happen; what isn't as it should be is said.

    Args:
        scene: the command.
        faults: what happens.
        room: makes an empty folder for each.

    Returns:
        How many were tried, and how many were survived.
    """
    survived = 0
    for fault in faults:
        with room() as place:
            wrong = list(_after(scene, fault, Path(place)))
        survived += not wrong
        for line in wrong:
            print(f"{scene.module}, {fault}: {line}", file=sys.stderr)
    return len(faults), survived


def _first(scene: Scene, folder: Path) -> tuple[str, ...]:
    return (*scene.arguments, "--out", str(folder))


def _next(scene: Scene, folder: Path) -> tuple[str, ...] | None:
    """What a user does after something happened: nothing, or the same again, or --resume."""
    if scene != RUN or not (folder / scene.table).exists():
        return _first(scene, folder)
    if results.read_json(folder / checkpoints.SUMMARY).get("step") == _STEPS:
        return None
    return ("--resume", str(folder))


def _after(scene: Scene, fault: Fault, room: Path) -> Iterator[str]:
    """What is wrong after a fault."""
    folder, whole = room / "out", undisturbed(scene).folder
    ending = _disturbed(scene, fault, room)
    (room / FILLER).unlink(missing_ok=True)
    yield from _badly_ended(ending, fault)
    yield from _torn(folder)
    arguments = _next(scene, folder)
    if arguments is not None:
        ending = carry_out(scene.module, arguments, room)
        if ending.code != 0 or ending.errors:
            yield f"{arguments} ended with {ending.code}: {ending.errors}"
            return
    if not pq.read_table(folder / scene.table).equals(pq.read_table(whole / scene.table)):
        yield "the table differs"
    names = _names(folder)
    if arguments is None and files.LOCK in names:  # which no process holds any more
        names.remove(files.LOCK)
    if names != _names(whole):
        yield f"the files differ: {names}, not {_names(whole)}"
    if scene == RUN and _state(folder) != _state(whole):
        yield "the last state differs"


def _disturbed(scene: Scene, fault: Fault, room: Path) -> Ending:
    """How the command ended. A kill that came too late comes earlier."""
    folder = room / "out"
    ending = carry_out(scene.module, _first(scene, folder), room, fault)
    while fault.seconds is not None and ending.code == 0:
        fault = fault._replace(seconds=0.8 * fault.seconds)
        shutil.rmtree(folder)
        ending = carry_out(scene.module, _first(scene, folder), room, fault)
    return ending


def _badly_ended(ending: Ending, fault: Fault) -> Iterator[str]:
    """A kill is a kill. A refusal is one line and 1, or 2 before anything was begun."""
    if fault.kind == KILL:
        if ending.code != -9:
            yield f"ended before the kill, with {ending.code}: {ending.errors}"
    elif ending.code == 0:  # nothing was left to be written
        if ending.errors:
            yield f"said {ending.errors}"
    elif (
        ending.code not in (1, 2)
        or not ending.errors.startswith("error: ")
        or ending.errors.count("\n") != 1
    ):
        yield f"ended with {ending.code}: {ending.errors}"


def _torn(folder: Path) -> Iterator[str]:
    """The files that aren't whole."""
    readers: dict[str, Callable[[Path], object]] = {
        ".json": lambda path: json.loads(path.read_text()),
        ".parquet": pq.read_table,
        ".png": imread,
        ".svg": lambda path: path.read_text().index("</svg>"),
        ".md": Path.read_text,
    }
    for path in (*folder.glob("*"), *folder.glob(f"{store.PARTS}/*")):
        if path.is_file() and not files.is_leftover(path):
            try:
                readers[path.suffix](path)
            except Exception as error:
                yield f"{path.name} is torn: {error!r}"


def _names(folder: Path) -> list[str]:
    """All files and folders but those within checkpoints, whose steps are a matter of the pace."""
    others = [*folder.glob("*"), *folder.glob(f"{store.PARTS}/*")]
    kept = ("a step" if x.name.isdigit() else x.name for x in folder.glob(f"{FOLDER}/*"))
    return sorted([*(str(x.relative_to(folder)) for x in others), *kept])


def _state(folder: Path) -> tuple[int, list[bytes]] | None:
    """The last checkpoint."""
    keeper = Keeper(folder / FOLDER, 1)
    try:
        start = keeper.latest()
        return start and (start.step, [x.tobytes() for x in start.leaves])
    finally:
        keeper.close()

"""Programs that show runs while they go on: TensorBoard, Weights & Biases.

Each is a function in `WATCHERS` that is told of a run and gives what adds a measurement to it.
"""

import argparse
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from medjax.lab.settings.config import Settings
from medjax.lab.storage.watching import tensorboard, wandb
from medjax.lab.storage.watching.watched import Add, Row, Watched, Watcher, plain

WATCHERS: Mapping[str, Watcher] = {"tensorboard": tensorboard.watch, "wandb": wandb.watch}
"""By the name of the flag, and of the folder in which a sweep keeps their files."""


def add_watching(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each watcher."""
    group = parser.add_argument_group("watching")
    group.add_argument(
        "--tensorboard",
        action="store_true",
        help="write the measurements as events for TensorBoard too; of a sweep, when runs are "
        "finished (a resumed run that has some goes on with them)",
    )
    group.add_argument(
        "--wandb",
        metavar="PROJECT",
        nargs="?",
        const="medjax",
        type=wandb.project,
        help="log the measurements to Weights & Biases too, in this project (default: medjax); "
        "without a network: WANDB_MODE=offline",
    )


def chosen(arguments: argparse.Namespace) -> dict[str, str]:
    """Return the watchers that the command line asks for, each with what follows its flag."""
    found = {name: getattr(arguments, name) for name in WATCHERS}
    return {name: "" if value is True else value for name, value in found.items() if value}


@contextmanager
def watch(
    folder: Path | None,
    watchers: Mapping[str, str],
    config: Settings,
    columns: Mapping[str, Sequence[float]],
) -> Iterator[Add]:
    """Give a run to its watchers, with what has been measured until now.

    Args:
        folder: the run's; None if this process writes nothing, and there is nothing to watch.
        watchers: those that are asked for. A run that has TensorBoard's events goes on with them.
        config: the run's settings.
        columns: what was measured before the run was resumed.

    Yields:
        A function that adds a measurement.

    Raises:
        ValueError: if a watcher can't begin.
    """
    with ExitStack() as stack:
        adds: list[Add] = []
        if folder is not None:
            if tensorboard.files(folder):
                watchers = {"tensorboard": "", **watchers}
            settings = plain(config)
            for name, option in watchers.items():
                run = Watched(folder.absolute(), folder.absolute().name, settings, settings, option)
                adds.append(stack.enter_context(WATCHERS[name](run)))

        def add(row: Row) -> None:
            for each in adds:
                each(row)

        for values in zip(*columns.values(), strict=True):
            add(dict(zip(columns, values, strict=True)))
        yield add


def remove(folder: Path) -> None:
    """Remove what the watchers of a run have written in its folder."""
    for path in tensorboard.files(folder):
        path.unlink()
    shutil.rmtree(folder / wandb.FOLDER, ignore_errors=True)

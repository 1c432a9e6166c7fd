"""Going on with a run from its checkpoints: the flags, its settings, and what it had measured."""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medjax.lab.machine import processes
from medjax.lab.settings import cli, flags
from medjax.lab.settings.config import SETTINGS, Settings, digests, from_record, resolve
from medjax.lab.settings.field import flag
from medjax.lab.storage import results
from medjax.lab.storage.keeper import Keeper, Start

METRICS = "metrics.parquet"
SUMMARY = "summary.json"


def add_checkpoints(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    group = add_checkpoint_every(parser)
    group.add_argument(
        "--resume",
        metavar="DIR",
        type=cli.folder,
        help="go on with the run in this folder, from its last checkpoint and with its settings",
    )


def add_checkpoint_every(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """The flag for what can go on without another; the group that it is in."""
    group = parser.add_argument_group("checkpoints")
    group.add_argument(
        "--checkpoint-every",
        metavar="K",
        type=cli.integer(1),
        help="keep what can be gone on from, about every K steps and when it is stopped "
        "(default: don't)",
    )
    return group


def settings(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None, arguments: argparse.Namespace
) -> Settings:
    """The run's settings: those of the command line, or of the run that --resume names.

    Args:
        parser: the command's.
        argv: the command line.
        arguments: what it was parsed to; of a resumed run, `checkpoint_every` is filled in.

    Raises:
        ValueError: if settings don't fit each other, if there is no run with checkpoints, or if it
            was begun with other settings than are given.
    """
    if arguments.resume is None:
        return resolve(flags.given(arguments))
    if arguments.out is not None:
        raise ValueError("--resume goes on in the run's own folder: without --out")
    folder = Path(arguments.resume)
    record = results.read_config(folder)
    saved, every = record.get("config"), record.get("checkpoint_every")
    sessions = record.get("resumed", [])
    if not isinstance(saved, dict) or every is None or not isinstance(sessions, list):
        raise ValueError(
            f"{str(folder)!r} isn't the folder of a run with checkpoints; such a run is begun with "
            "--checkpoint-every"
        )
    begun_with = recorded(folder, record)
    # Of flags that are there twice, the later one prevails.
    words = flags.as_flags(saved | {"checkpoint_every": every})
    asked = parser.parse_args([*words, *(sys.argv[1:] if argv is None else argv)])
    goes_on_with = resolve(flags.given(asked), drop=True)
    for name in SETTINGS:
        old, new = getattr(begun_with, name), getattr(goes_on_with, name)
        if new != old:
            raise ValueError(
                f"{flag(name)} {new} isn't what {str(folder)!r} was begun with, {old}: leave it "
                "out, or begin a new run"
            )
    arguments.checkpoint_every, arguments.out = asked.checkpoint_every, str(folder)
    return begun_with


def recorded(folder: Path, record: Mapping[str, Any]) -> Settings:
    """Return the settings in a run's record, checked like those that users give.

    Raises:
        ValueError: if they aren't those of a run, or a file of one's own has changed since.
    """
    saved = record["config"]
    unknown = [name for name in saved if name not in SETTINGS]
    if unknown:
        raise ValueError(f"{str(folder)!r} has a setting that runs don't have, {unknown[0]!r}")
    config = from_record(saved)
    check_own_code(folder, record, [config])
    return config


def check_own_code(folder: Path, record: Mapping[str, Any], configs: Sequence[Settings]) -> None:
    """Check that the files of one's own are those of a record.

    Raises:
        ValueError: if one has changed since.
    """
    was = record.get("own_code", {})
    for name, digest in digests(configs).items():
        if was.get(name) != digest:
            raise ValueError(f"{name} isn't what it was when {str(folder)!r} was begun")


def begun(
    keeper: Keeper | None, folder: Path | None, config: Settings
) -> tuple[Start | None, dict[str, list[float]]]:
    """Return the state to resume from and its measurements; (None, nothing) at the beginning.

    Raises:
        ValueError: if it has reached its end, and has written all that there is to write then.
    """
    start = keeper.latest() if keeper is not None else None
    if start is None:
        return None, {}

    def check() -> None:
        summary = {} if folder is None else results.read_json(folder / SUMMARY)
        if summary.get("step") == config.steps == start.step:
            raise ValueError(f"the run in {str(folder)!r} has finished its {config.steps} steps")

    processes.all_ready(check)
    rows = start.regular(config.steps, config.eval_every)
    return start, {name: values.tolist() for name, values in rows.items()}


@contextmanager
def keeping(folder: Path | None, every: int | None) -> Iterator[Keeper | None]:
    """A keeper of checkpoints, if there are to be any; the first process has the folder."""
    if every is None:
        yield None
        return
    keeper = Keeper(folder, every)
    try:
        yield keeper
    finally:
        keeper.close()

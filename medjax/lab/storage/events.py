"""A run's measurements as TensorBoard reads them: an event file beside the table."""

import argparse
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tensorboardX import RecordWriter, summary
from tensorboardX.proto import event_pb2

from medjax.lab import plots
from medjax.lab.settings.config import RunConfig, as_record

_messages: Any = event_pb2  # its names come into being when it is imported
_NAME = "events.out.tfevents."  # TensorBoard looks for it


def add_events(parser: argparse.ArgumentParser) -> None:
    """The flag."""
    parser.add_argument_group("watching").add_argument(
        "--tensorboard",
        action="store_true",
        help="write the measurements as events for TensorBoard too, beside metrics.parquet (a "
        "resumed run that has some goes on with them)",
    )


def files(folder: Path) -> list[Path]:
    """The event files of a run."""
    return sorted(folder.glob(f"{_NAME}*"))


@contextmanager
def writing(
    folder: Path | None,
    wanted: bool,
    config: RunConfig,
    columns: Mapping[str, Sequence[float]],
) -> Iterator[Callable[[Mapping[str, float]], None]]:
    """What adds a measurement to the run's events; it does nothing if there are to be none.

    There is one file at a time. That of a run that goes on is written anew, from what the run keeps
    of its measurements: so none is there twice, or is missing, whatever ended it.

    Args:
        folder: the run's; None if this process writes nothing.
        wanted: whether there are to be events even if there are none yet.
        config: the run's settings, which TensorBoard lists as hyper-parameters.
        columns: what has been measured until now.
    """
    old = [] if folder is None else files(folder)
    if folder is None or not (wanted or old):
        yield lambda row: None
        return
    writer = RecordWriter(str(folder.absolute() / f"{_NAME}{time.time_ns()}"))

    def write(**content: object) -> None:
        writer.write(_messages.Event(wall_time=time.time(), **content).SerializeToString())

    def add(row: Mapping[str, float]) -> None:
        step = int(row["step"])
        for name, value in row.items():
            if name != "step":
                write(step=step, summary=summary.scalar(name, value))
        if step == config.steps:
            write(summary=end)
        writer.flush()

    try:
        write(file_version="brain.Event:2")
        # A TensorBoard that is looking on forgets what it has of the old file.
        write(session_log=_messages.SessionLog(status=_messages.SessionLog.START))
        settings = as_record(config)
        experiment, start, end = summary.hparams(settings, dict.fromkeys(plots.METRICS))
        write(summary=experiment)
        write(summary=start)
        for values in zip(*columns.values(), strict=True):
            add(dict(zip(columns, values, strict=True)))
        for path in old:
            path.unlink()
        yield add
    finally:
        writer.close()

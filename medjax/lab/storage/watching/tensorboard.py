"""Measurements as TensorBoard reads them: an event file for each run."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tensorboardX import RecordWriter, summary
from tensorboardX.proto import event_pb2

from medjax.lab import plots
from medjax.lab.storage.watching.watched import Add, Row, Watched

_messages: Any = event_pb2  # its names come into being when it is imported
_NAME = "events.out.tfevents."  # TensorBoard looks for it


def files(folder: Path) -> list[Path]:
    """Return the event files of a run."""
    return sorted(folder.glob(f"{_NAME}*"))


@contextmanager
def watch(run: Watched) -> Iterator[Add]:
    """Write a run's events to a new file, in the place of the one that there may be.

    That of a resumed run is so written anew, from what the run keeps of its measurements: none is
    there twice, or is missing, whatever ended it.
    """
    old = files(run.folder)
    writer = RecordWriter(str(run.folder / f"{_NAME}{time.time_ns()}"))

    def write(**content: object) -> None:
        writer.write(_messages.Event(wall_time=time.time(), **content).SerializeToString())

    def add(row: Row) -> None:
        step = int(row["step"])
        for name, value in row.items():
            if name != "step":
                write(step=step, summary=summary.scalar(name, value))
        if step == run.settings["steps"]:
            write(summary=end)
        writer.flush()

    try:
        write(file_version="brain.Event:2")
        # A TensorBoard that is looking on forgets what it has of the old file.
        write(session_log=_messages.SessionLog(status=_messages.SessionLog.START))
        metrics = dict.fromkeys(plots.METRICS)
        experiment, start, end = summary.hparams(dict(run.hyperparameters), metrics)
        write(summary=experiment)
        write(summary=start)
        writer.flush()
        for path in old:
            path.unlink()
        yield add
    finally:
        writer.close()

"""Faults injected into commands, which run in processes forked with everything imported.

A fault comes before one of the changes that the command makes to the files of a folder: the first,
the second, ... An audit hook sees every change by Python. A kill can also come at a given time.
"""

import errno
import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import jax

KILL, FULL, READ_ONLY = "kill", "full", "read-only"
FILLER = "filler"
_TIMEOUT = 600  # seconds, for a command that hangs
_IMPORTED = (
    *("medjax.lab.commands.run", "medjax.lab.commands.sweep", "experiments.paper.__main__"),
    *("benchmarks.faults", "orbax.checkpoint", "matplotlib.backends.backend_agg"),
)
_CHANGES = ("os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir", "os.truncate")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Fault(NamedTuple):
    """A fault.

    Attributes:
        kind: KILL, or FULL or READ_ONLY: the state of the disk from then on.
        change: the change of a file in the room that it precedes, from 0.
        seconds: in place of `change`, the time of a kill after the start.
    """

    kind: str
    change: int | None = None
    seconds: float | None = None


class Ending(NamedTuple):
    """The end of a command.

    Attributes:
        code: the exit code; negative where a signal ended it.
        errors: its stderr.
        changes: the number of changes that it made to the files of the room.
        seconds: its duration.
    """

    code: int | None
    errors: str
    changes: int
    seconds: float


def run_command(
    module: str, arguments: Sequence[str], room: Path, fault: Fault | None = None
) -> Ending:
    """Run a command in a process of its own.

    Args:
        module: the module whose `main` is called.
        arguments: its arguments.
        room: the folder in which changes of files count.
        fault: the fault, if any.
    """
    return begin_command(module, arguments, room, fault)()


def begin_command(
    module: str, arguments: Sequence[str], room: Path, fault: Fault | None = None
) -> Callable[[], Ending]:
    """Begin what `run_command` runs, and return a function that waits for its end."""
    context = _forkserver()
    read, write = context.Pipe(duplex=False)
    changes = context.RawValue("i", 0)
    begin = time.monotonic()
    inputs = (module, list(arguments), str(room), fault, changes, write)
    process: Any = context.Process(target=_command, args=inputs)
    process.start()
    write.close()
    seconds = _TIMEOUT if fault is None or fault.seconds is None else fault.seconds

    def end() -> Ending:
        process.join(begin + seconds - time.monotonic())
        process.kill()  # if it hasn't ended
        process.join()
        with read, open(read.fileno(), "rb", closefd=False) as file:
            errors = file.read().decode()
        return Ending(process.exitcode, errors, changes.value, time.monotonic() - begin)

    return end


@cache
def _forkserver() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*_IMPORTED])
    return context


def _command(
    module: str,
    arguments: list[str],
    room: str,
    fault: Fault | None,
    changes: Any,
    errors: Connection,
) -> None:
    os.dup2(errors.fileno(), 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    # Keep all compiled programs, where the environment names a folder for them.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    _watch(room, changes, fault)
    sys.exit(import_module(module).main(arguments))


def _watch(room: str, changes: Any, fault: Fault | None) -> None:
    """Count the changes in the room, and inject the fault before its change."""
    injecting = False

    def see(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal injecting
        writes = event in _CHANGES or (event == "open" and (arguments[2] or 0) & _WRITING)
        if injecting or not writes or not str(arguments[0]).startswith(room):
            return
        number, changes.value = changes.value, changes.value + 1
        if fault is None or fault.change is None or number < fault.change:
            return
        if fault.kind == READ_ONLY:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        if number == fault.change:
            injecting = True
            _INJECT[fault.kind](room)
            injecting = False

    sys.addaudithook(see)


def _kill(room: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _fill(room: str) -> None:
    """Take all space if the room is mounted; otherwise let no file grow any more."""
    if not os.path.ismount(room):
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, most))
        return
    with open(os.path.join(room, FILLER), "wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(1 << 16)):
            pass


_INJECT: dict[str, Callable[[str], None]] = {KILL: _kill, FULL: _fill}

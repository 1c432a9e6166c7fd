"""Run several processes as one, by JAX's own runtime: start, agree, and end together.

With one process alone, nothing here does anything.
"""

import argparse
import io
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar, cast

import jax
import numpy as np
from jax.experimental import multihost_utils

from medjax.lab.data.npz import read_npz
from medjax.lab.settings import cli

T = TypeVar("T")

_FAILED = 1
_EXPLICIT = ("coordinator", "processes", "process")


def add_processes(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the processes.

    Args:
        parser: the command's.
    """
    group = parser.add_argument_group("processes")
    group.add_argument(
        "--distributed",
        action="store_true",
        help="be one of several processes that are one run, each started by the same command: "
        "found by JAX under Slurm, MPI, Kubernetes and on TPU pods, else named by the next three",
    )
    group.add_argument(
        "--coordinator", metavar="HOST:PORT", type=address, help="where process 0 listens"
    )
    group.add_argument("--processes", metavar="N", type=cli.integer(1), help="how many there are")
    group.add_argument(
        "--process", metavar="I", type=cli.integer(0), help="which this is, from 0 to N - 1"
    )
    group.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=cli.integer(1),
        default=50,
        help="how long to wait for the others, at the start and when one falls silent (default: "
        "50)",
    )


def start(arguments: argparse.Namespace) -> None:
    """Join the other processes if the flags ask for it; to be called before JAX is used.

    If not all come in time, the process ends with one line.

    Args:
        arguments: the command's.

    Raises:
        ValueError: if the flags don't fit each other, or don't say who the others are and JAX
            can't find them.
    """
    given = {name: getattr(arguments, name) for name in _EXPLICIT}
    named = [name for name, value in given.items() if value is not None]
    if not arguments.distributed:
        if named:
            raise ValueError(f"--{named[0]} goes with --distributed")
        return
    if 0 < len(named) < len(given):
        missing = " and ".join(f"--{name}" for name in _EXPLICIT if name not in named)
        raise ValueError(f"--{named[0]} needs {missing} beside it")
    if named and arguments.process >= arguments.processes:
        raise ValueError(
            f"--process {arguments.process} isn't one of --processes {arguments.processes}: valid: "
            f"0 to {arguments.processes - 1}"
        )
    timeout = arguments.timeout
    where = f" at {arguments.coordinator}" if named else ""

    message = f"not all processes came together{where} within {timeout} s"
    # JAX would wait as long, but then abort the process with a stack trace.
    watchdog = threading.Timer(timeout, _end, (message,))
    watchdog.daemon = True
    watchdog.start()
    try:
        jax.distributed.initialize(
            arguments.coordinator,
            arguments.processes,
            arguments.process,
            initialization_timeout=2 * timeout,
            heartbeat_timeout_seconds=timeout,
            shutdown_timeout_seconds=timeout,
            cluster_detection_method="deactivate" if named else None,
        )
    except ValueError:
        raise ValueError(
            "--distributed: JAX finds no cluster that this process is part of; name --coordinator, "
            "--processes and --process"
        ) from None
    except (RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"--distributed: the processes can't come together: {reason}") from None
    finally:
        watchdog.cancel()


def is_first() -> bool:
    """Tell whether this is the process that writes."""
    return jax.process_index() == 0


def all_ready(prepare: Callable[[], T]) -> T:
    """Prepare something in all processes, which all call this.

    Args:
        prepare: prepares it.

    Returns:
        The result of this process, once all have one.

    Raises:
        ValueError: if `prepare` raises a ValueError, OSError or ImportError in any process.
    """
    result, problem = None, ""
    try:
        result = prepare()
    except (ValueError, OSError, ImportError) as error:
        if not jax.distributed.is_initialized():
            raise
        problem = str(error) or type(error).__name__
    for index, other in enumerate(_gathered(problem)):
        if other:
            raise ValueError(problem or f"process {index}: {other}")
    return cast(T, result)


def check_same(settings: Mapping[str, Any]) -> None:
    """Check that all processes, which all call this, have the same settings.

    Args:
        settings: those of this process, by name.

    Raises:
        ValueError: if one differs, which is named with its values.
    """
    texts = {name: json.dumps(value, sort_keys=True) for name, value in settings.items()}
    first, *others = (json.loads(text) for text in _gathered(json.dumps(texts)))
    for index, other in enumerate(others, start=1):
        for name in sorted(first.keys() | other.keys()):
            if first.get(name) != other.get(name):
                raise ValueError(
                    f"the processes disagree: {name} is {first.get(name)} in process 0, "
                    f"{other.get(name)} in process {index}"
                )


def agreed(seconds: float, requested: bool) -> tuple[float, bool]:
    """Agree on the longest time, and on stopping if any process has been asked to.

    Args:
        seconds: the time that this process took.
        requested: whether this process has been asked to stop.

    Returns:
        The same two, of all processes, which all call this.
    """
    if not jax.distributed.is_initialized():
        return seconds, requested
    every = np.asarray(multihost_utils.process_allgather(np.array([seconds, requested])))
    return float(every[:, 0].max()), bool(every[:, 1].any())


def whole(x: jax.Array) -> np.ndarray:
    """Gather an array of which each process has a part; all call this."""
    return np.asarray(
        x if x.is_fully_addressable else multihost_utils.process_allgather(x, tiled=True)
    )


def from_first(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Send arrays to all processes, which all call this.

    Args:
        arrays: the arrays by name; those of the first process count.

    Returns:
        The first process's arrays.
    """
    if not jax.distributed.is_initialized():
        return dict(arrays)
    file = io.BytesIO()
    if is_first():
        np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
    length = int(multihost_utils.broadcast_one_to_all(np.int32(file.tell())))
    sent = np.frombuffer(file.getvalue(), np.uint8) if is_first() else np.zeros(length, np.uint8)
    got = np.asarray(multihost_utils.broadcast_one_to_all(sent)).tobytes()
    return read_npz(io.BytesIO(got))


@contextmanager
def together() -> Iterator[None]:
    """Compute together in this block: if a process is lost, the others end too."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not jax.distributed.is_initialized():
            raise
        reason = " ".join(str(error).split())
        fail(f"process {jax.process_index()} has lost another: {reason[:200]}")


def fail(message: str) -> int:
    """Print a failure in one line.

    One of several processes ends at once, so that the others notice and end too.

    Args:
        message: the failure.

    Returns:
        1, the command's exit code.
    """
    if jax.distributed.is_initialized():
        _end(message)
    print(f"error: {message}", file=sys.stderr)
    return _FAILED


def _end(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr, flush=True)
    os._exit(_FAILED)


def _gathered(text: str) -> list[str]:
    """Gather a text of each process, in their order."""
    if not jax.distributed.is_initialized():
        return [text]
    # Arrays have to be equally long.
    data = np.frombuffer(text.encode(), np.uint8)
    lengths = np.asarray(multihost_utils.process_allgather(np.array([len(data)]))).ravel()
    padded = np.zeros(max(1, lengths.max()), np.uint8)
    padded[: len(data)] = data
    every = np.asarray(multihost_utils.process_allgather(padded))
    return [bytes(row[:n]).decode() for row, n in zip(every, lengths, strict=True)]


def address(text: str) -> str:
    """Parse a host and a port, for argparse."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise argparse.ArgumentTypeError(f"{text!r} is not a host and a port, as in 10.0.0.1:1234")
    return text

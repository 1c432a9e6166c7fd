"""Capture of what libraries write past `sys.stdout` and `sys.stderr`."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO


@contextmanager
def into(file: IO[str]) -> Iterator[None]:
    """Redirect all that the process writes to stdout and stderr into a file."""
    _flush()
    saved = {number: os.dup(number) for number in (1, 2)}
    for number in saved:
        os.dup2(file.fileno(), number)
    try:
        yield
    finally:
        _flush()
        for number, copy in saved.items():
            os.dup2(copy, number)
            os.close(copy)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    ctypes.CDLL(None).fflush(None)  # what C still holds

"""Mistakes as data: command lines, the files that they name, and calls of the library."""

import itertools
from collections.abc import Iterator

from benchmarks.cases import (
    algorithms,
    calls,
    commands,
    factories,
    files,
    folders,
    pictures,
    settings,
)
from benchmarks.cases._case import Call as Call
from benchmarks.cases._case import Case as Case
from benchmarks.cases._case import Command as Command

_TABLES = (commands, settings, algorithms, folders, files, pictures, calls, factories)


def every() -> Iterator[Case]:
    """Yield all mistakes."""
    return itertools.chain.from_iterable(table.cases() for table in _TABLES)

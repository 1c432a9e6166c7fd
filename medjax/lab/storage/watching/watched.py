"""The kind of function that a watcher is: from a run to a function that adds a measurement."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, TypeAlias

from medjax.lab.settings.config import Settings, as_record

Setting: TypeAlias = bool | int | float | str
Row: TypeAlias = Mapping[str, float]
Add: TypeAlias = Callable[[Row], None]


class Watched(NamedTuple):
    """A run, as a watcher is told of it.

    Attributes:
        folder: an existing folder for the watcher's files.
        name: the run's.
        settings: those that apply to the run.
        hyperparameters: those of them by which the run is listed.
        option: what follows the watcher's flag on the command line.
        sweep: the name of the sweep that the run belongs to, if it does.
    """

    folder: Path
    name: str
    settings: Mapping[str, Setting]
    hyperparameters: Mapping[str, Setting]
    option: str = ""
    sweep: str | None = None


Watcher: TypeAlias = Callable[[Watched], AbstractContextManager[Add]]
"""Gives what adds a measurement, `step` among its columns, until its block ends."""


class WatcherError(ValueError):
    """Raised by a watcher that can't begin, in one line."""


def plain(config: Settings) -> dict[str, Setting]:
    """Return the settings that apply to a run, as numbers and words."""
    return {name: value for name, value in as_record(config).items() if value is not None}

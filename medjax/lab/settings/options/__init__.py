"""The command line's flags for the settings of a run; a sweep takes several values for each."""

import argparse
import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from medjax.lab.settings import cli
from medjax.lab.settings.options.algorithm import add_algorithm
from medjax.lab.settings.options.data import add_data
from medjax.lab.settings.options.protocol import add_protocol
from medjax.lab.settings.options.training import add_training
from medjax.lab.settings.options.words import ADAPTIVE as ADAPTIVE
from medjax.lab.settings.options.words import AUTO as AUTO
from medjax.lab.settings.options.words import CONSTANT as CONSTANT
from medjax.lab.settings.options.words import THEORY as THEORY
from medjax.lab.settings.options.words import UNDAMPED as UNDAMPED
from medjax.lab.settings.options.words import read_schedule as read_schedule


def add_options(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """The settings of a run, in groups.

    Args:
        parser: what to add them to.
        several: whether each takes several values, and none has a default.
    """

    def group(title: str) -> Callable[..., Any]:
        added = parser.add_argument_group(title)

        def add(flag: str, **settings: Any) -> None:
            if several:
                settings |= {"nargs": "+", "action": cli.Once, "default": None}
            added.add_argument(flag, **settings)

        return add

    add_algorithm(group("algorithm"))
    add_protocol(group("protocol: what crosses the wire, and who lies"))
    add_data(group("workers and data"))
    add_training(group("training"))


@functools.cache  # a grid asks for each of its runs
def defaults() -> MappingProxyType[str, Any]:
    """What the settings are where none is given."""
    parser = cli.Parser("", "")
    add_options(parser)
    return MappingProxyType(vars(parser.parse_args([])))


def as_flags(settings: Mapping[str, Any]) -> list[str]:
    """Resolved settings as a command line, so that what a file says is checked as what users say.

    The folder of the results isn't among them.
    """
    # Each in one word, as a value that begins with a dash would be a flag of its own.
    return [
        f"--{name.replace('_', '-')}={value}"
        for name, value in settings.items()
        if value is not None and name != "out"
    ]


def add_out(parser: argparse.ArgumentParser) -> None:
    """Where the results go."""
    parser.add_argument_group("output").add_argument(
        "--out",
        metavar="DIR",
        type=cli.folder,
        help="a new folder for the results (default: one under runs/, named after the settings)",
    )

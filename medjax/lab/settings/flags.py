"""The settings as flags of a command; a sweep takes several values for each."""

import argparse
from collections.abc import Mapping
from typing import Any

from medjax.lab.settings import cli
from medjax.lab.settings.config import GROUPS, SETTINGS
from medjax.lab.settings.field import flag, plain, specs


def add_settings(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """Add the settings of a run, in groups.

    Args:
        parser: the command's.
        several: whether each takes several values.
    """
    more: dict[str, Any] = {"nargs": "+", "action": cli.Once} if several else {}
    for title, group in GROUPS.items():
        added = parser.add_argument_group(title)
        for name, spec in specs(group).items():
            text = spec.full_help().replace("%", "%%")
            added.add_argument(flag(name), metavar=spec.metavar, type=spec.parse, help=text, **more)


def given(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the settings among a command's arguments; None where one isn't given."""
    return {name: getattr(arguments, name) for name in SETTINGS}


def as_flags(settings: Mapping[str, Any]) -> list[str]:
    """Return settings as words of a command line."""
    # Each in one word, as a value that begins with a dash would be a flag of its own.
    return [f"{flag(k)}={plain(v)}" for k, v in settings.items() if v is not None]


def add_out(parser: argparse.ArgumentParser) -> None:
    """Add the flag for the folder of the results."""
    parser.add_argument_group("output").add_argument(
        "--out",
        metavar="DIR",
        type=cli.folder,
        help="a new folder for the results (default: one under runs/, named after the settings)",
    )

"""From several values for each setting to the runs of a grid."""

import argparse
import difflib
import itertools
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from experiments import cli
from experiments.config import RunConfig, resolve
from experiments.options import add_options, defaults

_MOST_WITHOUT_YES = 10_000
_SETTINGS = tuple(field.name for field in fields(RunConfig) if field.name != "out")
# Settings aren't to be chosen by the test data.
_VALIDATION = 0.1


def add_grid_options(parser: argparse.ArgumentParser) -> None:
    """Every setting of a run, with several values, and what only grids have."""
    add_options(parser, several=True)
    group = parser.add_argument_group("grid")
    group.add_argument(
        "--seeds", metavar="K", type=cli.integer(1), help="as many seeds: 0, ..., K-1"
    )
    group.add_argument(
        "--grid",
        metavar="FILE",
        type=Path,
        help="settings in TOML, one or several values each, such as b = [0, 0.01] or seeds = 5",
    )
    group.add_argument(
        "--yes",
        action="store_true",
        help=f"run the grid though it has more than {_MOST_WITHOUT_YES:,} runs",
    )


def read_axes(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None
) -> tuple[argparse.Namespace, dict[str, list[Any]]]:
    """The command line, and the values of each setting that it or its file names.

    Raises:
        ValueError: if the file can't be read, or names what isn't a setting.
    """
    arguments = parser.parse_args(argv)
    if arguments.grid is not None:
        on_the_line = {name for name, value in vars(arguments).items() if value is not None}
        for name, words in _read_toml(arguments.grid).items():
            if name in on_the_line:
                raise ValueError(f"{_flag(name)} is both on the command line and in the grid file")
            # As if on the command line: the same checks, the same errors.
            parser.parse_args([_flag(name), *words], arguments)
    if arguments.seeds is not None:
        if arguments.seed is not None:
            raise ValueError("--seed and --seeds both name the seeds: give one of them")
        arguments.seed = list(range(arguments.seeds))
    given = {name: getattr(arguments, name) for name in _SETTINGS}
    return arguments, {name: values for name, values in given.items() if values is not None}


def expand(axes: Mapping[str, Sequence[Any]], *, yes: bool = False) -> list[RunConfig]:
    """All combinations of the values.

    A setting that doesn't apply to a combination is left out of it (b, of one whose rule isn't
    noisy), and of combinations that thereby become equal one is kept.

    Args:
        axes: the values of each setting that is given.
        yes: whether so many runs are meant.

    Raises:
        ValueError: if a setting applies to no combination, or if there are too many.
    """
    axes = {"validation": [_VALIDATION]} | dict(axes)
    count = math.prod(len(values) for values in axes.values())
    if count > _MOST_WITHOUT_YES and not yes:
        raise ValueError(
            f"the grid has up to {count:,} runs: add --yes if you mean it (more than "
            f"{_MOST_WITHOUT_YES:,})"
        )
    usual = defaults()
    combinations = [
        argparse.Namespace(**usual | dict(zip(axes, values, strict=True)))
        for values in itertools.product(*axes.values())
    ]
    runs = dict.fromkeys(resolve(combination, drop=True) for combination in combinations)
    for name in axes:
        if all(getattr(run, name) is None for run in runs):
            resolve(combinations[0])  # says what the setting goes with
    return list(runs)


def varied(runs: Sequence[RunConfig]) -> list[str]:
    """The settings in which the runs differ."""
    return [name for name in _SETTINGS if len({getattr(run, name) for run in runs}) > 1]


def _read_toml(path: Path) -> dict[str, list[str]]:
    shown = repr(str(path))
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"grid file {shown}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"grid file {shown} isn't TOML: {error}") from None
    words = {}
    for key, value in content.items():
        name = key.replace("-", "_")
        valid = (*_SETTINGS, "seeds")
        if name not in valid:
            nearest = difflib.get_close_matches(name, valid, n=1)
            hint = f"did you mean {nearest[0]!r}? " if nearest else ""
            raise ValueError(
                f"grid file {shown}: unknown setting {key!r}: {hint}valid: {', '.join(valid)}"
            )
        values = value if isinstance(value, list) else [value]
        if not values or not all(type(v) in (int, float, str) for v in values):
            raise ValueError(
                f"grid file {shown}: {key} = {value!r}; valid: a number, a name, or a list of them"
            )
        words[name] = [str(v) for v in values]
    return words


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")

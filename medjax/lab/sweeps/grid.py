"""The runs of a grid, from several values for each setting."""

import argparse
import difflib
import itertools
import math
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medjax.lab.data.files import existing_file
from medjax.lab.settings import cli
from medjax.lab.settings.config import SETTINGS, Settings, parsed, resolve
from medjax.lab.settings.field import flag
from medjax.lab.settings.flags import add_settings, given

_MOST_WITHOUT_YES = 10_000
_MOST_BYTES = 2**14  # of a grid file: nested tables take time and memory as its square
_SETTINGS = tuple(SETTINGS)
_VALIDATION = 0.1  # of the training data, to choose settings by: never by the test data


def add_grid_options(parser: argparse.ArgumentParser) -> None:
    """Add every setting of a run, with several values, and the flags that only grids have."""
    add_settings(parser, several=True)
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
) -> tuple[argparse.Namespace, dict[str, Sequence[Any]]]:
    """Read the command line, and the grid file that it may name.

    Returns:
        The parsed flags, and the values of each setting that is given.

    Raises:
        ValueError: if the file can't be read, or names an unknown setting.
    """
    arguments = parser.parse_args(argv)
    if arguments.grid is not None:
        on_the_line = {name for name, value in vars(arguments).items() if value is not None}
        for name, words in _read_toml(arguments.grid).items():
            if name in on_the_line:
                raise ValueError(f"{flag(name)} is both on the command line and in the grid file")
            # Parsed like the command line, for the same checks and errors.
            parser.parse_args([flag(name), *words], arguments)
    if arguments.seeds is not None:
        if arguments.seed is not None:
            raise ValueError("--seed and --seeds both name the seeds: give one of them")
        arguments.seed = range(arguments.seeds)  # no list: there may be far too many
    values = given(arguments)
    return arguments, {name: several for name, several in values.items() if several is not None}


def expand(axes: Mapping[str, Sequence[Any]], *, yes: bool = False) -> list[Settings]:
    """List the runs: all combinations of the values.

    A setting that doesn't apply to a combination is left out of it (b, if the rule isn't noisy),
    and of combinations that thereby become equal one is kept.

    Args:
        axes: the values of each setting that is given, as text too.
        yes: whether more than 10,000 runs are meant.

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
    axes = {name: [parsed(name, value) for value in axes[name]] for name in axes}
    combinations = [
        dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())
    ]
    runs = dict.fromkeys(resolve(combination, drop=True) for combination in combinations)
    for name in axes:
        if all(getattr(run, name) is None for run in runs):
            resolve(combinations[0])  # says what the setting goes with
    return list(runs)


def varied(runs: Sequence[Settings]) -> list[str]:
    """List the settings in which the runs differ."""
    return [name for name in _SETTINGS if len({getattr(run, name) for run in runs}) > 1]


def _read_toml(path: Path) -> dict[str, list[str]]:
    try:
        path, shown = existing_file(path, "settings in TOML")
        with open(path, "rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        raise ValueError(f"grid file {error}") from None
    if len(data) > _MOST_BYTES:
        raise ValueError(f"grid file {shown} has more than {_MOST_BYTES} bytes")
    try:
        content = tomllib.loads(data.decode("utf-8-sig"))
        written = {key: repr(value) for key, value in content.items()}
    # Other than tomllib's own: numbers of too many digits, lists too deep.
    except (ValueError, RecursionError) as error:
        raise ValueError(f"grid file {shown} isn't TOML: {error}") from None
    words = {}
    for key, value in content.items():
        name = key.replace("-", "_")
        valid = (*_SETTINGS, "seeds")
        if name not in valid:
            nearest = difflib.get_close_matches(name, valid, n=1)
            hint = f"did you mean {nearest[0]!r}? " if nearest else ""
            raise ValueError(
                f"grid file {shown}: unknown setting {key!r:.99}: {hint}valid: {', '.join(valid)}"
            )
        if name in words:
            raise ValueError(f"grid file {shown}: {name} is there twice, once as {key!r}")
        if name == "seeds" and isinstance(value, list):
            raise ValueError(
                f"grid file {shown}: seeds is how many there are; a list of them is `seed`"
            )
        values = value if isinstance(value, list) else [value]
        # Some that begin with a dash would be flags.
        if not values or not all(
            type(v) in (int, float) or (type(v) is str and not v.startswith("-")) for v in values
        ):
            raise ValueError(
                f"grid file {shown}: {key} = {written[key]:.99}; valid: a number, a name, or a "
                "list of them"
            )
        words[name] = [str(v) for v in values]
    return words

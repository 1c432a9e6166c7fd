"""`python -m experiments.paper NAME`: regenerate a figure of the paper, with the data behind it."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from experiments import cli, results
from experiments.paper import fig1

FIGURES: Mapping[str, Callable[[Console, Path | None], None]] = {"fig1": fig1.run}
"""What makes each figure, given where to print and an output folder (None: a new one)."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code. A mistake in the settings exits with 2."""
    parser = cli.Parser(
        "python -m experiments.paper",
        "Regenerate a figure of Chen et al. (2020): the picture, the data behind it, and a table\n"
        "of what it shows.",
    )
    parser.add_argument(
        "name",
        metavar="NAME",
        type=cli.one_of("figure", FIGURES),
        help="fig1: the toy problem on which signSGD and medianSGD stall",
    )
    parser.add_argument("--out", metavar="DIR", help="a new folder (default: one under runs/)")
    arguments = parser.parse_args(argv)
    out = Path(arguments.out) if arguments.out else None
    try:
        results.check_folder(out)
        FIGURES[arguments.name](Console(highlight=False, markup=False), out)
    except ValueError as error:
        parser.error(str(error))
    except OSError as error:
        print(f"error: {out or results.DEFAULT_PARENT}: {error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The command `medjax report` in a checkout: `python -m experiments.report`."""

import sys
from collections.abc import Sequence

from medjax.lab import console


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out the command; return its exit code."""
    return console.main(["report", *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    sys.exit(main())

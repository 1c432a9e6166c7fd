"""One parser of `benchmarks.fuzz`, in a process of its own: libFuzzer ends it when it is done.

`python -m benchmarks._fuzz_one NAME FOLDER ARGUMENT...`, the last ones libFuzzer's.
"""

import sys
from pathlib import Path

import atheris  # pyright: ignore[reportMissingImports]

instrument = atheris.instrument_imports  # pyright: ignore[reportAttributeAccessIssue]

with instrument(include=["medjax.lab", "tomllib", "json", "gzip", "argparse"]):
    from benchmarks.parsers import PARSERS


def main(name: str, folder: str, *arguments: str) -> None:
    """Fuzz, and end the process."""
    parser, place = PARSERS[name], Path(folder)

    def one(data: bytes) -> None:
        parser.survives(data, place)

    atheris.Setup([sys.argv[0], *arguments], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])

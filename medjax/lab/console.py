"""The console command `medjax`.

The wheel has this file beside the package, so that `medjax --help` needn't wait for JAX.
"""

import difflib
import importlib
import io
import os
import sys
from collections.abc import Sequence
from importlib import metadata

COMMANDS = {
    "run": "train one model by one algorithm",
    "sweep": "train with every combination of settings",
    "compare": "draw several runs in one picture",
    "report": "make a page of runs and sweeps for the browser",
    "list": "list every rule, attack, model ... with its settings and source",
    "reproduce": "run again what is in a folder, and compare",
}
"""The subcommands, each with what it does."""

_HELP = """\
usage: medjax COMMAND ...

Simulate distributed training with heterogeneous data.

commands:
{commands}

medjax COMMAND --help has the settings of each. For example:
  medjax run --workers 100 --rule noisy_sign
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out a subcommand; return its exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Greek letters where the locale has none, as in a pipe on Windows: ? in the place of δ.
        sys.stdout.reconfigure(errors="replace")
    try:
        code = _main(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as head, has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the last flush
        return 1
    return code


def _main(argv: Sequence[str]) -> int:
    name, *rest = argv or ["--help"]
    if name in ("-h", "--help"):
        print(_HELP.format(commands="\n".join(f"  {k:<11}{v}" for k, v in COMMANDS.items())))
        return 0
    if name == "--version":
        print(f"medjax {metadata.version('medjax')}")
        return 0
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        names = ", ".join(COMMANDS)
        print(f"error: unknown command {name!r}: {hint}valid: {names}", file=sys.stderr)
        return 2
    try:
        command = importlib.import_module(f"medjax.lab.commands.{name}")
    except ModuleNotFoundError as err:  # medjax is installed without the extra
        if err.name is None or err.name.partition(".")[0] == "medjax":
            raise
        needed = f"medjax {name} needs {err.name}"
        print(f'error: {needed}: pip install "medjax[lab]"', file=sys.stderr)
        return 2
    return command.main(rest)

"""The console command `medjax`.

The wheel has this file beside the package, so that `medjax --help` needn't wait for JAX.
"""

import importlib
import sys
from collections.abc import Sequence

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
    name, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help"):
        print(_HELP.format(commands="\n".join(f"  {k:<11}{v}" for k, v in COMMANDS.items())))
        return 0
    if name == "--version":
        from importlib.metadata import version

        print(f"medjax {version('medjax')}")
        return 0
    if name not in COMMANDS:
        from difflib import get_close_matches

        near = get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        names = ", ".join(COMMANDS)
        print(f"error: unknown command {name!r}: {hint}valid: {names}", file=sys.stderr)
        return 2
    return importlib.import_module(f"medjax.lab.commands.{name}").main(rest)

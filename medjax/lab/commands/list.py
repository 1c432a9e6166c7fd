"""Every name that the command line takes, and what it stands for: `medjax list`.

All of it is read from the factories themselves: their docstrings and signatures.
"""

import argparse
import inspect
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from rich.console import Console
from rich.table import Table
from rich.text import Text

from medjax.attacks import ATTACKS
from medjax.compressors import COMPRESSORS
from medjax.lab import plots
from medjax.lab.data import SOURCES
from medjax.lab.models.catalogue import MODELS
from medjax.lab.settings import algorithms, cli, named
from medjax.lab.settings.conditions import CONDITIONAL
from medjax.mixing import MIXINGS
from medjax.noise import NOISES
from medjax.partition import PARTITIONS
from medjax.rules import StatefulRule
from medjax.servers import SERVERS


@dataclass(frozen=True)
class Kind:
    """A kind of names.

    Attributes:
        word: what one of them is called in `named.KNOWN`, if settings may follow its name.
        flag: where it is written.
        table: the names with their factories.
        note: what holds of all.
    """

    word: str
    flag: str
    table: Mapping[str, Callable[..., Any]]
    note: str = ""

    def names(self) -> list[str]:
        """Those with a row of their own: a noisy rule is the same as that without noise."""
        return [name for name in self.table if not algorithms.is_noisy(name)]


_NOISE = "b·ξ is added to every local gradient first"

KINDS: Mapping[str, Kind] = {
    "rules": Kind("rule", "--rule", algorithms.RULE_TABLE, f"each also as noisy_NAME: {_NOISE}"),
    "mixings": Kind("mixing", "--mix", MIXINGS, "several are joined by +"),
    "attacks": Kind("attack", "--attack", ATTACKS, "several are joined by +"),
    "compressors": Kind("compressor", "--compress", COMPRESSORS),
    "servers": Kind("server", "--server", SERVERS),
    "partitions": Kind("partition", "--partition", PARTITIONS),
    "noises": Kind("noise", "--noise", NOISES),
    "models": Kind("model", "--model", MODELS),
    "datasets": Kind("dataset", "--dataset", SOURCES),
}
"""Every kind by what `--kind` takes."""

HEADINGS = ("name", "family", "what it is", "settings", "needs", "source")

_OPPOSITE = {"<": "≥", "<=": ">", ">": "≤", ">=": "<"}
_TERM = r"⌈[^⌉]*⌉|\w+(?: \+ \d+)?"
_COMPARISON = re.compile(rf"({_TERM}) (<=?|>=?) ({_TERM})")
_AUTHOR = r"(?:El )?[A-Z][\w-]+"
_CITATION = re.compile(
    rf"({_AUTHOR}(?:, {_AUTHOR})*(?: (?:and|&) {_AUTHOR}| et al\.)?),? \(?((?:19|20)\d\d)\b"
)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code. A mistake exits with 2."""
    parser = cli.Parser(
        "medjax list",
        "Every name that the command line takes. Settings of its own follow a name after a colon, "
        "as in\n--attack alie:tau=2; those with =VALUE must be given. Others are flags.",
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="all that is known of this one")
    parser.add_argument(
        "--kind",
        metavar="KIND",
        type=cli.one_of("kind", KINDS),
        help=f"only {', '.join(KINDS)} (default: all)",
    )
    arguments = parser.parse_args(argv)
    kinds = [KINDS[arguments.kind]] if arguments.kind else list(KINDS.values())
    # No terminal is wide enough for a line for each name, which is what one greps in.
    shape, width = (folded, None) if sys.stdout.isatty() else (table, 1000)
    console = Console(highlight=False, markup=False, width=width)
    if arguments.name is None:
        for kind in kinds:
            note = f" ({kind.note})" if kind.note else ""
            console.print(f"{kind.flag} NAME{note}", style="bold", soft_wrap=True)
            console.print(shape(kind), "")
        return 0
    try:
        cli.one_of("name", dict.fromkeys(name for kind in kinds for name in kind.table))(
            arguments.name
        )
    except argparse.ArgumentTypeError as error:
        parser.error(str(error))
    for kind in kinds:
        if arguments.name in kind.table:
            console.print(page(kind, arguments.name), soft_wrap=True)
    return 0


def table(kind: Kind) -> Table:
    """All names of a kind, without columns in which all are alike."""
    rows = [row(kind, name) for name in kind.names()]
    made = Table(box=None, pad_edge=False, header_style="bold")
    kept = [k for k in range(len(HEADINGS)) if len({r[k] for r in rows}) > 1]
    for k in kept:
        made.add_column(HEADINGS[k], no_wrap=k == 0)
    for cells in rows:
        made.add_row(*(cells[k] for k in kept))
    return made


def folded(kind: Kind) -> Table:
    """The same in two columns, the others under what it is."""
    made = Table.grid(padding=(0, 2))
    for name, made_by, what, *others in (row(kind, name) for name in kind.names()):
        details = "; ".join(filter(None, (made_by, *others)))
        made.add_row(name, Text(what).append(f"\n{details}" if details else "", style="dim"))
    return made


def row(kind: Kind, name: str) -> tuple[str, ...]:
    """What the headings say, of one name."""
    factory = kind.table[name]
    text = inspect.getdoc(factory) or ""
    return (
        name,
        family(factory),
        summary(text),
        ", ".join(settings(kind, name)),
        ", ".join(requirements(text)),
        "; ".join(sources(text)),
    )


def page(kind: Kind, name: str) -> str:
    """All that is known of one name: how it is written, and its docstring."""
    factory = kind.table[name]
    given = settings(kind, name)
    flags = [setting for setting in given if setting.startswith("--")]
    own = [setting for setting in given if setting not in flags]
    written = f"{kind.flag} {name}" + (f":{','.join(own)}" if own else "")
    noise = f"{_NOISE}.\n\n" if algorithms.is_noisy(name) else ""
    return f"{' '.join([written, *flags])}\n\n{noise}{inspect.getdoc(factory)}\n"


def summary(docstring: str) -> str:
    """The first sentence, without the source, and the formula that stands by itself."""
    first, *others = docstring.partition("Args:")[0].split("\n\n")
    formula = next((text for text in others if text.startswith("    ")), "")
    what = re.sub(r" \([^()]*\b(?:19|20)\d\d\b[^()]*\)", "", first)
    return " ".join(f"{what} {formula}".split())


def family(factory: Callable[..., Any]) -> str:
    """What the factory makes, by its return annotation; the first of several."""
    made = inspect.signature(factory).return_annotation
    made = next(iter(get_args(made)), made)
    return "stateful" if made is StatefulRule else getattr(made, "__name__", "")


def settings(kind: Kind, name: str) -> list[str]:
    """The settings with their defaults, as they are written."""
    factory = kind.table[name]
    own = named.settings_of(kind.word, factory) if kind.word in named.KNOWN else {}
    written = [
        f"{key}={'VALUE' if setting.default is setting.empty else _word(setting.default)}"
        for key, setting in own.items()
    ]
    flags = [key for key in named.parameters(factory) if key in CONDITIONAL and key not in own]
    usual = argparse.Namespace()
    return written + [
        f"--{key.replace('_', '-')} {_word(CONDITIONAL[key].default(usual))}" for key in flags
    ]


def requirements(docstring: str) -> list[str]:
    """What must hold of n and f, or of d, or else the docstring says that an error is raised."""
    raises = " ".join(docstring.partition("Raises:\n")[2].partition("\n\n")[0].split())
    return [
        f"{left} {_OPPOSITE[sign]} {right}"
        for left, sign, right in _COMPARISON.findall(raises)
        if {left, right} & {"n", "d"}
    ]


def sources(docstring: str) -> list[str]:
    """Who is cited, with the years."""
    found = _CITATION.findall(" ".join(docstring.split()))
    return list(dict.fromkeys(f"{authors}, {year}" for authors, year in found))


def _word(value: object) -> str:
    return "none" if value is None else plots.short(value)

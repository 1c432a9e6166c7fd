"""The command `medjax list`: every name that the command line takes, and what it stands for.

All of it is read from the factories themselves, their docstrings and signatures, and from the
declarations of the settings.
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

from medjax.algorithms import ALGORITHMS
from medjax.compressors import COMPRESSORS
from medjax.lab.data import SOURCES
from medjax.lab.models.augmentations import AUGMENTATIONS
from medjax.lab.models.catalogue import MODELS
from medjax.lab.settings import cli, parts, wording
from medjax.lab.settings.config import GROUPS, SETTINGS
from medjax.lab.settings.field import Spec, flag, specs
from medjax.lab.settings.protocol import ATTACK_TABLE
from medjax.lab.settings.rules import RULE_TABLE
from medjax.mixing import MIXINGS
from medjax.noise import NOISES
from medjax.partition import PARTITIONS
from medjax.rules import StatefulRule
from medjax.servers import SERVERS
from medjax.topologies import TOPOLOGIES


@dataclass(frozen=True)
class Kind:
    """A kind of names.

    Attributes:
        word: the kind in `parts.KNOWN`, if settings may follow its name.
        flag: the flag that takes it.
        table: the names with their factories.
        note: a remark that holds of all.
    """

    word: str
    flag: str
    table: Mapping[str, Callable[..., Any]]
    note: str = ""


_NOISE = "b·ξ is added to every local gradient first"
_NOISY = "noisy_"

KINDS: Mapping[str, Kind] = {
    "rules": Kind("rule", "--rule", RULE_TABLE, f"each also as {_NOISY}NAME: {_NOISE}"),
    "algorithms": Kind("algorithm", "--algorithm", ALGORITHMS, "more than gradients"),
    "topologies": Kind("topology", "--topology", TOPOLOGIES),
    "mixings": Kind("mixing", "--mix", MIXINGS, "several are joined by +"),
    "attacks": Kind("attack", "--attack", ATTACK_TABLE, "several are joined by +"),
    "compressors": Kind("compressor", "--compress", COMPRESSORS),
    "servers": Kind("server", "--server", SERVERS),
    "partitions": Kind("partition", "--partition", PARTITIONS),
    "noises": Kind("noise", "--noise", NOISES),
    "models": Kind("model", "--model", MODELS),
    "datasets": Kind("data set", "--dataset", SOURCES),
    "augmentations": Kind("augmentation", "--augment", AUGMENTATIONS),
}
"""Every kind of names by what `--kind` takes."""

_SETTINGS = "settings"
_FREE = ("compress",)  # shown with what takes it, though it goes with others too

HEADINGS = ("name", "family", "what it is", "settings", "needs", "source")

_OPPOSITE = {"<": "≥", "<=": ">", ">": "≤", ">=": "<"}
_TERM = r"⌈[^⌉]*⌉|\w+(?: \+ \d+)?"
_COMPARISON = re.compile(rf"({_TERM}) (<=?|>=?) ({_TERM})")
_AUTHOR = r"(?:El )?[A-Z][\w-]+"
_CITATION = re.compile(
    rf"({_AUTHOR}(?:, {_AUTHOR})*(?: (?:and|&) {_AUTHOR}| et al\.)?),? \(?((?:19|20)\d\d)[a-z]?\b"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out the command; return its exit code. A mistake exits with 2."""
    parser = cli.Parser(
        "medjax list",
        "Every name that the command line takes. Settings of its own follow a name after a colon, "
        "as in --attack alie:tau=2; those with =VALUE must be given. Others are flags.",
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="all that is known of this one")
    names = (*KINDS, _SETTINGS)
    parser.add_argument(
        "--kind",
        metavar="KIND",
        type=cli.one_of("kind", names),
        help=f"only {', '.join(names)} (default: all but the last)",
    )
    arguments = parser.parse_args(argv)
    # No terminal is wide enough for a line for each name, which is what one greps in.
    shape, width = (folded, None) if sys.stdout.isatty() else (table, 1000)
    console = Console(highlight=False, markup=False, width=width)
    if arguments.kind == _SETTINGS and arguments.name is None:
        Console(highlight=False, width=None if sys.stdout.isatty() else 100).print(all_settings())
        return 0
    if arguments.kind == _SETTINGS:
        parser.error(f"--kind {_SETTINGS} lists all of them: without {arguments.name!r}")
    kinds = [kind for name, kind in KINDS.items() if arguments.kind in (None, name)]
    if arguments.name is None:
        for kind in kinds:
            note = f" ({kind.note})" if kind.note else ""
            console.print(f"{kind.flag} NAME{note}", style="bold", soft_wrap=True)
            console.print(shape(kind), "")
        return 0
    name = arguments.name.removeprefix(_NOISY)
    if name != arguments.name:  # only rules have noise before them
        kinds = [kind for kind in kinds if kind.word == "rule"]
    try:
        cli.one_of("name", dict.fromkeys(name for kind in kinds for name in kind.table))(name)
    except argparse.ArgumentTypeError as error:
        parser.error(str(error))
    for kind in kinds:
        if name in kind.table:
            console.print(page(kind, arguments.name), soft_wrap=True)
    return 0


def all_settings() -> Table:
    """Return a table of the settings that runs and sweeps have, in their groups."""
    made = Table.grid(padding=(0, 2))
    for title, group in GROUPS.items():
        made.add_row(Text(title, style="bold"))
        for name, spec in specs(group).items():
            made.add_row(f"{flag(name)} {spec.metavar}", spec.full_help())
        made.add_row("")
    return made


def table(kind: Kind) -> Table:
    """Return all names of a kind, without columns in which all are alike, or the one is empty."""
    rows = [row(kind, name) for name in kind.table]
    made = Table(box=None, pad_edge=False, header_style="bold")
    told = rows if len(rows) > 1 else [*rows, ("",) * len(HEADINGS)]
    kept = [k for k in range(len(HEADINGS)) if len({r[k] for r in told}) > 1]
    for k in kept:
        made.add_column(HEADINGS[k], no_wrap=k == 0)
    for cells in rows:
        made.add_row(*(cells[k] for k in kept))
    return made


def folded(kind: Kind) -> Table:
    """Return the same in two columns, the others below the summary."""
    made = Table.grid(padding=(0, 2))
    rows = [row(kind, name) for name in kind.table]
    several = len({made_by for _, made_by, *_ in rows}) > 1
    for name, made_by, what, *others in rows:
        details = "; ".join(filter(None, (made_by if several else "", *others)))
        made.add_row(name, Text(what).append(f"\n{details}" if details else "", style="dim"))
    return made


def row(kind: Kind, name: str) -> tuple[str, ...]:
    """Return the cells of one name."""
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
    """Return all that is known of one name: how it is written, and its docstring."""
    factory = kind.table[name.removeprefix(_NOISY)]
    given = settings(kind, name.removeprefix(_NOISY))
    flags = [setting for setting in given if setting.startswith("--")]
    own = [setting for setting in given if setting not in flags]
    written = f"{kind.flag} {name}" + (f":{','.join(own)}" if own else "")
    noise = f"{_NOISE}.\n\n" if name.startswith(_NOISY) else ""
    return f"{' '.join([written, *flags])}\n\n{noise}{inspect.getdoc(factory)}\n"


def summary(docstring: str) -> str:
    """Return the first sentence, without the source, and the formula that stands by itself."""
    first, *others = docstring.partition("Args:")[0].split("\n\n")
    formula = next((text for text in others if text.startswith("    ")), "")
    what = re.sub(r" \([^()]*\b(?:19|20)\d\d\b[^()]*\)", "", first)
    return " ".join(f"{what} {formula}".split())


def family(factory: Callable[..., Any]) -> str:
    """Return the kind that the factory makes, by its return annotation; the first of several."""
    made = inspect.signature(factory).return_annotation
    made = next(iter(get_args(made)), made)
    return "stateful" if made is StatefulRule else getattr(made, "__name__", "")


def settings(kind: Kind, name: str) -> list[str]:
    """Return the settings with their defaults, as they are written."""
    factory = kind.table[name]
    own = parts.settings_of(kind.word, factory) if kind.word in parts.KNOWN else {}
    written = [
        f"{key}={'VALUE' if setting.default is setting.empty else _text(setting.default)}"
        for key, setting in own.items()
    ]
    names = [key for key in parts.parameters(factory) if key not in own]
    names = ["compress" if key == "compressor" else key for key in names]
    flags = [key for key in names if key in SETTINGS and (SETTINGS[key].applies or key in _FREE)]
    return written + [f"{flag(key)} {_word(SETTINGS[key])}" for key in flags]


def requirements(docstring: str) -> list[str]:
    """Return the conditions on n, f and d: the opposites of those that raise an error."""
    raises = " ".join(docstring.partition("Raises:\n")[2].partition("\n\n")[0].split())
    return [
        f"{left} {_OPPOSITE[sign]} {right}"
        for left, sign, right in _COMPARISON.findall(raises)
        if {left, right} & {"n", "d"}
    ]


def sources(docstring: str) -> list[str]:
    """Return the sources that are cited, with the years."""
    found = _CITATION.findall(" ".join(docstring.split()))
    return list(dict.fromkeys(f"{authors}, {year}" for authors, year in found))


def _word(spec: Spec) -> str:
    """Return a flag's default, or the word for its value if that depends on others."""
    return spec.metavar if callable(spec.default) or spec.default_text else _text(spec.default)


def _text(value: object) -> str:
    text = "none" if value is None else wording.short(value)
    return text.lower() if isinstance(value, bool) else text

"""What is chosen by name, with its settings: `alie:tau=1.5` is `ATTACKS["alie"](tau=1.5)`.

A setting is an argument of the factory in the table, and its value a number, a word, or none. What
the run knows (f, n, the rule under attack) isn't written there: `build` gives it to those factories
that ask for it.
"""

import argparse
import inspect
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, get_args, get_type_hints

from medjax.lab.settings import cli

Table = Mapping[str, Callable[..., Any]]

KNOWN: Mapping[str, frozenset[str]] = {
    "rule": frozenset({"num_byzantine", "num_workers", "weights", "zero", "tie", "start"}),
    "mixing": frozenset({"num_byzantine"}),
    "attack": frozenset({"num_classes", "rule"}),
    "compressor": frozenset(),
    "server": frozenset({"learning_rate", "momentum"}),
}
"""By kind, arguments of factories that a run gives, and that so aren't written after the name.

A vector to start from has no place on a command line.
"""


def one_of(kind: str, table: Table) -> Callable[[str], str]:
    """A type for argparse: a name in the table, perhaps with settings that its factory takes."""

    def parse(text: str) -> str:
        name, settings = split(text)
        cli.one_of(kind, table)(name)
        valid = settings_of(kind, table[name])
        for key, value in settings:
            if key not in valid:
                takes = f"takes {', '.join(valid)}" if valid else "takes no settings"
                raise argparse.ArgumentTypeError(f"{text!r}: {kind} {name} {takes}, got {key!r}")
            if not value:
                raise argparse.ArgumentTypeError(f"{text!r}: a setting is written {key}=VALUE")
        if len(dict(settings)) < len(settings):
            raise argparse.ArgumentTypeError(f"{text!r}: a setting is there twice")
        for key, setting in valid.items():
            if setting.default is setting.empty and key not in dict(settings):
                raise argparse.ArgumentTypeError(
                    f"{kind} {name} needs a value for {key}, as in {name}:{key}=VALUE"
                )
        return text

    return parse


def chain_of(kind: str, table: Table) -> Callable[[str], str]:
    """A type for argparse: one or several of the table, joined by +, in their order."""
    one = one_of(kind, table)

    def parse(text: str) -> str:
        for part in links(text):
            one(part)
        return text

    return parse


def links(text: str) -> list[str]:
    """The parts of a chain; the + of a number such as 1e+5 isn't between two."""
    return re.split(r"\+(?=[a-z])", text)


def split(text: str) -> tuple[str, list[tuple[str, str]]]:
    """The name, and the settings after it as they are written."""
    name, colon, rest = text.partition(":")
    pairs = [pair.partition("=") for pair in rest.split(",")] if colon else []
    return name, [(key.strip(), value.strip()) for key, _, value in pairs]


def parameters(factory: Callable[..., Any]) -> tuple[str, ...]:
    """The names of what a factory takes."""
    return tuple(inspect.signature(factory).parameters)


def settings_of(kind: str, factory: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """What may be written after the name, and must be if there is no default."""
    every = inspect.signature(factory).parameters.items()
    return {name: setting for name, setting in every if name not in KNOWN[kind]}


def build(text: str, table: Table, **known: Any) -> Any:
    """What the factory makes of the settings in the text and, of those known, what it takes.

    Raises:
        ValueError: if the factory can't have these settings.
    """
    name, settings = split(text)
    factory = table[name]
    given = {key: known[key] for key in parameters(factory) if known.get(key) is not None}
    try:
        hints = get_type_hints(factory)
        own = {key: _value(key, value, hints[key]) for key, value in settings}
        return factory(**given, **own)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{text!r}: {error}") from None


def _value(key: str, text: str, hint: Any) -> int | float | str | None:
    """What is written, as the factory's annotation has it: of a real setting 1 is 1.0.

    Raises:
        ValueError: if the number doesn't fit into the 32 bits that it is computed with.
    """
    if text == "none":
        return None
    real = float in (hint, *get_args(hint))
    for kind in (float,) if real else (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        if isinstance(value, float) and not math.isfinite(value):
            return text  # no setting is such a number, but these are words: nonfinite:value=inf
        if real and abs(value) > cli.FLOAT32_MAX:
            raise ValueError(f"{key} must be at most {cli.FLOAT32_MAX:.7g}, got {text}")
        if isinstance(value, int) and not -(2**31) <= value < 2**31:
            raise ValueError(f"{key} must be below 2^31, got {text}")
        return value
    return text

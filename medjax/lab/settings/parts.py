"""Parts that are chosen by name, with settings: `alie:tau=1.5` is `ATTACKS["alie"](tau=1.5)`.

A setting is an argument of the factory, and its value a number, a word, or none. What the run knows
(f, n, the rule under attack) isn't written there: `Part.build` gives it to those factories that ask
for it. In the place of a name may stand a function of one's own (`medjax.lab.settings.own`).
"""

import argparse
import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from medjax.lab.settings import cli, own

T = TypeVar("T")
Table = Mapping[str, Callable[..., Any]]

KNOWN: Mapping[str, frozenset[str]] = {
    "algorithm": frozenset(
        {"lr", "server_lr", "local_lr", "local_optimizer", "rule", "compressor", "key"}
        | {"num_workers", "topology", "attack"}
    ),
    "rule": frozenset(
        {"num_byzantine", "num_workers", "weights", "zero", "tie", "start", "server_gradient"}
    ),
    "mixing": frozenset({"num_byzantine"}),
    "attack": frozenset({"num_classes", "rule", "num_byzantine"}),
    "compressor": frozenset(),
    "noise": frozenset({"df"}),
    "server": frozenset({"learning_rate", "momentum"}),
    "model": frozenset({"num_classes", "parent", "name"}),
    "dataset": frozenset(),
    "augmentation": frozenset(),
    "local optimizer": frozenset({"learning_rate"}),
    "topology": frozenset({"num_nodes"}),
}
"""By kind, arguments of factories that a run gives, and that so aren't written after the name.

A vector to start from has no place on a command line, nor have flax's own fields of a module.
"""

_GIVEN_TO = {("attack", "num_byzantine"): "--byzantine"}
_GIVEN_TO |= {("local optimizer", "learning_rate"): "--local-lr"}
"""The flags that give an argument to one kind of parts alone, by (kind, argument)."""

_SAME_NAME = ("weights", "zero", "tie", "rule", "df", "momentum", "lr", "local_lr")
_SAME_NAME += ("local_optimizer", "topology", "attack")
_GIVEN_BY = {name: "--" + name.replace("_", "-") for name in _SAME_NAME} | {
    "num_byzantine": "--declared-byzantine",
    "num_workers": "--workers",
    "num_nodes": "--workers",
    "compressor": "--compress",
    "learning_rate": "--lr",
    "server_lr": "--lr",
    "key": "--seed",
}
"""The flags that give such arguments."""

_NOISY = "noisy_"


@dataclass(frozen=True)
class Part:
    """A part by its name, with its settings.

    Attributes:
        kind: "rule", "attack" ...
        text: it as it is written.
        name: its name without settings, and without `noisy_`.
        digest: the SHA-256 of the file, if it is one's own; such parts differ with it.
        factory: what makes it, or a plain function that is the part itself.
        settings: the values of those that are written after the name.
        noisy: whether every worker adds noise before it; of a rule.
    """

    kind: str
    text: str
    name: str
    digest: str | None
    factory: Callable[..., Any] = field(compare=False)
    settings: Mapping[str, Any] = field(compare=False)
    noisy: bool = False

    def __str__(self) -> str:
        return self.text

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of what the factory takes."""
        return parameters(self.factory)

    @property
    def is_factory(self) -> bool:
        """Tell a factory from a plain function: it needs nothing that isn't known or given."""
        if self.digest is None:
            return True
        known = {*KNOWN[self.kind], *self.settings}
        needed = [p for p in _signature(self.factory).values() if p.default is p.empty]
        named = [p.name for p in needed if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        return not set(named) - known

    def build(self, **known: Any) -> Any:
        """Make the part, of its settings and, of what the run knows, of what it takes.

        Raises:
            ValueError: if the factory can't have these settings.
        """
        if not self.is_factory:
            return self.factory
        given = {k: known[k] for k in self.parameters if known.get(k) is not None}
        try:
            return self.factory(**given, **self.settings)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{self.text!r}: {error}") from None


@dataclass(frozen=True)
class Chain:
    """Parts of one kind, in the order in which they apply."""

    parts: tuple[Part, ...]

    def __str__(self) -> str:
        return "+".join(map(str, self.parts))


def one_of(kind: str, table: Table, *, noisy: bool = False) -> Callable[[str], Part]:
    """Make a parser for a name in the table, or a function of one's own, with its settings.

    Args:
        kind: of the parts.
        table: the factories by name.
        noisy: whether `noisy_` may stand before the name.
    """

    def parse(text: str) -> Part:
        before = _NOISY if noisy and text.startswith(_NOISY) else ""
        name, _, rest = text.removeprefix(before).partition(":")
        if name in table:
            settings = _settings(kind, name, table[name], rest, text)
            for key, setting in settings_of(kind, table[name]).items():
                if setting.default is setting.empty and key not in settings:
                    raise argparse.ArgumentTypeError(
                        f"{kind} {name} needs a value for {key}, as in {name}:{key}=VALUE"
                    )
            return Part(kind, text, name, None, table[name], settings, noisy=bool(before))
        mine = own_part(kind, text, before)
        if mine is None:
            names = [*table, *(_NOISY + each for each in table)] if noisy else [*table]
            shown = ", ".join(table) + (f"; each also as {_NOISY}NAME" if noisy else "")
            cli.one_of(kind, names, shown)(before + name)
        assert mine is not None
        return mine

    return parse


def own_part(kind: str, text: str, before: str = "") -> Part | None:
    """Return a part of one's own; None if the text names none.

    Args:
        kind: of the part.
        text: as it is written.
        before: `noisy_`, if that stands before it.

    Raises:
        argparse.ArgumentTypeError: if it isn't there, or hasn't such settings.
    """
    mine = own.find(text.removeprefix(before))
    if mine is None:
        return None
    settings = _settings(kind, mine.name, mine.function, mine.settings or "", text)
    return Part(kind, text, mine.name, mine.digest, mine.function, settings, noisy=bool(before))


def or_none(parse: Callable[[str], T]) -> Callable[[str], T | None]:
    """Make a parser that takes none too, which a sweep may have among others."""
    return lambda text: None if text == "none" else parse(text)


def chain_of(kind: str, table: Table) -> Callable[[str], Chain]:
    """Make a parser for one or several parts joined by +, in their order."""
    one = one_of(kind, table)
    return lambda text: Chain(tuple(map(one, links(text))))


def links(text: str) -> list[str]:
    """Split a chain; the + of a number such as 1e+5 isn't between two parts."""
    return re.split(r"\+(?=[A-Za-z_./~\\])", text)


def parameters(factory: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names of what a factory takes."""
    return tuple(_signature(factory))


def settings_of(kind: str, factory: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return what may be written after the name, and must be if there is no default."""
    return {k: p for k, p in _signature(factory).items() if k not in KNOWN[kind]}


def _settings(
    kind: str, name: str, factory: Callable[..., Any], rest: str, text: str
) -> dict[str, Any]:
    """Parse what is written after the name."""
    pairs = [pair.partition("=") for pair in rest.split(",")] if rest or text.endswith(":") else []
    written = [(key.strip(), value.strip()) for key, _, value in pairs]
    valid, hints = settings_of(kind, factory), _hints(factory)
    for key, value in written:
        flag = _GIVEN_TO.get((kind, key), _GIVEN_BY.get(key))
        if key in KNOWN[kind] and flag is not None and key in parameters(factory):
            raise argparse.ArgumentTypeError(f"{text!r}: {key} is given by {flag}")
        if key not in valid:
            takes = f"takes {', '.join(valid)}" if valid else "takes no settings"
            raise argparse.ArgumentTypeError(f"{text!r}: {kind} {name} {takes}, got {key!r}")
        if not value:
            raise argparse.ArgumentTypeError(f"{text!r}: a setting is written {key}=VALUE")
    if len(dict(written)) < len(written):
        raise argparse.ArgumentTypeError(f"{text!r}: a setting is there twice")
    try:
        return {key: _value(key, value, hints.get(key)) for key, value in written}
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None


def _signature(factory: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(factory).parameters
    except ValueError:  # of some that are written in C
        return {}


def _hints(factory: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations; of somebody's own function perhaps none that can be read."""
    try:
        return get_type_hints(factory.__init__ if isinstance(factory, type) else factory)
    except (NameError, TypeError, AttributeError):
        return {}


def _value(key: str, text: str, hint: Any) -> Any:
    """Read a value as the factory's annotation has it: of a real setting 1 is 1.0.

    Where it may be a sequence, one of n values is written 1/2/3.

    Raises:
        ValueError: if the number doesn't fit into the 32 bits that it is computed with, or what is
            to be true or false isn't.
    """
    if text == "none":
        return None
    if hint is bool:
        if text not in ("true", "false"):
            raise ValueError(f"{key} must be true or false, got {text!r}")
        return text == "true"
    if "/" in text and any(get_origin(each) is Sequence for each in get_args(hint)):
        return tuple(_value(key, each, None) for each in text.split("/"))
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

"""A run's settings: from those that are given to all of them."""

import argparse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

from medjax.lab.settings import cli, rules
from medjax.lab.settings.algorithm import Algorithm
from medjax.lab.settings.data import Data
from medjax.lab.settings.field import Spec, flag, plain, specs
from medjax.lab.settings.parts import Part
from medjax.lab.settings.protocol import Protocol
from medjax.lab.settings.training import Training
from medjax.lab.settings.values import AUTO, THEORY, Adaptive, Undamped

GROUPS: Mapping[str, type[Any]] = {
    "algorithm": Algorithm,
    "workers and data": Data,
    "protocol: what crosses the wire, and who lies": Protocol,
    "training": Training,
}
"""The settings by the headings that they stand under in the help."""


@dataclass(frozen=True, kw_only=True)
class Settings(Training, Protocol, Data, Algorithm):
    """Everything that a run depends on. None marks a setting that doesn't apply to it."""


SETTINGS: Mapping[str, Spec] = {
    name: spec for group in GROUPS.values() for name, spec in specs(group).items()
}
"""Every setting's declaration by its name, in the order in which they are resolved."""


def resolve(given: Mapping[str, Any], *, drop: bool = False) -> Settings:
    """Fill in the defaults.

    Args:
        given: the values by name; None, or nothing, where a setting isn't given.
        drop: whether settings that don't apply to the run are left out, and no error.

    Raises:
        ValueError: if a setting is given that doesn't apply to the run.
    """
    values = {name: given.get(name) for name in SETTINGS}
    a = SimpleNamespace(**values, given=SimpleNamespace(**values))
    for name, spec in SETTINGS.items():
        value = getattr(a, name)
        if spec.applies is not None and not spec.applies(a):
            if value is not None and not drop:
                raise ValueError(f"{flag(name)} {value} goes only with {spec.goes_with}")
            setattr(a, name, None)
        elif value is None:
            setattr(a, name, spec.value_without(a))
        if name == "b" and a.b == AUTO:
            a.b = _scale_without_tuning(a.rule)
    theorem = None if a.algorithm is not None else rules.theorem(a.rule)
    if THEORY in (a.b, a.lr) and theorem is None:
        name, alone = "b" if a.b == THEORY else "lr", ", without --algorithm"
        raise ValueError(
            f"{flag(name)} {THEORY} goes only with --rule noisy_median, noisy_sign"
            f"{alone if a.algorithm is not None else ''}"
        )
    return Settings(**{name: getattr(a, name) for name in SETTINGS})


def _scale_without_tuning(rule: Any) -> Adaptive:
    scale = rules.auto_scale(rule)
    if scale is None:
        raise ValueError(f"--b {AUTO} goes only with --rule noisy_sign")
    return scale


def configure(*, drop: bool = False, **settings: Any) -> Settings:
    """Return a run's settings from some of them, the others by their defaults.

    Args:
        drop: whether settings that don't apply to the run are left out, and no error.
        settings: by name, as on the command line: b=0.01, rule="krum", attack="alie:tau=2".

    Raises:
        ValueError: if there is no such setting, if a value isn't valid, or if a setting is given
            that doesn't apply to the run.
    """
    return resolve({name: parsed(name, value) for name, value in settings.items()}, drop=drop)


def parsed(name: str, value: Any) -> Any:
    """Return a setting's value from text or from the value itself.

    Raises:
        ValueError: if there is no such setting, or it can't have this value.
    """
    try:
        cli.one_of("setting", SETTINGS)(name)
        return None if value is None else SETTINGS[name].parse(str(value))
    except argparse.ArgumentTypeError as error:
        where = f"{flag(name)}: " if name in SETTINGS else ""
        raise ValueError(f"{where}{error}") from None


def as_record(config: Settings) -> dict[str, Any]:
    """Return the settings as files hold them: numbers, words and None."""
    return {name: plain(getattr(config, name)) for name in SETTINGS}


def digests(configs: Iterable[Settings]) -> dict[str, str]:
    """Return the SHA-256 of the files of one's own that runs depend on, by what names them."""
    return {part.name: part.digest or "" for config in configs for part in own_parts(config)}


def own_parts(config: Settings) -> list[Part]:
    """Return the parts of a run that are one's own."""
    values = (getattr(config, name) for name in SETTINGS)
    parts = [part for value in values for part in getattr(value, "parts", (value,))]
    return [part for part in parts if isinstance(part, Part) and part.digest is not None]


def from_record(record: Mapping[str, Any], *, drop: bool = False) -> Settings:
    """Return the settings that a file holds, checked like those that users give.

    Raises:
        ValueError: if they aren't settings of a run.
    """
    return configure(**{name: v for name, v in record.items() if v is not None}, drop=drop)


def static(config: Settings) -> Settings:
    """Return the same for all runs that one program can serve: numbers that may be traced are 0.

    Two runs differ in code or in shapes just where this differs.
    """
    traced = {name: _zero(getattr(config, name)) for name, spec in SETTINGS.items() if spec.traced}
    return replace(config, **traced)


def _zero(value: Any) -> Any:
    """Return 0 in the place of a number; the kind of a value that is more stays."""
    match value:
        case None:
            return None
        case Adaptive():
            return Adaptive(0.0)
        case Undamped():
            return Undamped(0.0)
        case _:
            return 0

"""Facts about the rules on the command line, by which other settings apply or not."""

from collections.abc import Callable, Mapping
from typing import Any, get_args, get_type_hints

from medjax import rules, theory
from medjax._engine import checks
from medjax.lab.settings import parts
from medjax.lab.settings.parts import Part
from medjax.lab.settings.values import Adaptive
from medjax.rules import (
    RULES,
    Additive,
    CoordinateWise,
    Geometric,
    Rule,
    ServerGradient,
    StatefulRule,
)

_SERVER_EXAMPLES = 100  # as in the paper on FLTrust


def _fltrust(server_gradient: ServerGradient, examples: int = _SERVER_EXAMPLES) -> StatefulRule:
    """The mean of the vectors by their trust, each scaled to the server's own (Cao et al., 2021).

        Σ_i t_i (‖g_0‖/‖x_i‖) x_i / Σ_i t_i, t_i = max(0, cos(x_i, g_0)), g_0 = the server's own.

    The server computes g_0 on clean examples of its own, drawn by the seed, uniformly from all
    training data. They stay the workers' too. With --local-steps the server takes as many, each on
    all of its examples. See `medjax.rules.fltrust`.

    Args:
        server_gradient: the parameters to g_0.
        examples: the number of the server's examples, 100 in the paper.

    Raises:
        TypeError: if it isn't an integer.
        ValueError: if it is below 1.
    """
    checks.integer("examples", examples, minimum=1)
    return rules.fltrust(server_gradient)


RULE_TABLE: Mapping[str, Callable[..., Rule | StatefulRule]] = {
    ("sign" if name == "majority_vote" else name): factory for name, factory in RULES.items()
} | {"fltrust": _fltrust}
"""The names that `--rule` takes, each also with noise before it as `noisy_NAME`."""

FAMILIES: Mapping[str, type[Any]] = {
    "sums over the workers": Additive,
    "by coordinate": CoordinateWise,
    "by distances": Geometric,
    "with a memory, or data of the server's own": StatefulRule,
}
"""The families of rules, in words."""

parse: Callable[[str], Part] = parts.one_of("rule", RULE_TABLE, noisy=True)
"""From what is written to a rule."""


def by_family() -> str:
    """Return the names of all rules by family, for the help."""
    words: dict[str, list[str]] = {}
    for name, factory in RULE_TABLE.items():
        words.setdefault(family(factory), []).append(name)
    return "; ".join(f"{kind}: {', '.join(names)}" for kind, names in words.items())


def family(factory: Callable[..., Any]) -> str:
    """Return the family that a factory's rules belong to, in words."""
    made = _made(factory)
    return next((words for words, kind in FAMILIES.items() if kind in made), "in two stages")


def is_additive(rule: Part | None) -> bool:
    """Tell if the rule needs only a sum over the workers, so that these can be streamed."""
    return rule is not None and _made(rule.factory) == (Additive,)


def is_vote(rule: Part | None) -> bool:
    """Tell if the rule is the majority vote: its step size is a length for every coordinate."""
    return rule is not None and rule.factory is rules.majority_vote


def server_examples(rule: Part | None) -> int | None:
    """Return the number of examples that the server has of its own; None if the rule has no use.

    A rule has one if its factory takes `server_gradient`; the number is its setting `examples`.
    """
    if rule is None or "server_gradient" not in rule.parameters:
        return None
    setting = parts.settings_of("rule", rule.factory).get("examples")
    default = _SERVER_EXAMPLES if setting is None else setting.default
    return rule.settings.get("examples", default)


def default_step_size(rule: Part) -> float:
    """Return a step size that works on MNIST."""
    if is_vote(rule):
        return 0.003
    return 0.1 if rule.factory is rules.mean else 0.03


def theorem(rule: Part | None) -> Callable[[int, int], theory.Rates] | None:
    """Return the theorem, (T, d) to (b, δ), on the algorithm; None if there is none."""
    theorems = {rules.majority_vote: theory.theorem5, rules.median: theory.theorem6}
    return theorems.get(rule.factory) if rule is not None and rule.noisy else None


def auto_scale(rule: Part) -> Adaptive | None:
    """Return a noise scale that needs no tuning, by the study `which_b`; None if none is known."""
    return Adaptive(0.1) if rule.noisy and is_vote(rule) else None


def names_with(option: str) -> str:
    """Return the names of the rules that take a setting, for people."""
    return _names(lambda factory: option in parts.parameters(factory))


def additive_names() -> str:
    """Return the names of the additive rules, for people."""
    return _names(lambda factory: _made(factory) == (Additive,))


def _names(wanted: Callable[[Any], bool]) -> str:
    names = [name for name, factory in RULE_TABLE.items() if wanted(factory)]
    return ", ".join([*names, *(f"noisy_{name}" for name in names)])


def _made(factory: Callable[..., Any]) -> tuple[Any, ...]:
    """Return the kinds of what a factory makes, by its annotation."""
    try:
        hint = get_type_hints(factory).get("return")
    except (NameError, TypeError):  # of somebody's own function
        return ()
    return get_args(hint) or (hint,)

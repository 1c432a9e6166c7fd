"""From the name of an algorithm to its chain over stacked updates."""

import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

import jax
import jax.numpy as jnp
import optax

import medjax
from medjax import theory
from medjax.noise import Noise
from medjax.rules import RULES, Additive, Rule

_NOISY = "noisy_"
_BASE_RULES = {("sign" if name == "majority_vote" else name): name for name in RULES}

RULE_NAMES = (*_BASE_RULES, *(_NOISY + name for name in _BASE_RULES))
"""What `--rule` takes: every rule, `sign` for the majority vote, and each with noise before it."""


def is_noisy(name: str) -> bool:
    """Whether the algorithm adds noise to the local gradients."""
    return name.startswith(_NOISY)


def is_additive(name: str) -> bool:
    """Whether the rule needs only a sum over the workers, so that these can be streamed."""
    return issubclass(get_type_hints(RULES[_factory_name(name)])["return"], Additive)


def default_step_size(name: str) -> float:
    """A step size that works on MNIST; a vote's is a length per coordinate, so smaller."""
    return {"majority_vote": 0.003, "mean": 0.1}.get(_factory_name(name), 0.03)


def theorem(name: str) -> Callable[[int, int], theory.Rates] | None:
    """The theorem, (T, d) to (b, δ), on the algorithm; None if there is none."""
    theorems = {"majority_vote": theory.theorem5, "median": theory.theorem6}
    return theorems.get(_factory_name(name)) if is_noisy(name) else None


def auto_scale(name: str) -> str | None:
    """A noise scale that needs no tuning, by the study `experiments.which_b`; None if none does."""
    vote = is_noisy(name) and _factory_name(name) == "majority_vote"
    return "adaptive:0.1" if vote else None


def rules_with(option: str) -> str:
    """The names of the rules that take a setting, for people."""
    return ", ".join(name for name in RULE_NAMES if option in rule_options(name))


def rule_options(name: str) -> tuple[str, ...]:
    """The settings that the rule's factory takes."""
    return tuple(inspect.signature(RULES[_factory_name(name)]).parameters)


def build_rule(name: str, options: dict[str, Any], num_workers: int) -> Rule:
    """The rule, checked against the number of workers.

    Raises:
        ValueError: if the rule can't have these settings, or so many workers.
    """
    factory = _factory_name(name)
    rule = RULES[factory](**{k: options[k] for k in rule_options(name) if k in options})
    key = jax.random.key(0) if rule.needs_key else None
    jax.eval_shape(lambda x: rule(x, key), jax.ShapeDtypeStruct((num_workers, 1), jnp.float32))
    return rule


def build_optimizer(
    rule: Rule,
    learning_rate: optax.ScalarOrSchedule,
    b: Any,
    noise: Noise | None,
    key: jax.Array,
    momentum: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """Worker noise (unless b is None), the rule, momentum (unless None), and a gradient step.

    A vote looks at signs alone, so the sign of the noisy gradient is drawn, not the noise.
    """
    signs_only = isinstance(rule, Additive) and rule.signs_only
    add_noise = medjax.noisy_sign if signs_only else medjax.perturb
    return optax.chain(
        optax.identity() if b is None else add_noise(b, noise, key),
        medjax.aggregate(rule, key),
        optax.identity() if momentum is None else optax.trace(momentum),
        optax.scale_by_learning_rate(learning_rate),
    )


def _factory_name(name: str) -> str:
    return _BASE_RULES[name.removeprefix(_NOISY)]

"""From the names on the command line to the chain over stacked updates."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

import jax
import jax.numpy as jnp
import optax

import medjax
from medjax import theory
from medjax.attacks import ATTACKS, Attack, DataAttack
from medjax.compressors import COMPRESSORS, Compressor
from medjax.lab.settings import named
from medjax.mixing import MIXINGS, Mixing
from medjax.noise import Noise
from medjax.rules import RULES, Additive, Rule, StatefulRule
from medjax.servers import SERVERS

_NOISY = "noisy_"
_BASE_RULES = {("sign" if name == "majority_vote" else name): f for name, f in RULES.items()}

RULE_TABLE: Mapping[str, Callable[..., Rule | StatefulRule]] = _BASE_RULES | {
    _NOISY + name: factory for name, factory in _BASE_RULES.items()
}
"""What `--rule` takes: every rule, `sign` for the majority vote, and each with noise before it."""

RULE_NAMES = tuple(RULE_TABLE)


def is_noisy(rule: str) -> bool:
    """Whether the algorithm adds noise to the local gradients."""
    return rule.startswith(_NOISY)


def is_additive(rule: str) -> bool:
    """Whether the rule needs only a sum over the workers, so that these can be streamed."""
    return get_type_hints(_factory(rule))["return"] is Additive


def is_vote(rule: str) -> bool:
    """Whether the rule is the majority vote: its step size is a length for every coordinate."""
    return _factory(rule) is medjax.rules.majority_vote


def default_step_size(rule: str) -> float:
    """A step size that works on MNIST."""
    if is_vote(rule):
        return 0.003
    return 0.1 if _factory(rule) is medjax.rules.mean else 0.03


def theorem(rule: str) -> Callable[[int, int], theory.Rates] | None:
    """The theorem, (T, d) to (b, δ), on the algorithm; None if there is none."""
    theorems = {medjax.rules.majority_vote: theory.theorem5, medjax.rules.median: theory.theorem6}
    return theorems.get(_factory(rule)) if is_noisy(rule) else None


def auto_scale(rule: str) -> str | None:
    """A noise scale that needs no tuning, by the study `experiments.which_b`; None if none does."""
    return "adaptive:0.1" if is_noisy(rule) and is_vote(rule) else None


def rules_with(option: str) -> str:
    """The names of the rules that take a setting, for people."""
    return ", ".join(name for name in RULE_NAMES if option in rule_options(name))


def rule_options(rule: str) -> tuple[str, ...]:
    """The settings that the rule's factory takes."""
    return named.parameters(_factory(rule))


@dataclass(frozen=True)
class Protocol:
    """What the workers send, who lies, and what the server makes of it.

    Attributes:
        rule: the server's; if it has no memory, with the mixing before it.
        num_workers: how many send something at each step.
        num_byzantine: how many of them, the last, send what the attack makes.
        attacks: theirs on the vectors, one after the other.
        compressor: the workers'; None if they send all.
        error_feedback: whether they keep what was not sent.
        all_workers: how many there are, be they asked at this step or not.
        mixings: what stands before a rule with a memory.
    """

    rule: Rule | StatefulRule
    num_workers: int
    num_byzantine: int = 0
    attacks: tuple[Attack, ...] = ()
    compressor: Compressor | None = None
    error_feedback: bool = False
    all_workers: int = 0
    mixings: tuple[Mixing, ...] = ()


def build_rule(
    rule: str, mix: str | None, known: Mapping[str, Any], num_workers: int
) -> tuple[Rule | StatefulRule, tuple[Mixing, ...]]:
    """The rule, and what is to be mixed before it if it has a memory; else it does so itself.

    Raises:
        ValueError: if one of them can't have these settings, or so many workers.
    """
    built = named.build(rule, RULE_TABLE, **known)
    parts = named.links(mix) if mix is not None else []
    mixings = tuple(named.build(part, MIXINGS, **known) for part in parts)
    if not isinstance(built, StatefulRule):
        built, mixings = medjax.mixing.premixed(built, *mixings), ()
    elif mixings and built.knows_workers:
        raise ValueError(f"--mix {mix} can't precede --rule {rule}, which remembers workers")
    check(optax.chain(*server_stages(built, mixings, jax.random.key(0))), num_workers)
    return built, mixings


def server_stages(
    rule: Rule | StatefulRule, mixings: tuple[Mixing, ...], key: jax.Array
) -> list[optax.GradientTransformation]:
    """What the server does to the workers' vectors."""
    stages = [medjax.mix(x, jax.random.fold_in(key, i)) for i, x in enumerate(mixings)]
    return [*stages, medjax.aggregate(rule, key)]


def check(stage: optax.GradientTransformation, num_workers: int) -> None:
    """Trace a stage, so that what it can't do with so many workers is said now.

    Raises:
        ValueError: if it can't.
    """
    params = jnp.zeros(2)
    stacked = jax.ShapeDtypeStruct((num_workers, 2), jnp.float32)
    update = optax.with_extra_args_support(stage).update
    try:
        jax.eval_shape(lambda x: update(x, stage.init(params), params), stacked)
    except OverflowError:  # their number and another make one that 32 bits don't hold
        raise ValueError(f"{num_workers} workers are too many to be told apart") from None


def takes_rule(attack: str) -> bool:
    """Whether the attack is one on a rule that it knows."""
    return "rule" in named.parameters(ATTACKS[named.split(attack)[0]])


def build_attacks(
    attack: str,
    rule: Rule | StatefulRule,
    known: Mapping[str, Any],
    num_byzantine: int,
    num_workers: int,
) -> list[Attack | DataAttack]:
    """The attacks, on this rule, those of vectors checked against the numbers of workers.

    Raises:
        ValueError: if one can't have these settings, or so many workers, or can't be on this rule.
    """
    built = []
    for part in named.links(attack):
        if takes_rule(part) and isinstance(rule, StatefulRule):
            raise ValueError(f"--attack {part} is on rules without memory, got {rule.name}")
        built.append(named.build(part, ATTACKS, rule=rule, **known))
        if isinstance(built[-1], Attack):
            check(medjax.attack(built[-1], num_byzantine, 0), num_workers)
    return built


def build_compressor(compress: str) -> Compressor:
    """The compressor.

    Raises:
        ValueError: if it can't have these settings.
    """
    return named.build(compress, COMPRESSORS)


def draws_signs(protocol: Protocol) -> bool:
    """Whether, if there is noise, the sign of the noisy gradient is drawn, and not the noise.

    A vote looks at signs alone; but nothing may stand between.
    """
    signs_only = isinstance(protocol.rule, Additive) and protocol.rule.signs_only
    return signs_only and protocol.compressor is None and not protocol.attacks


def build_optimizer(
    protocol: Protocol,
    server: optax.GradientTransformation,
    b: Any,
    noise: Noise | None,
    key: jax.Array,
    worker_momentum: optax.GradientTransformation | None = None,
) -> optax.GradientTransformationExtraArgs:
    """In the order of the protocol: worker, wire, adversary, mixing and rule, server.

    b is None where there is no noise.
    """
    rule, compressor = protocol.rule, protocol.compressor
    stages = [] if worker_momentum is None else [worker_momentum]
    if b is not None:
        stage = medjax.noisy_sign if draws_signs(protocol) else medjax.perturb
        stages.append(stage(b, noise, key=key))
    if compressor is not None and protocol.error_feedback:
        stages.append(medjax.error_feedback(compressor, protocol.all_workers, key))
    elif compressor is not None:
        stages.append(medjax.compress(compressor, key))
    stages += [
        medjax.attack(attack, protocol.num_byzantine, jax.random.fold_in(key, i))
        for i, attack in enumerate(protocol.attacks)
    ]
    return optax.chain(*stages, *server_stages(rule, protocol.mixings, key), server)


def build_server(server: str, learning_rate: Any, **settings: Any) -> optax.GradientTransformation:
    """The server's optimizer.

    Raises:
        ValueError: if it can't have these settings.
    """
    return named.build(server, SERVERS, learning_rate=learning_rate, **settings)


def _factory(rule: str) -> Callable[..., Any]:
    return RULE_TABLE[named.split(rule)[0]]

"""From the settings to the chain over stacked updates."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import optax

import medjax
from medjax.attacks import Attack, DataAttack
from medjax.attacks._attack import as_attack
from medjax.compressors import Compressor
from medjax.compressors._compressor import as_compressor
from medjax.lab.settings import rules
from medjax.lab.settings.config import Settings
from medjax.lab.settings.parts import Part
from medjax.mixing import Mixing
from medjax.mixing._mixings import as_mixing
from medjax.noise import Noise
from medjax.rules import Additive, Rule, ServerGradient, StatefulRule
from medjax.rules._rule import as_rule

FEWEST_CLASSES = 2
"""The number of classes with which all factories are content, before the data are there."""


@dataclass(frozen=True)
class Protocol:
    """The stages between gradients and server.

    Attributes:
        rule: the server's; if it has no memory, with the mixing before it.
        num_workers: the number that send something at each step.
        num_byzantine: the number of them, the last, that send what the attack makes.
        attacks: theirs on the vectors, one after the other.
        data_attacks: theirs on their data, before the training.
        compressor: the workers'; None if they send all.
        error_feedback: whether they keep what was not sent.
        all_workers: the number that there are, be they asked at this step or not.
        mixings: stages before a rule with a memory.
    """

    rule: Rule | StatefulRule
    num_workers: int
    num_byzantine: int = 0
    attacks: tuple[Attack, ...] = ()
    data_attacks: tuple[DataAttack, ...] = ()
    compressor: Compressor | None = None
    error_feedback: bool = False
    all_workers: int = 0
    mixings: tuple[Mixing, ...] = ()


def build_protocol(config: Settings, num_classes: int = FEWEST_CLASSES) -> Protocol:
    """Build the stages from the settings, and check that they go together.

    Raises:
        ValueError: if they don't.
    """
    n, asked = config.workers, config.participation or config.workers
    byzantine = config.byzantine or 0
    if asked > n:
        raise ValueError(f"participation {asked} is more than the {n} workers")
    if byzantine >= asked:
        raise ValueError(
            f"byzantine {byzantine} leaves no honest one of the {asked} workers that take part"
        )
    known = _known(config) | {"num_classes": num_classes}
    mixings = config.mix.parts if config.mix is not None else ()
    rule, mixings = build_rule(config.rule, mixings, known, asked)
    if isinstance(rule, StatefulRule) and rule.knows_workers and asked < n:
        raise ValueError(f"--rule {config.rule} remembers the workers: all must take part")
    _check_weights(config)
    attacks = _attacks(config, rule, known, asked) if config.attack is not None else []
    return Protocol(
        rule,
        asked,
        byzantine,
        tuple(attack for attack in attacks if isinstance(attack, Attack)),
        tuple(attack for attack in attacks if isinstance(attack, DataAttack)),
        _compressor(config),
        config.error_feedback == "yes",
        n,
        mixings,
    )


def _known(config: Settings) -> dict[str, Any]:
    """Return what factories are given that ask for it."""
    return {
        "num_byzantine": config.declared_byzantine,
        "num_workers": config.participation or config.workers,
        "zero": config.zero,
        "tie": config.tie,
        "server_gradient": lambda params: params,  # in the place of one that takes data
    }


def with_server_gradient(
    protocol: Protocol, config: Settings, server_gradient: ServerGradient
) -> Protocol:
    """Return the protocol with a rule that has the gradient of the server's data."""
    known = _known(config) | {"server_gradient": server_gradient}
    return replace(protocol, rule=_adapted(config.rule, as_rule, known))


def _check_weights(config: Settings) -> None:
    """Check what doesn't go with weights by examples.

    Mixed vectors are nobody's, and the weights aren't known until the data are shared out.
    """
    if config.weights != "examples":
        return
    if config.mix is not None:
        raise ValueError(f"--weights examples doesn't go with --mix {config.mix}")
    for part in config.attack.parts if config.attack is not None else ():
        if "rule" in part.parameters:
            raise ValueError(f"--attack {part} is on rules without --weights examples")


def build_rule(
    rule: Part, mixings: tuple[Part, ...], known: dict[str, Any], num_workers: int
) -> tuple[Rule | StatefulRule, tuple[Mixing, ...]]:
    """Build the rule with the mixing before it; if it has a memory, they stay apart.

    Raises:
        ValueError: if one of them can't have these settings, or so many workers.
    """
    built = _adapted(rule, as_rule, known)
    if "server_gradient" in rule.parameters and not isinstance(built, StatefulRule):
        raise ValueError(f"--rule {rule} takes server_gradient: it must make a StatefulRule")
    stages = tuple(_adapted(part, as_mixing, known) for part in mixings)
    if not isinstance(built, StatefulRule):
        built, stages = medjax.mixing.premixed(built, *stages), ()
    elif stages and built.knows_workers:
        mix = "+".join(map(str, mixings))
        raise ValueError(f"--mix {mix} can't precede --rule {rule}, which remembers workers")
    check(optax.chain(*server_stages(built, stages, jax.random.key(0))), num_workers)
    return built, stages


def _adapted(part: Part, adapt: Any, known: dict[str, Any]) -> Any:
    """Build a part; what is one's own may be a plain function, or make something else."""
    built = part.build(**known)
    try:
        return adapt(built)
    except TypeError as error:
        raise ValueError(f"--{_FLAGS.get(part.kind, part.kind)} {part}: {error}") from None


_FLAGS = {"mixing": "mix", "compressor": "compress"}


def server_stages(
    rule: Rule | StatefulRule, mixings: tuple[Mixing, ...], key: jax.Array
) -> list[optax.GradientTransformation]:
    """Return the stages that the server applies to the workers' vectors."""
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
    except TypeError as error:  # built stages say ValueError: one's own returns no array
        reason = str(error).splitlines()[0]
        raise ValueError(f"{reason}: is it a factory that lacks a setting?") from None
    except OverflowError:  # their number and another make one that 32 bits don't hold
        raise ValueError(f"{num_workers} workers are too many to be told apart") from None


def _attacks(
    config: Settings, rule: Rule | StatefulRule, known: dict[str, Any], num_workers: int
) -> list[Attack | DataAttack]:
    """Build the attacks, those of vectors checked against the numbers of workers."""
    built: list[Attack | DataAttack] = []
    if config.attack is None or not config.byzantine:
        return built
    for part in config.attack.parts:
        if "rule" in part.parameters and isinstance(rule, StatefulRule):
            raise ValueError(f"--attack {part} is on rules without memory, got {rule.name}")
        made = part.build(rule=rule, **known)
        if not isinstance(made, DataAttack):
            made = _adapted(part, as_attack, known | {"rule": rule})
            check(medjax.attack(made, config.byzantine, 0), num_workers)
        built.append(made)
    return built


def _compressor(config: Settings) -> Compressor | None:
    if config.compress is None:
        return None
    if rules.is_vote(config.rule):
        raise ValueError(
            f"--compress {config.compress} can't precede --rule {config.rule}: a vote is one bit "
            "already; valid: a rule of vectors, such as mean"
        )
    return _adapted(config.compress, as_compressor, {})


def draws_signs(protocol: Protocol) -> bool:
    """Tell if the sign of the noisy gradient is drawn in the place of the noise.

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
    """Chain the stages in the order of the protocol: worker, wire, adversary, server.

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

"""From a protocol to what medjax trains with: a chain, or an algorithm after its stages."""

from dataclasses import replace
from typing import Any

import jax
import optax

import medjax
from medjax.lab.settings.config import Settings
from medjax.lab.task.interpret import (
    Hyperparameters,
    noise_distribution,
    noise_scale,
    server,
    step_size,
    worker_momentum,
)
from medjax.lab.task.protocol import Protocol, server_stages
from medjax.noise import Noise
from medjax.rules import Additive
from medjax.workers import Algorithm
from medjax.workers._local_steps import as_algorithm


def build(
    config: Settings,
    protocol: Protocol,
    values: Hyperparameters,
    key: jax.Array,
    sizes: jax.Array | None = None,
) -> optax.GradientTransformation | Algorithm:
    """Build what a run trains with, from its settings and its numbers, perhaps traced.

    Args:
        config: the settings.
        protocol: the stages that they name.
        values: the numbers.
        key: for all that draws.
        sizes: how many examples each worker has, where the rule is to weigh by them.

    Raises:
        ValueError: if something can't have its settings.
    """
    if config.weights == "examples" and sizes is not None:
        protocol = replace(protocol, rule=medjax.rules.mean(sizes))
    b, noise = noise_scale(config, values.b), noise_distribution(config)
    if config.algorithm is None:
        last = server(config, values.lr, values.momentum)
        momentum = worker_momentum(config, values.worker_momentum)
        return build_optimizer(protocol, last, b, noise, key, momentum)
    algorithm = build_algorithm(config, protocol, values, key)
    if "attack" in config.algorithm.parameters:  # on what nodes tell one another
        protocol = replace(protocol, attacks=())
    stages = worker_stages(protocol, b, noise, key, compressing=not compresses(config))
    mixings = [medjax.mix(x, jax.random.fold_in(key, i)) for i, x in enumerate(protocol.mixings)]
    return algorithm.preceded_by(optax.chain(*stages, *mixings)) if stages or mixings else algorithm


def example(config: Settings, protocol: Protocol) -> Algorithm | None:
    """Build the algorithm with any numbers, to look at; None, after a check, for a server.

    Raises:
        ValueError: if it can't have its settings.
    """
    if config.algorithm is not None:
        return build_algorithm(config, protocol, _ANY, jax.random.key(0))
    server(config, 1.0, config.momentum)
    return None


_ANY = Hyperparameters(1.0, None, 0.1, None, None, 0)


def build_algorithm(
    config: Settings, protocol: Protocol, values: Hyperparameters, key: jax.Array
) -> Algorithm:
    """Build the algorithm without the stages before its server.

    Raises:
        ValueError: if it can't have its settings, or is none.
    """
    part = config.algorithm
    assert part is not None
    if compresses(config) and protocol.compressor is None:
        raise ValueError(
            f"--algorithm {part} compresses: give it --compress NAME, such as top_k or qsgd"
        )
    for name, value in part.settings.items():
        if isinstance(value, tuple) and len(value) != config.workers:
            raise ValueError(
                f"--algorithm {part}: {name} has {len(value)} values for {config.workers} workers; "
                "valid: one for each, or one for all"
            )
    optimizer = None
    if config.local_optimizer is not None:
        optimizer = config.local_optimizer.build(learning_rate=values.local_lr)
    built = part.build(
        lr=step_size(config, values.lr),
        server_lr=step_size(config, values.lr),
        local_lr=values.local_lr if optimizer is None else None,
        local_optimizer=optimizer,
        rule=protocol.rule,
        compressor=protocol.compressor,
        key=key,
        num_workers=config.workers,
        topology=protocol.topology,
        attack=protocol.gossip_attack or _as_stage(_attacks(protocol, key)),
    )
    try:
        return as_algorithm(built, None, None)
    except TypeError:
        raise ValueError(
            f"--algorithm {part} makes {type(built).__name__}; valid: a medjax.workers.Algorithm, "
            "or an optax transformation"
        ) from None


def compresses(config: Settings) -> bool:
    """Tell if the algorithm compresses by itself."""
    return config.algorithm is not None and "compressor" in config.algorithm.parameters


def draws_signs(protocol: Protocol) -> bool:
    """Tell if the sign of the noisy gradient is drawn in the place of the noise.

    A vote looks at signs alone; but nothing may stand between.
    """
    signs_only = isinstance(protocol.rule, Additive) and protocol.rule.signs_only
    return signs_only and protocol.compressor is None and not protocol.attacks


def worker_stages(
    protocol: Protocol,
    b: Any,
    noise: Noise | None,
    key: jax.Array,
    *,
    signs: bool = False,
    compressing: bool = True,
) -> list[optax.GradientTransformation]:
    """Return the stages from a worker's vector to what the server gets: noise, wire, adversary.

    Args:
        protocol: the stages.
        b: the scale of the noise; None where there is none.
        noise: its distribution.
        key: for all of them.
        signs: whether signs of noisy gradients are drawn in the place of the noise.
        compressing: whether the compressor stands here.
    """
    compressor, stages = protocol.compressor if compressing else None, []
    if b is not None:
        stages.append((medjax.noisy_sign if signs else medjax.perturb)(b, noise, key=key))
    if compressor is not None and protocol.error_feedback:
        stages.append(medjax.error_feedback(compressor, protocol.all_workers, key))
    elif compressor is not None:
        stages.append(medjax.compress(compressor, key))
    return [*stages, *_attacks(protocol, key)]


def _attacks(protocol: Protocol, key: jax.Array) -> list[optax.GradientTransformation]:
    """Return the stages of the attacks on vectors."""
    return [
        medjax.attack(attack, protocol.num_byzantine, jax.random.fold_in(key, i))
        for i, attack in enumerate(protocol.attacks)
    ]


def _as_stage(
    stages: list[optax.GradientTransformation],
) -> optax.GradientTransformation | None:
    return optax.chain(*stages) if stages else None


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
    assert protocol.rule is not None
    first = [] if worker_momentum is None else [worker_momentum]
    stages = worker_stages(protocol, b, noise, key, signs=draws_signs(protocol))
    return optax.chain(
        *first, *stages, *server_stages(protocol.rule, protocol.mixings, key), server
    )

"""From the settings to the stages between gradients and server."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import optax

import medjax
from medjax.attacks import Attack, DataAttack, GossipAttack
from medjax.attacks._attack import as_attack
from medjax.compressors import Compressor
from medjax.compressors._compressor import as_compressor
from medjax.lab.settings import rules
from medjax.lab.settings.config import Settings
from medjax.lab.settings.parts import Chain, Part
from medjax.mixing import Mixing
from medjax.mixing._mixings import as_mixing
from medjax.rules import Rule, ServerGradient, StatefulRule
from medjax.rules._rule import as_rule
from medjax.topologies import Topology, from_graph

FEWEST_CLASSES = 2
"""The number of classes with which all factories are content, before the data are there."""


@dataclass(frozen=True)
class Protocol:
    """The stages between gradients and server.

    Attributes:
        rule: the server's; if it has no memory, with the mixing before it. None for an algorithm
            that has its own.
        num_workers: the number that send something at each step.
        num_byzantine: the number of them, the last, that send what the attack makes.
        attacks: theirs on the vectors, one after the other.
        data_attacks: theirs on their data, before the training.
        compressor: the workers'; None if they send all.
        error_feedback: whether they keep what was not sent.
        all_workers: the number that there are, be they asked at this step or not.
        mixings: stages before a rule with a memory.
        gossip_attack: an attack on what neighbours tell one another.
        topology: who they are, where there is no server.
    """

    rule: Rule | StatefulRule | None
    num_workers: int
    num_byzantine: int = 0
    attacks: tuple[Attack, ...] = ()
    data_attacks: tuple[DataAttack, ...] = ()
    compressor: Compressor | None = None
    error_feedback: bool = False
    all_workers: int = 0
    mixings: tuple[Mixing, ...] = ()
    gossip_attack: GossipAttack | None = None
    topology: Topology | None = None


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
    rule, stages = None, ()
    trusts = config.rule is not None and "server_gradient" in config.rule.parameters
    if trusts and config.algorithm is not None:
        raise ValueError(f"--rule {config.rule} goes only with gradients, without --algorithm")
    if config.rule is not None:
        rule, stages = build_rule(config.rule, mixings, known, asked)
    elif mixings:
        raise ValueError(
            f"--mix {config.mix} stands before a rule, and --algorithm {config.algorithm} has none"
        )
    if isinstance(rule, StatefulRule) and rule.knows_workers and asked < n:
        raise ValueError(f"--rule {config.rule} remembers the workers: all must take part")
    _check_weights(config)
    attacks = _attacks(config, rule, known, asked) if config.attack is not None else []
    topology = _topology(config)
    algorithm, on_data = config.algorithm, all(isinstance(x, DataAttack) for x in attacks)
    if topology is not None and algorithm is not None and not on_data:
        _check_takes_attacks(algorithm, config.attack)
    return Protocol(
        rule,
        asked,
        byzantine,
        tuple(attack for attack in attacks if isinstance(attack, Attack)),
        tuple(attack for attack in attacks if isinstance(attack, DataAttack)),
        _compressor(config),
        config.error_feedback == "yes",
        n,
        stages,
        next((attack for attack in attacks if isinstance(attack, GossipAttack)), None),
        topology,
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
    assert config.rule is not None
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
        raise ValueError(f"{reason}: is it a factory that lacks a setting?") from error
    except OverflowError:  # their number and another make one that 32 bits don't hold
        raise ValueError(f"{num_workers} workers are too many to be told apart") from None


def _attacks(
    config: Settings, rule: Rule | StatefulRule | None, known: dict[str, Any], num_workers: int
) -> list[Attack | DataAttack | GossipAttack]:
    """Build the attacks, those of vectors checked against the numbers of workers."""
    built: list[Attack | DataAttack | GossipAttack] = []
    if config.attack is None or not config.byzantine:
        return built
    known = known | {"rule": rule, "num_byzantine": config.byzantine}  # not the declared f
    for part in config.attack.parts:
        if "rule" in part.parameters and not isinstance(rule, Rule):
            name = f"--algorithm {config.algorithm}" if rule is None else rule.name
            raise ValueError(f"--attack {part} is on rules without memory, got {name}")
        made = part.build(**known)
        if isinstance(made, GossipAttack):
            if config.topology is None or len(config.attack.parts) > 1:
                raise ValueError(
                    f"--attack {part} is on what neighbours tell one another: it stands alone, "
                    "with --algorithm d_psgd, gradient_tracking, clipped_gossip"
                )
        elif not isinstance(made, DataAttack):
            made = _adapted(part, as_attack, known)
            check(medjax.attack(made, config.byzantine, 0), num_workers)
        built.append(made)
    return built


def _check_takes_attacks(algorithm: Part, attack: Chain | None) -> None:
    """Check that nodes of such an algorithm may lie to one another.

    Raises:
        ValueError: if not.
    """
    if "attack" not in algorithm.parameters:
        raise ValueError(
            f"--attack {attack} doesn't go with --algorithm {algorithm}; valid: an attack on data, "
            "such as label_flip"
        )


def _topology(config: Settings) -> Topology | None:
    """Build who talks to whom; a function of one's own may make a graph of networkx.

    Raises:
        ValueError: if it isn't a topology of so many workers, or something doesn't go with it.
    """
    if config.topology is None:
        return None
    if config.participation is not None:
        raise ValueError(
            f"--participation {config.participation} is for a server: without one all take part"
        )
    assert config.algorithm is not None
    if config.compress is not None and "compressor" not in config.algorithm.parameters:
        raise ValueError(
            f"--compress {config.compress} doesn't go with --algorithm {config.algorithm}; where "
            "there is no server, choco_sgd compresses"
        )
    built = config.topology.build(num_nodes=config.workers)
    try:
        found = built if isinstance(built, Topology) else from_graph(built)
    except (TypeError, ValueError) as error:
        raise ValueError(f"--topology {config.topology}: {error}") from None
    if found.num_nodes != config.workers:
        raise ValueError(
            f"--topology {config.topology} has {found.num_nodes} nodes, and there are "
            f"{config.workers} workers"
        )
    return found


def _compressor(config: Settings) -> Compressor | None:
    if config.compress is None:
        return None
    if rules.is_vote(config.rule):
        raise ValueError(
            f"--compress {config.compress} can't precede --rule {config.rule}: a vote is one bit "
            "already; valid: a rule of vectors, such as mean"
        )
    return _adapted(config.compress, as_compressor, {})

"""Timed workload: n workers with random images, a fully connected network, one step."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh
from jaxtyping import PyTree

import medjax
from benchmarks.libraries import B
from benchmarks.timing import Prepare, loop
from medjax import rules, sharding
from medjax.lab.models import catalogue as models
from medjax.lab.models.transformer import Transformer
from medjax.lab.settings import parts
from medjax.lab.settings.parts import Part
from medjax.lab.settings.rules import parse
from medjax.lab.task.optimizer import build_optimizer
from medjax.lab.task.protocol import Protocol, build_rule
from medjax.mixing import MIXINGS
from medjax.partition import natural, stack_workers

IMAGE = (28, 28, 1)
CLASSES = 10
HIDDEN = 128
STEP_SIZE = 1e-6
_LAYERS, _CHARACTERS, _WINDOW = 6, 100, 32  # of the transformer
# The steps whose result is compared have to move the parameters by far more than rounding does, or
# any two runs would seem the same.
_COMPARED_STEPS = 3
_COMPARED_STEP_SIZE = 0.01


@dataclass(frozen=True)
class Workload:
    """The workers' data, and the network that they train."""

    data: medjax.WorkerData
    params: PyTree
    objective: Callable[..., medjax.objectives.Losses]

    def loss(self, params: PyTree, images: jax.Array, labels: jax.Array) -> jax.Array:
        """Return the average loss of a batch."""
        return self.objective(params, (images, labels))[0].mean()


def build(n: int, batch_size: int, hidden: int = HIDDEN) -> Workload:
    """Make n workers with a batch each, and a 784-hidden-10 network."""

    @jax.jit
    def draw(key: jax.Array) -> jax.Array:
        # Worker by worker: it takes no more memory than the images.
        keys = jax.random.split(key, n)
        return lax.map(lambda k: jax.random.uniform(k, (batch_size, *IMAGE)), keys)

    images = draw(jax.random.key(0))
    labels = jax.random.randint(jax.random.key(1), (n, batch_size), 0, CLASSES)
    model = models.MLP(num_classes=CLASSES, hidden=hidden)
    return Workload(
        medjax.WorkerData((images, labels), jnp.full((n,), batch_size)),
        jax.jit(model.init)(jax.random.key(2), images[0, :1]),
        medjax.objectives.classification(model.apply),  # pyright: ignore[reportArgumentType]
    )


def build_clients(n: int, batch_size: int, hidden: int = HIDDEN) -> Workload:
    """Make n clients of 1 to 8 batches of examples each, few of them with many."""
    sizes = batch_size * np.maximum(1, 8 * n // (n + 8 * np.arange(n)))
    owners = np.repeat(np.arange(n), sizes)
    rng = np.random.default_rng(0)
    images = rng.random((len(owners), *IMAGE), np.float32)
    labels = rng.integers(0, CLASSES, len(owners))
    data = stack_workers((images, labels), natural()(owners, n, 0))
    small = build(1, batch_size, hidden)
    return Workload(data, small.params, small.objective)


def build_transformer(n: int, batch_size: int, width: int) -> Workload:
    """Make n workers with windows of text each, and a transformer of six layers."""
    model = Transformer(num_classes=_CHARACTERS, width=width, layers=_LAYERS)
    shape = (n, batch_size, _WINDOW)
    windows = jax.random.randint(jax.random.key(0), shape, 0, _CHARACTERS)
    return Workload(
        medjax.WorkerData((windows, windows), jnp.full((n,), batch_size)),
        jax.jit(model.init)(jax.random.key(2), windows[0, :1]),
        medjax.objectives.language_modelling(model.apply),  # pyright: ignore[reportArgumentType]
    )


NETWORKS = {"mlp": build, "clients": build_clients, "transformer": build_transformer}
"""Workloads by name, each of n workers, the batch size and a width."""


def num_params(hidden: int) -> int:
    """Return d, the number of parameters of the 784-hidden-10 network."""
    return (math.prod(IMAGE) + 1 + CLASSES) * hidden + CLASSES


def hidden(num_params: int) -> int:
    """Return the width of a network with about that many parameters."""
    return round((num_params - CLASSES) / (math.prod(IMAGE) + 1 + CLASSES))


def num_byzantine(n: int) -> int:
    """Return f for the rules that take it."""
    return n // 10


def rule_name(text: str) -> str:
    """Parse, for argparse, a rule, perhaps after mixings: `nnm+krum`."""
    _parts(text)
    return text


def rule(rule_name: str, n: int) -> rules.Rule | rules.StatefulRule:
    """Return a rule of n workers by its name, perhaps after mixings.

    Raises:
        ValueError: if the rule can't have so many workers.
    """
    mixings, last = _parts(rule_name)
    known = {"num_byzantine": num_byzantine(n), "num_workers": n}
    return build_rule(last, mixings, known, n)[0]


def is_noisy(rule_name: str) -> bool:
    """Return True if the algorithm of that name adds noise."""
    return _parts(rule_name)[1].noisy


def _parts(text: str) -> tuple[tuple[Part, ...], Part]:
    *mixings, last = parts.links(text)
    return tuple(map(parts.one_of("mixing", MIXINGS), mixings)), parse(last)


def optimizer(
    rule_name: str, n: int, step_size: float | None = None
) -> optax.GradientTransformationExtraArgs:
    """Return the algorithm of a rule; the default step size is STEP_SIZE.

    Raises:
        ValueError: if the rule can't have so many workers.
    """
    protocol = Protocol(rule(rule_name, n), n)
    b = B if is_noisy(rule_name) else None
    server = optax.sgd(STEP_SIZE if step_size is None else step_size)
    return build_optimizer(protocol, server, b, None, jax.random.key(3))


def exact_noisy_sign() -> optax.GradientTransformation:
    """Return noisy signSGD that draws and adds the noise, where medjax draws only the sign."""
    return optax.chain(
        medjax.perturb(B, key=jax.random.key(3)),
        medjax.aggregate(medjax.rules.majority_vote()),
        optax.scale_by_learning_rate(STEP_SIZE),
    )


def simulated(
    work: Workload,
    optimizer: optax.GradientTransformation,
    mesh: Mesh | None = None,
    **options: Any,
) -> Prepare:
    """Prepare whole steps by medjax; with a mesh, the workers are spread over it."""
    simulation = medjax.simulation(work.objective, optimizer, mesh=mesh, **options)
    data = sharding.place_workers(work.data, mesh)
    return loop(simulation.advance, simulation.init(work.params, 0), data)


def difference(work: Workload, rule_name: str, n: int, mesh: Mesh, **options: Any) -> float:
    """Return the largest parameter difference between steps on a mesh and on one device.

    max |x - x'| / max |x' - x_0|, over all coordinates: x on the mesh, x' on one device, x_0 before
    the steps. It is relative to the movement of the parameters, not to their size.
    """
    tx = optimizer(rule_name, n, _COMPARED_STEP_SIZE)

    def after(mesh: Mesh | None) -> PyTree:
        state: Any = simulated(work, tx, mesh, **options)()(_COMPARED_STEPS)
        return jax.device_get(state.params)

    def farthest(a: PyTree, b: PyTree) -> float:
        return max(jax.tree.leaves(jax.tree.map(lambda x, y: float(abs(x - y).max()), a, b)))

    alone = after(None)
    return farthest(after(mesh), alone) / farthest(alone, jax.device_get(work.params))

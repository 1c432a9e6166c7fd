"""The work that is timed: n workers with random images, a fully connected network, one step."""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import PyTree

import medjax
from benchmarks.libraries import B
from benchmarks.timing import Prepare, loop
from experiments import algorithms, models, named

IMAGE = (28, 28, 1)
CLASSES = 10
HIDDEN = 128
STEP_SIZE = 1e-6


@dataclass(frozen=True)
class Workload:
    """The workers' data, and the network that they train."""

    data: medjax.WorkerData
    params: PyTree
    objective: medjax.objectives.Objective

    def loss(self, params: PyTree, images: jax.Array, labels: jax.Array) -> jax.Array:
        """The average loss of a batch."""
        return self.objective(params, (images, labels))[0].mean()


def build(n: int, batch_size: int, hidden: int = HIDDEN) -> Workload:
    """n workers with a batch each, and a 784-hidden-10 network."""

    @jax.jit
    def draw(key: jax.Array) -> jax.Array:
        # Worker by worker, so that no more memory than the images' own is ever taken.
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


def num_params(hidden: int) -> int:
    """d, of the 784-hidden-10 network."""
    return (math.prod(IMAGE) + 1 + CLASSES) * hidden + CLASSES


def hidden(num_params: int) -> int:
    """The width whose network has about so many parameters."""
    return round((num_params - CLASSES) / (math.prod(IMAGE) + 1 + CLASSES))


def num_byzantine(n: int) -> int:
    """f, for the rules that take it."""
    return n // 10


def optimizer(rule_name: str, n: int) -> optax.GradientTransformationExtraArgs:
    """An algorithm by its name, that of the rule, perhaps after mixings: `nnm+krum`.

    Raises:
        ValueError: if the rule can't have so many workers.
    """
    *mixings, rule = named.links(rule_name)
    known = {"num_byzantine": num_byzantine(n), "num_workers": n}
    built, _ = algorithms.build_rule(rule, "+".join(mixings) or None, known, n)
    protocol = algorithms.Protocol(built, n)
    b = B if algorithms.is_noisy(rule) else None
    server = optax.sgd(STEP_SIZE)
    return algorithms.build_optimizer(protocol, server, b, None, jax.random.key(3))


def exact_noisy_sign() -> optax.GradientTransformation:
    """Noisy signSGD with the noise itself drawn and added, where medjax draws only its sign."""
    return optax.chain(
        medjax.perturb(B, None, jax.random.key(3)),
        medjax.aggregate(medjax.rules.majority_vote()),
        optax.scale_by_learning_rate(STEP_SIZE),
    )


def simulated(work: Workload, optimizer: optax.GradientTransformation, **options: Any) -> Prepare:
    """Whole steps by medjax."""
    simulation = medjax.simulation(work.objective, optimizer, **options)
    return loop(simulation.advance, simulation.init(work.params, 0), work.data)

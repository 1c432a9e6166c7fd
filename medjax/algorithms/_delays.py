"""Algorithms whose workers compute at models of the past, and one that is private."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from medjax._engine import checks
from medjax._engine.precision import at_least_float32
from medjax._engine.random import Seed
from medjax._engine.stacked import PyTree
from medjax.algorithms._server import (
    AnyRule,
    LearningRate,
    Received,
    drawing_key,
    memory_of,
    moved_by,
    of_worker,
    one_or_all,
    remembering,
    worker_key,
)
from medjax.workers import Algorithm, Oracle, Procedure, Sent
from medjax.workers._local_steps import LearningRate as LocalRate
from medjax.workers._local_steps import check_local_steps, walk


class Past(NamedTuple):
    """The models that workers may still compute at.

    Attributes:
        step: the number of rounds so far.
        models: the last D models before the current one, the latest first, leaves (D, ...).
    """

    step: Int[Array, ""]
    models: PyTree


def delayed_sgd(
    lr: LearningRate,
    delays: int | Sequence[int],
    *,
    drawn: bool = False,
    rule: AnyRule | None = None,
    key: Seed | None = None,
) -> Algorithm:
    """SGD with gradients of the past: worker i's is of the model τ_i steps ago.

        x_{t+1} = x_t - η mean_i g_i(x_{t - τ_i}).

    Mania et al. (2017) and others. Before the start the model was the initial one. For one worker
    on a quadratic of curvature a it is stable just where η a < 2 sin(π/(2 (2τ + 1))).

    Args:
        lr: η, a number (perhaps traced) or an optax schedule.
        delays: τ of all workers, or those of the n workers.
        drawn: whether a worker's delay is drawn in each step, from 0 to this number.
        rule: in place of the mean.
        key: for drawn delays, and for a rule that draws.

    Raises:
        ValueError: if a delay is negative, or delays are to be drawn and no key is given; while
            tracing, if other than n or one are given.
        TypeError: if a delay isn't a static integer.
    """
    look = _Delays.of(delays, drawn, key, "delayed_sgd")

    def round(oracle: Oracle, past: Past, state: PyTree) -> Sent:
        at, _ = look.back(oracle, past)
        g, model_state = oracle.gradient(at, 0, oracle.model_state)
        return Sent(g, state, model_state)

    server = moved_by(remembering(rule, look.start, look.step, key), lr)
    return Algorithm(Procedure(round), server, memory_of)


def fedbuff(
    local_steps: int,
    local_lr: LocalRate,
    server_lr: LearningRate = 1.0,
    *,
    delays: int | Sequence[int],
    drawn: bool = True,
    rule: AnyRule | None = None,
    key: Seed | None = None,
) -> Algorithm:
    """FedBuff: the server steps when K updates are in its buffer, the older the less they weigh.

        Δ_i = x_{t - τ_i} - y_i after the local steps from there
        x_{t+1} = x_t - η (1/K) Σ_i Δ_i/√(1 + τ_i).

    Nguyen et al. (2022). A step of the run is one of the server: K is `participants` of `simulate`,
    those whose updates fill the buffer. Without delays it is `fedavg`.

    Args:
        local_steps: the number of local steps.
        local_lr: γ, their length.
        server_lr: η.
        delays: the largest τ of all workers, or those of the n workers.
        drawn: whether a worker's delay is drawn in each step, from 0 to this number.
        rule: in place of the mean.
        key: for drawn delays, and for a rule that draws.

    Raises:
        ValueError: if a number is out of range, or delays are to be drawn and no key is given;
            while tracing, if other than n delays or one are given.
        TypeError: if a number isn't a static integer where it must be.
    """
    num_steps = check_local_steps(local_steps, local_lr)
    look = _Delays.of(delays, drawn, key, "fedbuff")

    def round(oracle: Oracle, past: Past, state: PyTree) -> Sent:
        at, delay = look.back(oracle, past)
        found = walk(oracle._replace(params=at), num_steps, local_lr)
        factor = local_lr / jnp.sqrt(1.0 + delay.astype(jnp.float32))
        return Sent(found.scaled(factor, at), state, found.model_state)

    server = moved_by(remembering(rule, look.start, look.step, key), server_lr)
    return Algorithm(Procedure(round), server, memory_of)


def dp_fedavg(
    local_steps: int,
    local_lr: LocalRate,
    server_lr: LearningRate = 1.0,
    *,
    clip: float | Array,
    noise_multiplier: float | Array,
    key: Seed,
) -> Algorithm:
    """DP-FedAvg: each worker's move clipped to a length, and normal noise on their sum.

        Δ_i = (y_i - x) · min(1, c/‖y_i - x‖);  x ← x + η (Σ_i Δ_i + N(0, (σ c)²))/m.

    McMahan et al. (2018), for m workers who take part. A move that isn't finite is sent as 0.
    ε and δ depend on σ, on the share of workers that is drawn in each step (`participants`), and on
    the number of steps.

    Args:
        local_steps: the number of local steps.
        local_lr: γ, their length.
        server_lr: η.
        clip: c > 0; may be traced.
        noise_multiplier: σ ≥ 0; may be traced.
        key: a JAX key or an integer seed, for the noise.

    Raises:
        ValueError: if a number is out of range.
        TypeError: if one isn't a number.
    """
    num_steps = check_local_steps(local_steps, local_lr)
    checks.real("clip", clip, minimum=0.0, exclusive=True)
    checks.real("noise_multiplier", noise_multiplier, minimum=0.0)
    base = drawing_key(key, "dp_fedavg")

    def round(oracle: Oracle, broadcast: PyTree, state: PyTree) -> Sent:
        del broadcast
        found = walk(oracle, num_steps, local_lr)
        length = local_lr * optax.tree.norm(found.sums)
        known = jnp.isfinite(length)
        # Rounding to half precision must not make a move longer than c.
        rounding = max(float(jnp.finfo(x.dtype).eps) / 2 for x in jax.tree.leaves(oracle.params))
        factor = local_lr * jnp.minimum(1.0, clip / (1 + rounding) / jnp.maximum(length, 1e-30))
        found = found._replace(sums=jax.tree.map(lambda s: jnp.where(known, s, 0), found.sums))
        return Sent(
            found.scaled(jnp.where(known, factor, 0), oracle.params), state, found.model_state
        )

    def step(received: Received, count: Int[Array, ""]) -> tuple[PyTree, Int[Array, ""]]:
        leaves, treedef = jax.tree.flatten(received.update)
        keys = jax.random.split(jax.random.fold_in(base, count), len(leaves))
        scale = noise_multiplier * clip / received.present

        def add_noise(x: Array, key: Array) -> Array:
            wide = at_least_float32(x.dtype)
            drawn = scale * jax.random.normal(key, x.shape, wide)
            return (x.astype(wide) + drawn).astype(x.dtype)

        noisy = [add_noise(x, k) for x, k in zip(leaves, keys, strict=True)]
        return jax.tree.unflatten(treedef, noisy), count + 1

    start = jnp.zeros([], jnp.int32)
    server = moved_by(remembering(None, lambda params: start, step), server_lr)
    return Algorithm(Procedure(round), server)


class _Delays(NamedTuple):
    """The workers' delays, and the models of the past that they need.

    Attributes:
        each: the delays, or their upper bounds: one for all workers, or one for each.
        key: for delays that are drawn; None for fixed ones.
    """

    each: tuple[int, ...]
    key: Array | None

    @classmethod
    def of(cls, delays: int | Sequence[int], drawn: bool, key: Seed | None, name: str) -> "_Delays":
        each = one_or_all("delays", delays)
        checked = tuple(checks.integer("delays", delay, minimum=0) for delay in each)
        if drawn and key is None:
            raise ValueError(f"delays are drawn: give {name} a key")
        return cls(checked, None if key is None or not drawn else drawing_key(key, name))

    def back(self, oracle: Oracle, past: Past) -> tuple[PyTree, Int[Array, ""]]:
        """Return the model that a worker computes at, and how old it is."""
        delay = of_worker("delays", self.each, oracle)
        if self.key is not None:
            drawn = worker_key(self.key, past.step, oracle.worker)
            delay = jax.random.randint(drawn, (), 0, delay + 1)

        def choose(x: Array, models: Array) -> Array:
            return jnp.concatenate([x[None], models])[delay]

        return jax.tree.map(choose, oracle.params, past.models), delay

    def start(self, params: PyTree) -> Past:
        """Return the past at the start: the initial model throughout."""

        def copies(x: Array) -> Array:
            x = jnp.asarray(x, jnp.result_type(x))
            return jnp.broadcast_to(x, (max(self.each), *x.shape))

        return Past(jnp.zeros([], jnp.int32), jax.tree.map(copies, params))

    def step(self, received: Received, past: Past) -> tuple[PyTree, Past]:
        """Let the current model become the latest one of the past."""

        def push(models: Array, x: Array) -> Array:
            return jnp.concatenate([x[None], models])[: len(models)]

        models = jax.tree.map(push, past.models, received.params)
        return received.update, Past(past.step + 1, models)

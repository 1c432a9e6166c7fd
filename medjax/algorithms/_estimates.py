"""Algorithms that estimate a gradient by those of one batch at two points, the last and this."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Int

from medjax._engine.random import Seed
from medjax._engine.stacked import PyTree
from medjax.algorithms._bits import compressed
from medjax.algorithms._differences import check_share, compression
from medjax.algorithms._server import (
    AnyRule,
    LearningRate,
    Received,
    drawing_key,
    memory_of,
    moved_by,
    remembering,
    zeros_like,
)
from medjax.compressors import Compressor, PlainCompressor
from medjax.workers import Algorithm, Oracle, Procedure, Sent


class Estimate(NamedTuple):
    """The server's memory.

    Attributes:
        step: the number of rounds so far.
        mean: the aggregate of the round before.
        previous: the parameters of the round before.
    """

    step: Int[Array, ""]
    mean: PyTree
    previous: PyTree


class Coin(NamedTuple):
    """MARINA's broadcast to the workers.

    Attributes:
        estimate: the server's, and the point before, and the number of rounds.
        whole: whether everybody sends its whole gradient.
    """

    estimate: Estimate
    whole: Bool[Array, ""]


def marina(
    lr: LearningRate,
    probability: float | Array,
    compressor: Compressor | PlainCompressor,
    key: Seed,
    *,
    rule: AnyRule | None = None,
) -> Algorithm:
    """MARINA: compressed differences of gradients at two points, now and then whole gradients.

        g_i = g_i(x⁺) with probability p, the same coin for all, else g + Q(g_i(x⁺) - g_i(x))
        g ← mean_i g_i;  x ← x - η g.

    Gorbunov et al. (2021). Both gradients of a difference are of one batch.

    Args:
        lr: η, a number (perhaps traced) or an optax schedule.
        probability: p in (0, 1]; may be traced.
        compressor: Q, unbiased.
        key: a JAX key or an integer seed, for the coin, and a compressor or a rule that draws.
        rule: in place of the mean.

    Raises:
        ValueError: if p is out of range.
        TypeError: if p isn't a number, or the compressor none.
    """
    compress = compression(compressor, key, "marina")
    check_share("probability", probability)
    coins = drawing_key(key, "coin")

    def round(oracle: Oracle, told: Coin, state: PyTree) -> Sent:
        step, mean, previous = told.estimate
        now, model_state = oracle.gradient(oracle.params, 0, oracle.model_state)
        before, _ = oracle.gradient(previous, 0, oracle.model_state)
        change = compress(jax.tree.map(jnp.subtract, now, before), step, oracle.worker)
        sent = jax.tree.map(
            lambda g, m, c: jnp.where(told.whole, g, m + c).astype(g.dtype), now, mean, change
        )
        return Sent(sent, state, model_state)

    def broadcast(state: PyTree) -> Coin:
        memory: Estimate = memory_of(state)
        drawn = jax.random.uniform(jax.random.fold_in(coins, memory.step)) < probability
        return Coin(memory, drawn | (memory.step == 0))

    server = moved_by(remembering(rule, _start_here, _step_from_here, key), lr)
    bits = compressed(compressor, probability)
    return Algorithm(Procedure(round), server, broadcast, bits=bits)


def byz_vr_marina(
    lr: LearningRate,
    probability: float | Array,
    compressor: Compressor | PlainCompressor,
    key: Seed,
    *,
    rule: AnyRule,
) -> Algorithm:
    """Byz-VR-MARINA: `marina` with a robust rule in the place of the mean.

        x ← x - η rule(g_1, ..., g_n), the g_i as in `marina`.

    Gorbunov et al. (2023).

    Args:
        lr: η, a number (perhaps traced) or an optax schedule.
        probability: p in (0, 1]; may be traced.
        compressor: Q, unbiased.
        key: a JAX key or an integer seed, for the coin, and a compressor or a rule that draws.
        rule: the rule, of the workers' g_i.

    Raises:
        ValueError: if p is out of range.
        TypeError: if p isn't a number, or the compressor none.
    """
    return marina(lr, probability, compressor, key, rule=rule)


def storm(
    lr: LearningRate,
    momentum: float | Array,
    *,
    rule: AnyRule | None = None,
    key: Seed | None = None,
) -> Algorithm:
    """STORM at the workers: momentum whose old part is corrected to the new point.

        v_i ← g_i(x⁺) + (1 - a) (v_i - g_i(x)), one batch at both points;  x ← x - η rule(v_i).

    Cutkosky and Orabona (2019); with `rules.majority_vote()` it is SSVR-MV. At first, and where a
    worker didn't take part in the step before, v_i is g_i(x⁺).

    Args:
        lr: η, a number (perhaps traced) or an optax schedule.
        momentum: a in (0, 1]; 1 is SGD.
        rule: in place of the mean.
        key: for a rule that draws.

    Raises:
        ValueError: if a is out of range.
        TypeError: if it isn't a number.
    """
    check_share("momentum", momentum)

    def round(oracle: Oracle, told: Estimate, own: tuple[PyTree, Array]) -> Sent:
        v, last = own
        now, model_state = oracle.gradient(oracle.params, 0, oracle.model_state)
        before, _ = oracle.gradient(told.previous, 0, oracle.model_state)
        kept = jnp.where(last == told.step - 1, 1 - momentum, 0.0)
        correction = jax.tree.map(lambda v, b: kept * (v - b.astype(v.dtype)), v, before)
        v = jax.tree.map(lambda g, v, c: g.astype(v.dtype) + c.astype(v.dtype), now, v, correction)
        return Sent(optax.tree.cast_like(v, now), (v, told.step), model_state)

    def init(params: PyTree) -> tuple[PyTree, Array]:
        return zeros_like(params), jnp.full([], -2, jnp.int32)  # in no step before the first

    server = moved_by(remembering(rule, _start_here, _step_from_here, key), lr)
    return Algorithm(Procedure(round, init), server, memory_of)


def _start_here(params: PyTree) -> Estimate:
    here = jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(x)), params)
    return Estimate(jnp.zeros([], jnp.int32), jax.tree.map(jnp.zeros_like, here), here)


def _step_from_here(received: Received, memory: Estimate) -> tuple[PyTree, Estimate]:
    return received.update, Estimate(memory.step + 1, received.update, received.params)

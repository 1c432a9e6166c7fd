"""Algorithms whose workers send compressed differences from what the server knows already."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from medjax._engine import checks
from medjax._engine.random import Seed
from medjax._engine.stacked import PyTree
from medjax.algorithms._bits import compressed
from medjax.algorithms._server import (
    AnyRule,
    LearningRate,
    Received,
    add,
    drawing_key,
    memory_of,
    moved_by,
    remembering,
    worker_key,
    zeros_like,
)
from medjax.compressors import Compressor, PlainCompressor
from medjax.compressors._compressor import as_compressor
from medjax.workers import Algorithm, Oracle, Procedure, Sent


class Memory(NamedTuple):
    """The memory of a server whose workers send differences.

    Attributes:
        step: the number of rounds so far.
        mean: the mean of what the workers keep.
    """

    step: Int[Array, ""]
    mean: PyTree


def ef21(
    lr: LearningRate,
    compressor: Compressor | PlainCompressor,
    *,
    rule: AnyRule | None = None,
    key: Seed | None = None,
) -> Algorithm:
    """EF21: error feedback by differences.

        v_i ← v_i + C(g_i(x) - v_i);  x ← x - η mean_i v_i.

    Richtárik et al. (2021). The v_i start at 0.

    Args:
        lr: η, a number (perhaps traced) or an optax schedule.
        compressor: C, such as `compressors.top_k(100)`.
        rule: in place of the mean of the differences.
        key: for a compressor or a rule that draws.

    Raises:
        ValueError: if one draws and no key is given.
        TypeError: if it isn't a compressor.
    """
    compress = compression(compressor, key, "ef21")

    def round(oracle: Oracle, step: Int[Array, ""], v: PyTree) -> Sent:
        g, model_state = oracle.gradient(oracle.params, 0, oracle.model_state)
        sent = compress(add(g, v, -1.0), step, oracle.worker)
        return Sent(sent, add(v, sent), model_state)

    def step(received: Received, memory: Memory) -> tuple[PyTree, Memory]:
        mean = add(memory.mean, received.update, received.share)
        return mean, Memory(memory.step + 1, mean)

    server = moved_by(remembering(rule, _nothing_yet, step, key), lr)
    return Algorithm(Procedure(round, zeros_like), server, _step_of, bits=compressed(compressor))


def diana(
    lr: LearningRate,
    compressor: Compressor | PlainCompressor,
    *,
    alpha: float | Array,
    rule: AnyRule | None = None,
    key: Seed | None = None,
) -> Algorithm:
    """DIANA: unbiased compression of what is new in a gradient.

        q_i = Q(g_i(x) - h_i);  x ← x - η (h + mean_i q_i)
        h_i ← h_i + α q_i;  h ← h + α mean_i q_i.

    Mishchenko et al. (2019). All h start at 0.

    Args:
        lr: η, a number (perhaps traced) or an optax schedule.
        compressor: Q, such as `compressors.qsgd(4)`.
        alpha: α in (0, 1], at most 1/(1 + ω) where E‖Q(x) - x‖² ≤ ω ‖x‖²; may be traced.
        rule: in place of the mean of the differences.
        key: for a compressor or a rule that draws.

    Raises:
        ValueError: if α is out of range, or one draws and no key is given.
        TypeError: if α isn't a number, or the compressor none.
    """
    compress = compression(compressor, key, "diana")
    check_share("alpha", alpha)

    def round(oracle: Oracle, step: Int[Array, ""], h: PyTree) -> Sent:
        g, model_state = oracle.gradient(oracle.params, 0, oracle.model_state)
        sent = compress(add(g, h, -1.0), step, oracle.worker)
        return Sent(sent, add(h, sent, alpha), model_state)

    def step(received: Received, memory: Memory) -> tuple[PyTree, Memory]:
        direction = add(memory.mean, received.update)
        mean = add(memory.mean, received.update, alpha * received.share)
        return direction, Memory(memory.step + 1, mean)

    server = moved_by(remembering(rule, _nothing_yet, step, key), lr)
    return Algorithm(Procedure(round, zeros_like), server, _step_of, bits=compressed(compressor))


def dasha(
    lr: LearningRate,
    compressor: Compressor | PlainCompressor,
    *,
    momentum: float | Array,
    rule: AnyRule | None = None,
    key: Seed | None = None,
) -> Algorithm:
    """DASHA: compressed differences with momentum, without rounds in which all is sent.

        m_i = Q(g_i(x) - h_i - a (v_i - h_i));  v_i ← v_i + m_i;  h_i ← g_i(x)
        v ← v + mean_i m_i;  x ← x - η v.

    Tyurin and Richtárik (2023). All start at 0.

    Args:
        lr: η, a number (perhaps traced) or an optax schedule.
        compressor: Q, unbiased.
        momentum: a in (0, 1]; the authors' is 1/(1 + 2ω) where E‖Q(x) - x‖² ≤ ω ‖x‖².
        rule: in place of the mean of the differences.
        key: for a compressor or a rule that draws.

    Raises:
        ValueError: if a is out of range, or one draws and no key is given.
        TypeError: if a isn't a number, or the compressor none.
    """
    compress = compression(compressor, key, "dasha")
    check_share("momentum", momentum)

    def round(oracle: Oracle, step: Int[Array, ""], own: tuple[PyTree, PyTree]) -> Sent:
        h, v = own
        g, model_state = oracle.gradient(oracle.params, 0, oracle.model_state)
        change = jax.tree.map(lambda h, v: h + momentum * (v - h), h, v)
        sent = compress(add(g, change, -1.0), step, oracle.worker)
        return Sent(sent, (optax.tree.cast_like(g, h), add(v, sent)), model_state)

    def step(received: Received, memory: Memory) -> tuple[PyTree, Memory]:
        mean = add(memory.mean, received.update, received.share)
        return mean, Memory(memory.step + 1, mean)

    def init(params: PyTree) -> tuple[PyTree, PyTree]:
        return zeros_like(params), zeros_like(params)

    server = moved_by(remembering(rule, _nothing_yet, step, key), lr)
    return Algorithm(Procedure(round, init), server, _step_of, bits=compressed(compressor))


def check_share(name: str, value: float | Array) -> None:
    """Check that a number is in (0, 1].

    Raises:
        ValueError: if it is out of range.
        TypeError: if it isn't a number.
    """
    checks.real(name, value, minimum=0.0, exclusive=True)
    checks.fraction(name, value)


def _step_of(state: PyTree) -> Int[Array, ""]:
    return memory_of(state).step


def _nothing_yet(params: PyTree) -> Memory:
    return Memory(jnp.zeros([], jnp.int32), zeros_like(params))


def compression(
    compressor: Compressor | PlainCompressor, key: Seed | None, name: str
) -> Callable[[PyTree, Int[Array, ""], Int[Array, ""]], PyTree]:
    """Return the compression of (a vector, the round, the worker), with a key of its own."""
    built = as_compressor(compressor)
    if not built.needs_key:
        return lambda vector, step, worker: built.compress(vector)
    if key is None:
        raise ValueError(f"{built.name} draws random numbers: give {name} a key")
    base = drawing_key(key, name)
    return lambda vector, step, worker: built.compress(vector, worker_key(base, step, worker))

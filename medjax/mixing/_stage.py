"""Mixing as a stage of a chain: n workers' vectors to m combinations of them."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from medjax._engine.lazy import as_lazy
from medjax._engine.random import Seed, stage_key
from medjax._engine.stacked import Stacked
from medjax._engine.vectors import vectors_of
from medjax.mixing._mixings import Mixing, PlainMixing, as_mixing
from medjax.mixing._premixed import mix_vectors
from medjax.rules import AggregateState


def mix(
    mixing: Mixing | PlainMixing, key: Seed | None = None
) -> optax.GradientTransformationExtraArgs:
    """Apply a mixing stage: stacked updates, leaves (n, *shape), to stacked ones, (m, *shape).

    Before a geometric rule, `aggregate(mixing.premixed(rule, ...))` gives the same and is faster.

    Args:
        mixing: a stage of `medjax.mixing`, such as `mixing.nnm(2)`; or any function of the vectors
            (n, d), and a key if it has an argument called `key`, to a matrix (m, n).
        key: a JAX key or an integer seed, for a stage that draws random numbers. A second such
            stage in the same chain needs another key.

    Raises:
        ValueError: if the stage draws random numbers and no key is given.
        TypeError: if `mixing` isn't one (`mixing.arc(1)`, not `mixing.arc`).

    >>> tx = mix(lambda vectors: jnp.array([[0.5, 0.5]]))
    >>> print(tx.update(jnp.array([[1.0], [3.0]]), tx.init(jnp.zeros(1)))[0])
    [[2.]]
    """
    stage = as_mixing(mixing)
    if stage.needs_key and key is None:
        raise ValueError(f"{stage.name} draws random numbers: give mix a key")

    def init(params: optax.Params) -> AggregateState:
        del params
        return AggregateState(jnp.zeros([], jnp.int32), stage_key(0 if key is None else key, "mix"))

    def update(
        updates: Stacked, state: Any, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[Stacked, AggregateState]:
        del params, extra_args
        lazy = as_lazy(updates)
        draw = jax.random.fold_in(state.key, state.step)
        with jax.named_scope(stage.name):
            mixed, matrix = mix_vectors(vectors_of(lazy), (stage,), draw)
            sent = lazy.unflatten(mixed.rows, matrix.shape[0])
        return sent, AggregateState(state.step + 1, state.key)

    return optax.GradientTransformationExtraArgs(init, update)

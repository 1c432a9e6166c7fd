"""Mixing as a stage of a chain: n workers' vectors to m combinations of them."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from medjax._aggregate import AggregateState
from medjax._promised import promise
from medjax._random import Seed, stage_key
from medjax._stacked import Stacked
from medjax._vectors import vectors_of
from medjax.mixing import Mixing
from medjax.rules._premixed import mix_vectors


def mix(mixing: Mixing, key: Seed | None = None) -> optax.GradientTransformationExtraArgs:
    """Apply a mixing stage: stacked updates, leaves (n, *shape), to stacked ones, (m, *shape).

    `aggregate(rules.premixed(rule, mixing))` is the same as this and `aggregate(rule)`, and faster
    for a geometric rule.

    Args:
        mixing: a stage of `medjax.mixing`, such as `mixing.nnm(2)`.
        key: a JAX key or an integer seed, for a stage that draws random numbers; a second one in
            the same chain needs another.

    Raises:
        ValueError: if the stage draws random numbers and no key is given.
        TypeError: if `mixing` isn't one (`mixing.arc(1)`, not `mixing.arc`).
    """
    if not isinstance(mixing, Mixing):
        raise TypeError(f"a mixing must be built, such as medjax.mixing.nnm(1); got {mixing!r}")
    if mixing.needs_key and key is None:
        raise ValueError(f"{mixing.name} draws random numbers: give mix a key")

    def init(params: optax.Params) -> AggregateState:
        del params
        return AggregateState(jnp.zeros([], jnp.int32), stage_key(0 if key is None else key, "mix"))

    def update(
        updates: Stacked, state: Any, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[Stacked, AggregateState]:
        del params, extra_args
        promised = promise(updates)
        given = vectors_of(promised)
        _, matrix = mix_vectors(given, (mixing,), jax.random.fold_in(state.key, state.step))
        mixed = promised.unflatten(given.mixed(matrix).rows, matrix.shape[0])
        return mixed, AggregateState(state.step + 1, state.key)

    return optax.GradientTransformationExtraArgs(init, update)

"""Optimizers that keep their state in float32 for half-precision updates."""

from typing import Any

import jax
import jax.numpy as jnp
import optax


def in_float32(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """Make a transform compute and keep its state in float32 at least, for updates of any dtype.

    optax keeps averages in the parameters' dtype. In bfloat16 they lose every change below 1/256 of
    their value, and with a traced setting they change their dtype, which a loop doesn't allow.
    """

    def widen(tree: Any) -> Any:
        def wide(x: Any) -> jax.Array:
            return jnp.asarray(x, jnp.promote_types(jnp.result_type(x), jnp.float32))

        return jax.tree.map(wide, tree)

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        params = None if params is None else widen(params)
        after, new_state = inner.update(widen(updates), state, params)
        return optax.tree.cast_like(after, updates), optax.tree.cast_like(new_state, state)

    return optax.GradientTransformation(lambda params: inner.init(widen(params)), update)

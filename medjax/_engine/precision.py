"""Optimizers of half-precision numbers that remember in full."""

from typing import Any

import jax
import jax.numpy as jnp
import optax


def in_float32(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """The same transform, computing and remembering in float32 at least, of updates of any dtype.

    optax's own keeps its averages in the parameters' dtype: in bfloat16 they lose what is below a
    256th of them, and with a setting that is traced they leave it, which a loop can't have.
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

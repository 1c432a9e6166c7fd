"""Dtypes to compute in, and optimizers that keep their state in float32 for half precision."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike, DTypeLike


def at_least_float32(dtype: DTypeLike) -> jnp.dtype:
    """Return the dtype, or float32 for numbers of half precision."""
    return common_dtype(dtype, jnp.float32)


def common_dtype(*numbers: ArrayLike | DTypeLike) -> jnp.dtype:
    """Return the dtype that holds all of these, where the user's JAX promotes none implicitly."""
    with jax.numpy_dtype_promotion("standard"):
        return jnp.result_type(*numbers)


@contextlib.contextmanager
def as_optax_promotes() -> Iterator[None]:
    """Let optax's code rely on JAX's usual promotion, whatever the user's setting."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def in_float32(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """Make a transform compute and keep its state in float32 at least, for updates of any dtype.

    optax keeps averages in the parameters' dtype. In bfloat16 they lose every change below 1/256 of
    their value, and with a traced setting they change their dtype, which a loop doesn't allow.
    """

    def widen(tree: Any) -> Any:
        def wide(x: Any) -> jax.Array:
            return jnp.asarray(x, at_least_float32(jnp.result_type(x)))

        return jax.tree.map(wide, tree)

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        params = None if params is None else widen(params)
        with as_optax_promotes():
            after, new_state = inner.update(widen(updates), state, params)
        return optax.tree.cast_like(after, updates), optax.tree.cast_like(new_state, state)

    return optax.GradientTransformation(lambda params: inner.init(widen(params)), update)

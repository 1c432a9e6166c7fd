"""Plain functions in the place of built stages: each sees a worker's leaves as one flat vector."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from medjax._engine.precision import common_dtype
from medjax._engine.stacked import PyTree


def check_function(kind: str, value: object, num_arguments: int, example: str) -> None:
    """Check that a value can stand in for a built stage.

    Args:
        kind: what it is for, such as "rule".
        value: a function of the stage's plain signature.
        num_arguments: how many positional arguments that signature has.
        example: code that builds a stage.

    Raises:
        TypeError: if it isn't a function, takes other arguments, is built for another stage, or is
            a factory of the library that was to be called first (`rules.median` in place of
            `rules.median()`).
    """
    module = getattr(value, "__module__", None) or ""
    is_factory = module.startswith("medjax.") and "<" not in getattr(value, "__qualname__", "<")
    is_built = type(value).__module__.startswith("medjax.")
    if not callable(value) or is_factory or is_built or inspect.isclass(value):
        raise TypeError(
            f"{kind} must be built, such as {example}, or a plain function; got {value!r}"
        )
    if not takes(value, num_arguments):
        count = "1 argument" if num_arguments == 1 else f"{num_arguments} arguments"
        raise TypeError(
            f"{kind} {name_of(value)} must take {count}, it takes {inspect.signature(value)}"
        )


def takes(function: Callable[..., Any], num_arguments: int) -> bool:
    """Tell whether a function takes so many positional arguments, and a `key` if it names one."""
    try:
        signature = inspect.signature(function)
    except ValueError:  # the signature of some compiled functions can't be read
        return True
    key = {"key": None} if "key" in list(signature.parameters)[num_arguments:] else {}
    try:
        signature.bind(*[None] * num_arguments, **key)
    except TypeError:
        return False
    return True


def accepts_key(function: Callable[..., Any]) -> bool:
    """Tell whether a function has an argument called `key`."""
    try:
        return "key" in inspect.signature(function).parameters
    except ValueError:
        return False


def name_of(function: Callable[..., Any]) -> str:
    """Return a function's name, or that of its class."""
    return getattr(function, "__name__", type(function).__name__)


def joined(rows: list[Float[Array, "n _"]]) -> Float[Array, "n d"]:
    """Join flat leaves to one matrix, in the dtype of the widest leaf."""
    dtype = common_dtype(*rows)
    return rows[0] if len(rows) == 1 else jnp.concatenate([x.astype(dtype) for x in rows], axis=1)


def parted(x: Float[Array, "*n d"], like: PyTree) -> list[Float[Array, "*n _"]]:
    """Cut vectors of d coordinates into flat leaves: the inverse of `joined`."""
    sizes = [leaf.size for leaf in jax.tree.leaves(like)]
    return jnp.split(x, np.cumsum(sizes)[:-1], axis=-1)

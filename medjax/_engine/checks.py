"""Checks of settings when something is built. Traced values pass, as their values aren't known."""

import math
import operator
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer


def integer(name: str, value: object, *, minimum: int) -> int:
    """Return `value` as an int, checked to be at least `minimum`.

    Raises:
        TypeError: if it isn't an integer, or is traced: it would change shapes or code.
        ValueError: if it is below the minimum.
    """
    if isinstance(value, Tracer):
        raise TypeError(
            f"{name} changes shapes or code and must be static, got a traced value; "
            f"with optax.inject_hyperparams, name it in static_args"
        )
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        number = operator.index(value)  # pyright: ignore[reportArgumentType]
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None
    if number < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {number}")
    return number


def real(name: str, value: Any, *, minimum: float, exclusive: bool = False, ndim: int = 0) -> None:
    """Check that `value`, unless traced, is finite and at least (or above) the minimum.

    Args:
        name: its name in error messages.
        value: a number or, for ndim = 1, a list of them.
        minimum: the lower bound.
        exclusive: whether the minimum itself is out of range.
        ndim: 0 for a number, 1 for a list.

    Raises:
        TypeError: if it isn't a real number.
        ValueError: if it is NaN, infinite or out of range, or if it has another number of axes,
            which is checked even if it is traced.
    """
    if not isinstance(value, Tracer):
        numbers = np.asarray(value)
        # NumPy's issubdtype doesn't know bfloat16, JAX's does.
        if not any(jnp.issubdtype(numbers.dtype, kind) for kind in (jnp.floating, jnp.integer)):
            raise TypeError(f"{name} must be a real number, got {value!r}")
        numbers = numbers.astype(np.float64)
        in_range = numbers > minimum if exclusive else numbers >= minimum
        if not (np.all(np.isfinite(numbers)) and np.all(in_range)):
            bound = "above" if exclusive else "at least"
            raise ValueError(
                f"{name} must be a finite number {bound} {_short(minimum)}, got {_short(value)}"
            )
    if np.ndim(value) != ndim:
        valid = "one number" if ndim == 0 else "a list of numbers"
        raise ValueError(f"{name} must be {valid}, got shape {np.shape(value)}")


def step_size(name: str, value: Any) -> None:
    """Check that `value`, unless traced or a schedule, is a finite number of at least 0.

    Raises:
        TypeError: if it isn't a real number.
        ValueError: if it is out of range or has axes.
    """
    if not callable(value):
        real(name, value, minimum=0.0)


def fraction(name: str, value: Any, *, below_one: bool = False) -> None:
    """Check that `value`, unless traced, is in [0, 1], or in [0, 1) for `below_one`.

    Raises:
        TypeError: if it isn't a real number.
        ValueError: if it is out of range.
    """
    real(name, value, minimum=0.0)
    # By NumPy: inside a trace JAX's comparisons of known numbers are traced too.
    known = None if isinstance(value, Tracer) else np.asarray(value)
    if known is not None and (known > 1 or (below_one and known == 1)):
        bound = "below" if below_one else "at most"
        raise ValueError(f"{name} must be {bound} 1, got {_short(value)}")


def honest_majority(name: str, num_byzantine: int, num_workers: int) -> None:
    """Check that 2f < n.

    Raises:
        ValueError: if not. The message begins with `name`.
    """
    if 2 * num_byzantine >= num_workers:
        raise ValueError(
            f"{name} needs 2f < n, got f = {num_byzantine} and n = {num_workers} workers"
        )


def option(name: str, value: object, valid: tuple[str, ...]) -> None:
    """Check that `value` is one of the valid names.

    Raises:
        ValueError: if it isn't.
    """
    if not isinstance(value, str) or value not in valid:
        raise ValueError(f"{name} must be one of {', '.join(valid)}; got {value!r}")


def _short(value: object) -> str:
    """Format a value for an error message, without needless digits."""
    return f"{value:g}" if isinstance(value, (int, float)) and math.isfinite(value) else str(value)

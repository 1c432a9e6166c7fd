"""Settings of rules: their text in a name, and those that must be static."""

import jax
from jax.core import Tracer
from jaxtyping import Array, Float

from medjax._engine import checks

Real = float | Float[Array, ""]


def settings_text(**settings: object) -> str:
    """'a=1, b=0.5'; of a JAX array, which may be traced, the name alone, and nothing of None."""

    def text(name: str, value: object) -> str:
        if isinstance(value, jax.Array):
            return name
        return f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"

    return ", ".join(text(k, v) for k, v in settings.items() if v is not None)


def static_real(name: str, value: float) -> float:
    """`value` as a positive number that isn't traced.

    Raises:
        TypeError: if it is traced, or no real number.
        ValueError: if it isn't positive and finite.
    """
    if isinstance(value, Tracer):
        raise TypeError(f"{name} changes shapes or code and must be static, got a traced value")
    checks.real(name, value, minimum=0.0, exclusive=True)
    return float(value)

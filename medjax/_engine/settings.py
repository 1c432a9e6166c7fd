"""Settings of rules: formatting for names, and checks of those that must be static."""

import jax
from jax.core import Tracer
from jaxtyping import Array, Float

from medjax._engine import checks

Real = float | Float[Array, ""]


def settings_text(**settings: object) -> str:
    """Format settings as 'a=1, b=0.5'.

    A JAX array, which may be traced, is given by its name alone. None is left out.
    """

    def text(name: str, value: object) -> str:
        if isinstance(value, jax.Array):
            return name
        return f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"

    return ", ".join(text(k, v) for k, v in settings.items() if v is not None)


def static_real(name: str, value: float) -> float:
    """Return `value` as a float, checked to be positive and not traced.

    Raises:
        TypeError: if it is traced or isn't a real number.
        ValueError: if it isn't positive and finite.
    """
    if isinstance(value, Tracer):
        raise TypeError(f"{name} changes shapes or code and must be static, got a traced value")
    checks.real(name, value, minimum=0.0, exclusive=True)
    return float(value)

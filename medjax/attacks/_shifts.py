"""Attacks along one line: multiples of the mean, or the mean plus multiples of the deviation.

In this module, μ is the mean of the honest vectors and σ their sample standard deviation, both
per coordinate.
"""

from collections.abc import Callable
from statistics import NormalDist

import numpy as np

from medjax._engine import checks
from medjax._engine.kernels.sums import Row
from medjax._engine.random import MaybeKey
from medjax._engine.settings import Real, settings_text
from medjax.attacks._attack import Attack, Byzantine, Honest
from medjax.attacks._statistics import mean, mean_and_std

Line = tuple[Row, Callable[[Real], Row]]
"""μ, and a function from τ to the vector on the line."""


def sign_flip() -> Attack:
    """The negative mean: -μ (Allen-Zhu et al., 2021).

    NaN and ±∞ of honest workers propagate to the forged vectors.

    >>> import jax.numpy as jnp
    >>> print(sign_flip()(jnp.array([[1.0], [3.0], [0.0]]), num_byzantine=1).ravel())
    [ 1.  3. -2.]
    """
    return Attack(
        "sign_flip", lambda honest, byzantine, key: [-m for m in mean(honest)], reads_own=False
    )


def ipm(tau: Real = 2.0) -> Attack:
    """Inner product manipulation: -τμ (Xie et al., 2020, "Fall of empires").

    The aggregate of a misled rule has a negative inner product with the mean. NaN and ±∞ of honest
    workers propagate to the forged vectors.

    Args:
        tau: τ >= 0; may be traced.

    Raises:
        TypeError: if τ isn't a real number.
        ValueError: if it is negative or not finite.

    >>> import jax.numpy as jnp
    >>> print(ipm(3.0)(jnp.array([[1.0], [3.0], [0.0]]), num_byzantine=1).ravel())
    [ 1.  3. -6.]
    """
    checks.real("tau", tau, minimum=0.0)
    name = f"ipm({settings_text(tau=tau)})"
    return Attack(
        name, lambda honest, byzantine, key: along_mean(name, honest)[1](tau), reads_own=False
    )


def alie(tau: Real | None = 1.5) -> Attack:
    """A little is enough: μ + τσ (Baruch et al., 2019).

    NaN and ±∞ of honest workers propagate to the forged vectors.

    Args:
        tau: τ, of either sign; may be traced. None means the paper's
            z_max = Φ⁻¹((n - f - s)/(n - f)), where s = ⌊n/2 + 1⌋ - f is the number of honest
            workers that must side with the attackers for a majority. It is negative if
            s > (n - f)/2: with so few attackers, most honest values must lie beyond theirs.

    Raises:
        TypeError: if τ isn't a real number.
        ValueError: if it isn't finite, or, when traced, if there is only one honest worker, or if
            τ is None and the attackers are more than half of the workers or one of two.

    >>> import jax.numpy as jnp
    >>> print(alie(2.0)(jnp.array([[1.0], [3.0], [5.0], [0.0]]), num_byzantine=1).ravel())
    [1. 3. 5. 7.]
    """
    if tau is not None:
        checks.real("tau", tau, minimum=-np.inf)
    name = f"alie({'tau=None' if tau is None else settings_text(tau=tau)})"

    def forge(honest: Honest, byzantine: Byzantine, key: MaybeKey) -> Row:
        del key
        z = _z_max(name, len(honest[0]), len(byzantine[0])) if tau is None else tau
        return along_std(name, honest)[1](z)

    return Attack(name, forge, reads_own=False)


def along_mean(name: str, honest: Honest) -> Line:
    """Return the line -τμ."""
    del name
    center = mean(honest)
    return center, lambda tau: [-tau * m for m in center]


def along_std(name: str, honest: Honest) -> Line:
    """Return the line μ + τσ.

    Raises:
        ValueError: if there is only one honest worker. The message names the attack, `name`.
    """
    center, std = mean_and_std(name, honest)
    return center, lambda tau: [m + tau * s for m, s in zip(center, std, strict=True)]


def _z_max(name: str, num_honest: int, num_byzantine: int) -> float:
    """Return z_max of Baruch et al. (2019), the largest τ that goes unnoticed."""
    n = num_honest + num_byzantine
    supporters = n // 2 + 1 - num_byzantine
    if supporters < 1:
        raise ValueError(f"{name} needs 2f <= n, got f = {num_byzantine} and n = {n} workers")
    if n < 3:
        raise ValueError(f"{name} needs n >= 3, got f = {num_byzantine} and n = {n} workers")
    share = (num_honest - supporters) / num_honest
    return NormalDist().inv_cdf(share)

"""Attacks that need no statistics: copies, noise, non-finite values, and scaled-up vectors."""

import math
from typing import Literal

import jax
import jax.numpy as jnp

from medjax._engine import checks
from medjax._engine.kernels.sums import Row
from medjax._engine.random import MaybeKey, worker_keys
from medjax._engine.settings import Real, settings_text
from medjax.attacks._attack import Attack, Byzantine, Honest, Sent
from medjax.noise import normal


def mimic(worker: int = 0) -> Attack:
    """Copies of one honest worker's vector, which is then over-represented.

        x_worker.

    The attack is from Karimireddy et al. (2022), who also choose the worker: theirs is the one
    whose vectors have the largest component in the direction in which the honest vectors vary most.
    NaN and ±∞ are copied too.

    Args:
        worker: the index of the worker among the honest ones, in their order, from 0.

    Raises:
        TypeError: if it isn't a static integer.
        ValueError: if it is negative, or, when traced, if there aren't so many honest workers.

    >>> print(mimic(1)(jnp.array([[1.0], [3.0], [0.0]]), num_byzantine=1).ravel())
    [1. 3. 3.]
    """
    worker = checks.integer("worker", worker, minimum=0)
    name = f"mimic(worker={worker})"

    def forge(honest: Honest, byzantine: Byzantine, key: MaybeKey) -> Row:
        del byzantine, key
        h = honest[0].shape[0]
        if worker >= h:
            raise ValueError(f"{name} needs honest worker {worker}, got only {h} honest workers")
        return [x[worker] for x in honest]

    return Attack(name, forge, reads_own=False)


def gaussian(scale: Real = 200.0) -> Attack:
    """Pure noise: each coordinate of each Byzantine vector is normal with mean 0.

        N(0, scale²).

    The attack is from Blanchard et al. (2017).

    Args:
        scale: the standard deviation, 200 in the paper; may be traced.

    Raises:
        TypeError: if it isn't a real number.
        ValueError: if it is negative or not finite.
    """
    checks.real("scale", scale, minimum=0.0)
    distribution = normal()

    def forge(honest: Honest, byzantine: Byzantine, key: MaybeKey) -> Sent:
        del honest
        assert key is not None

        def draw(leaf: int) -> jax.Array:
            f, size = byzantine[leaf].shape
            keys = worker_keys(jax.random.fold_in(key, leaf), f)
            return jax.vmap(lambda k: distribution.sample(k, (size,), byzantine[leaf].dtype))(keys)

        return [scale * draw(leaf) for leaf in range(len(byzantine))]

    return Attack(f"gaussian({settings_text(scale=scale)})", forge, needs_key=True, reads_own=False)


def nonfinite(value: Literal["nan", "inf", "-inf"] = "nan") -> Attack:
    """NaN, ∞ or -∞ in every coordinate, which a robust rule must survive.

    A Byzantine worker may send anything (Lamport et al., 1982), including these values.

    Args:
        value: which of the three to send.

    Raises:
        ValueError: if it isn't one of them.
    """
    checks.option("value", value, ("nan", "inf", "-inf"))
    number = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}[value]
    return Attack(
        f"nonfinite(value={value})",
        lambda honest, byzantine, key: [jnp.full(x.shape[1:], number, x.dtype) for x in honest],
        reads_own=False,
    )


def model_replacement(scale: Real | None = None) -> Attack:
    """The Byzantine workers' own vectors, scaled up to replace the mean (Bagdasaryan et al., 2018).

        γ x_i, γ = n/f.

    This is how a `backdoor` in their data gets past an average: they send γ times the vector that
    they would have sent. The paper's single attacker takes γ = n/η for a server with learning rate
    η. Here f attackers share the work: with the default γ = n/f, the mean of all n workers' vectors
    is the mean of theirs plus 1/n times the sum of the honest ones.

    Args:
        scale: γ; may be traced. None means n/f.

    Raises:
        TypeError: if γ isn't a real number.
        ValueError: if it is negative or not finite.

    >>> print(model_replacement()(jnp.array([[1.0], [-1.0], [5.0]]), num_byzantine=1).ravel())
    [ 1. -1. 15.]
    """
    if scale is not None:
        checks.real("scale", scale, minimum=0.0)

    def forge(honest: Honest, byzantine: Byzantine, key: MaybeKey) -> Sent:
        del key
        h, f = honest[0].shape[0], byzantine[0].shape[0]
        gamma = (h + f) / f if scale is None else scale
        return [gamma * x for x in byzantine]

    return Attack(f"model_replacement({settings_text(scale=scale)})", forge)

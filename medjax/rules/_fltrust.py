"""FLTrust: weights by the cosine with a gradient of the server's own."""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from medjax._engine.gram import dot
from medjax._engine.lazy import as_lazy
from medjax._engine.plain import check_function
from medjax._engine.precision import at_least_float32
from medjax._engine.stacked import Stacked, Updates
from medjax._engine.vectors import Vectors, vectors_of
from medjax.rules._rule import StatefulRule

ServerGradient: TypeAlias = Callable[[Updates], Updates]
"""The parameters to the gradient of the server's own data there, in the parameters' shapes."""


def fltrust(server_gradient: ServerGradient) -> StatefulRule:
    """The mean of the vectors by their trust, each scaled to the server's own (Cao et al., 2021).

        Σ_i t_i (‖g_0‖/‖x_i‖) x_i / Σ_i t_i, t_i = max(0, cos(x_i, g_0)), g_0 = the server's own.

    The rule is from "FLTrust: Byzantine-robust federated learning via trust bootstrapping". The
    server has a few clean examples of its own and computes g_0 on them, at the same parameters as
    the workers do. The paper draws 100 examples uniformly from all training data. The result is 0
    if no vector is trusted, and never longer than g_0. It is no memory that the rule needs, but
    the parameters; hence it is a `StatefulRule`, whose state is empty.

    A zero vector, or one with NaN or ±∞, has trust 0. So has every vector if g_0 is such a one.

    Args:
        server_gradient: the parameters to g_0. `medjax.objectives.gradient_on` makes it from an
            objective and a batch.

    Returns:
        A rule whose update must be given the parameters.

    Raises:
        TypeError: if `server_gradient` isn't a function of one argument.
        ValueError: when called, if no parameters are given, or if g_0 doesn't have the shapes of
            the aggregate.

    >>> rule = fltrust(lambda params: jnp.array([2.0, 0.0]))
    >>> x, start = jnp.array([[1.0, 1.0], [9.0, -9.0], [-5.0, 0.0]]), jnp.zeros(2)
    >>> print(rule.update(x, rule.init(start), start)[0].round(3))
    [1.414 0.   ]
    """
    check_function(
        "server_gradient", server_gradient, 1, "objectives.gradient_on(objective, batch)"
    )

    def update(updates: Stacked, state: object, params: Updates | None) -> tuple[Updates, object]:
        if params is None:
            raise ValueError("fltrust needs the parameters: give them to update")
        lazy = as_lazy(updates)
        own = server_gradient(params)
        shapes = [jax.tree.map(jnp.shape, x) for x in (own, lazy.like)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"server_gradient must return shapes {shapes[1]}, got {shapes[0]}")
        vectors = vectors_of(lazy)
        flat = [jnp.asarray(x).reshape(-1) for x in jax.tree.leaves(own)]
        server = [x.astype(at_least_float32(x.dtype)) for x in flat]
        return lazy.unflatten(vectors.weighted_sum(_weights(vectors, server))), state

    return StatefulRule("fltrust", lambda params: optax.EmptyState(), update)


def _weights(vectors: Vectors, server: list[Float[Array, " _"]]) -> Float[Array, " n"]:
    """Return the weights of the vectors, given the leaves of the server's own."""
    length = jnp.sqrt(jnp.asarray(sum(dot(g, g) for g in server)))
    norms = vectors.norms
    usable = vectors.finite & (norms > 0) & jnp.isfinite(length) & (length > 0)
    products = jnp.zeros(len(norms), vectors.dtype)
    for x, g in zip(vectors.rows, server, strict=True):
        # With a unit vector: the product of two long ones would overflow.
        products += dot(x, (g / length).astype(x.dtype)).astype(products.dtype)
    cosines = products / jnp.where(usable, norms, 1)
    trust = jnp.where(usable & (cosines > 0), jnp.minimum(cosines, 1), 0)
    total = trust.sum()
    shares = trust / jnp.where(total > 0, total, 1)
    lengths = length.astype(shares.dtype) / jnp.where(usable, norms, 1)
    return jnp.where(trust > 0, shares * lengths, 0)

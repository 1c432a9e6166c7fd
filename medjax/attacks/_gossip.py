"""Attacks on gossip: a Byzantine node may tell each of its neighbours something else."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import jax.numpy as jnp
from jaxtyping import Array, Float

from medjax._engine import checks
from medjax._engine.gram import dot
from medjax._engine.settings import Real, settings_text
from medjax.attacks._attack import Honest

Lies: TypeAlias = Callable[
    [Honest, Float[Array, "h h"], Float[Array, " h"]], list[Float[Array, "h _"]]
]
"""(vectors, W, shares) to lies: see `GossipAttack`."""


@dataclass(frozen=True)
class GossipAttack:
    """An attack by the last f nodes of a graph, for `attack=` of the gossip algorithms.

    Attributes:
        name: the attack with its settings.
        num_byzantine: f.
        lies: (the h honest nodes' vectors in parts, a matrix (h, _) for each leaf, in float32 at
            least; W between them (h, h), with zeros on its diagonal; (h,), each one's weight for
            all its Byzantine neighbours together) to what each hears from these, in the same parts.
            A node without such neighbours hears nothing.
    """

    name: str
    num_byzantine: int
    lies: Lies


def dissensus(num_byzantine: int, epsilon: Real = 1.0) -> GossipAttack:
    """Dissensus: honest node i hears what undoes what it hears from its honest neighbours.

        x_i - ε · Σ_{k honest} W_ik (x_k - x_i) / Σ_{j Byzantine} W_ij  from each Byzantine j.

    He, Karimireddy and Jaggi (2022). With ε = 1 plain gossip leaves all honest nodes that have a
    Byzantine neighbour where they are; with more it drives them apart.

    Args:
        num_byzantine: f, the number of Byzantine nodes: the last f.
        epsilon: ε ≥ 0; may be traced.

    Raises:
        ValueError: if a number is out of range.
        TypeError: if f isn't a static integer, or ε isn't a number.
    """
    f = checks.integer("num_byzantine", num_byzantine, minimum=0)
    checks.real("epsilon", epsilon, minimum=0.0)

    def lies(
        honest: Honest, weights: Float[Array, "h h"], byzantine: Float[Array, " h"]
    ) -> list[Array]:
        share = epsilon / jnp.where(byzantine > 0, byzantine, 1)

        def lie(x: Array) -> Array:
            w = weights.astype(x.dtype)
            pulled = dot(w, x) - w.sum(axis=1)[:, None] * x
            return x - share.astype(x.dtype)[:, None] * pulled

        return [lie(x) for x in honest]

    return GossipAttack(f"dissensus({settings_text(num_byzantine=f, epsilon=epsilon)})", f, lies)

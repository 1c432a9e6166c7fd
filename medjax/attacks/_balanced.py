"""An attack that reverses the mean and keeps its statistics of signs."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from medjax._engine.gram import dot
from medjax._engine.kernels.sums import Row
from medjax._engine.lazy import as_lazy
from medjax._engine.plain import joined, parted
from medjax._engine.random import MaybeKey
from medjax._engine.vectors import vectors_of
from medjax.attacks._attack import Attack, Byzantine, Honest
from medjax.attacks._statistics import mean
from medjax.rules._selection import middle

_TINY = 1e-3  # of the root mean square of μ: enough to have a sign


def balanced_flip() -> Attack:
    """The reversed mean, with as many positive and negative numbers as honest vectors have.

        s_k = -μ_k where the sign is to be that of -μ_k, elsewhere a tiny number of the other sign;
        scaled to the median honest length.

    It is made against `rules.signguard` (Xu et al., 2022), which looks at nothing but lengths and
    the shares of positive, negative and zero numbers. The attack is our own: of all vectors with
    given shares, those of the honest vectors on average, and a given length, it is about the one
    with the least inner product with μ. The coordinates are ranked by μ, ties by the lowest index:
    the least are to be positive, the greatest negative, and those between them 0. The f workers
    send the same, so that their triples of shares are the same too, in the midst of the honest
    ones' at whatever coordinates the rule draws.

    NaN and ±∞ of honest workers propagate to the forged vectors. If μ = 0, so are these.

    >>> x = jnp.array([[1.0, 2.0, -3.0, 1.0], [1.0, 2.0, -3.0, -1.0], [0.0, 0.0, 0.0, 0.0]])
    >>> print(balanced_flip()(x, num_byzantine=1)[2].round(2))
    [-1.04 -2.07  3.11  0.  ]
    """

    def forge(honest: Honest, byzantine: Byzantine, key: MaybeKey) -> Row:
        del byzantine, key
        size = sum(x.shape[1] for x in honest)
        center = joined([m[None] for m in mean(honest)])[0]
        sign = _signs(center, _average(honest, 1), _average(honest, -1))
        tiny = _TINY * jnp.sqrt(dot(center, center) / max(size, 1))
        flipped = sign * jnp.maximum(-center * sign, tiny)
        length = middle(vectors_of(as_lazy(honest)).norms)
        norm = jnp.sqrt(dot(flipped, flipped))
        sent = flipped * (length / jnp.where(norm == 0, 1, norm))
        like = [jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for x in honest]
        return parted(sent, like)

    return Attack("balanced_flip", forge, reads_own=False)


def _average(honest: Honest, sign: int) -> Int[Array, ""]:
    """Return how many numbers of a vector have this sign, on average and rounded."""
    counts = sum(jnp.sum(jnp.sign(x) == sign, axis=1) for x in honest)
    return jnp.round(jnp.mean(jnp.asarray(counts, jnp.float32))).astype(jnp.int32)


def _signs(
    center: Float[Array, " d"], positive: Int[Array, ""], negative: Int[Array, ""]
) -> Float[Array, " d"]:
    """Return 1 for the `positive` least coordinates, -1 for the `negative` greatest, else 0."""
    d = len(center)
    rank = jnp.zeros(d, jnp.int32).at[jnp.argsort(center)].set(jnp.arange(d, dtype=jnp.int32))
    return jnp.where(rank < positive, 1, jnp.where(rank >= d - negative, -1, 0)).astype(
        center.dtype
    )

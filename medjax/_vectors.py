"""The workers' vectors as the geometric rules and the mixing stages see them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from medjax._kernels.sums import Row, Worker, sum_over_workers
from medjax._promised import Promised
from medjax._shards import Axes, here, over_shards, to_columns, total

Rows = list[Float[Array, "n _"]]
"""The workers' vectors in parts, a matrix for each leaf."""


@dataclass(frozen=True)
class Vectors:
    """n vectors, and how they lie to each other. All leaves together make up a worker's vector.

    A vector that isn't finite, or whose squared norm overflows, counts as infinitely far from
    every other; its inner products are given as 0.

    Attributes:
        make_rows: gives the vectors themselves, in float32 at least; not called unless needed.
        make_gram: gives their inner products, (n, n), with anything in the rows and columns of
            vectors that aren't finite but something non-finite on the diagonal.
    """

    make_rows: Callable[[], Rows]
    make_gram: Callable[[], Float[Array, "n n"]]

    @cached_property
    def rows(self) -> Rows:
        """The vectors, a matrix (n, _) for each leaf."""
        return self.make_rows()

    @cached_property
    def _raw_gram(self) -> Float[Array, "n n"]:
        return self.make_gram()

    @cached_property
    def finite(self) -> Bool[Array, " n"]:
        """Which vectors are finite."""
        return jnp.isfinite(jnp.diagonal(self._raw_gram))

    @cached_property
    def gram(self) -> Float[Array, "n n"]:
        """⟨x_i, x_j⟩; 0 where one of them isn't finite."""
        return jnp.where(self.finite & self.finite[:, None], self._raw_gram, 0)

    @property
    def num_workers(self) -> int:
        """n."""
        return self._raw_gram.shape[0]

    @cached_property
    def squared_norms(self) -> Float[Array, " n"]:
        """‖x_i‖²; infinite where x_i isn't finite."""
        return jnp.where(self.finite, jnp.diagonal(self.gram), jnp.inf)

    @cached_property
    def squared_distances(self) -> Float[Array, "n n"]:
        """‖x_i - x_j‖², at least 0; infinite where one of two isn't finite, 0 to itself."""
        norms = self.squared_norms
        apart = jnp.where(
            self.finite & self.finite[:, None],
            jnp.maximum(norms + norms[:, None] - 2 * self.gram, 0),
            jnp.inf,
        )
        return jnp.where(jnp.eye(len(norms), dtype=bool), 0, apart)

    def mixed(self, matrix: Float[Array, "m n"]) -> "Vectors":
        """The vectors Σ_j M_ij x_j; those with a part in one that isn't finite aren't either."""

        def gram() -> Array:
            spoilt = jnp.any((matrix != 0) & ~self.finite, axis=1)
            product = dot(dot(matrix, self.gram), matrix.T)
            return jnp.where(jnp.diag(spoilt), jnp.nan, product)

        def rows() -> Rows:
            finite = self.finite[:, None]
            spoilt = jnp.any((matrix != 0) & ~self.finite, axis=1)
            return [
                jnp.where(spoilt[:, None], jnp.nan, dot(matrix, jnp.where(finite, x, 0)))
                for x in self.rows
            ]

        return Vectors(rows, gram)

    def weighted_sum(self, weights: Float[Array, " n"]) -> Row:
        """Σ_i w_i x_i, in which a vector of weight 0 has no part, whatever is in it."""

        def local(rows: Rows, first: int | Array, names: Axes) -> Row:
            own = here(weights, first, rows[0].shape[0])

            def weigh(row: Row, worker: Worker) -> Row:
                w = own[worker.index]
                return [jnp.where(w == 0, 0, w.astype(x.dtype) * x) for x in row]

            zeros = [jnp.zeros(x.shape[1:], x.dtype) for x in rows]
            return total(sum_over_workers(weigh, rows, 0, zeros, paired=True), names)

        return over_shards(local, self.rows, len(weights), "all")


def vectors_of(promised: Promised) -> Vectors:
    """The vectors of stacked updates."""
    leaves = [x.astype(jnp.promote_types(x.dtype, jnp.float32)) for x in promised.rows()]

    n, dtype = promised.num_workers, jnp.result_type(*leaves)

    def local(leaves: Rows, first: int | Array, names: Axes) -> Array:
        # A row of a matrix product with NaN or ∞ in it spoils its own row and column only.
        columns = (to_columns(x, n, names) for x in leaves)
        return total(
            sum((dot(x, x.T).astype(dtype) for x in columns), jnp.zeros((n, n), dtype)), names
        )

    def gram() -> Array:
        return over_shards(local, leaves, n, "all")

    return Vectors(lambda: leaves, gram)


def dot(a: Array, b: Array) -> Array:
    """The matrix product in full precision, on every device."""
    return jnp.dot(a, b, precision=lax.Precision.HIGHEST)

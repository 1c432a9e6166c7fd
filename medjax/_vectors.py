"""The workers' vectors as the geometric rules and the mixing stages see them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from medjax._kernels.sums import Row, Worker, sum_over_workers
from medjax._products import Products, Rows, dot, products, small_unit, squared_distances
from medjax._promised import Promised
from medjax._shards import Axes, here, over_shards, total


@dataclass(frozen=True)
class Vectors:
    """n vectors, and how they lie to each other. All leaves together make up a worker's vector.

    Their differences are exact to rounding, however much they have in common: `gram` is about a
    pivot p in the midst of the majority. It is in a `unit` of its own, 1 but for vectors so long
    that their squares would overflow. A vector whose square does so beside the majority's isn't
    within range: it counts as equally far from all, and farther than any that is; one that isn't
    finite as infinitely far.

    Attributes:
        num_workers: n.
        dtype: that of all that is computed, float32 at least.
        make_rows: gives the vectors themselves; not called unless needed, as the others.
        make_norms: gives ‖x_i‖, infinite where x_i isn't finite.
        make_products: gives their inner products about a pivot.
    """

    num_workers: int
    dtype: jnp.dtype
    make_rows: Callable[[], Rows]
    make_norms: Callable[[], Float[Array, " n"]]
    make_products: Callable[[], Products]

    @cached_property
    def rows(self) -> Rows:
        """The vectors, a matrix (n, _) for each leaf."""
        return self.make_rows()

    @cached_property
    def norms(self) -> Float[Array, " n"]:
        """‖x_i‖, finite for every finite x_i, and infinite for any other."""
        return self.make_norms()

    @cached_property
    def _products(self) -> Products:
        return self.make_products()

    @property
    def finite(self) -> Bool[Array, " n"]:
        """Which vectors are finite."""
        return self._products.finite

    @property
    def unit(self) -> Float[Array, ""]:
        """What a length of 1 is in `gram` and `squared_distances`."""
        return self._products.unit

    @cached_property
    def within_range(self) -> Bool[Array, " n"]:
        """Which vectors are finite, and `gram` tells of them."""
        return jnp.isfinite(jnp.diagonal(self._products.gram)[:-1])

    @cached_property
    def gram(self) -> Float[Array, "m m"]:
        """The inner products of x_1 - p, ..., x_n - p and p; 0 where one isn't within range."""
        known = jnp.append(self.within_range, True)
        return jnp.where(known & known[:, None], self._products.gram, 0)

    @cached_property
    def squared_distances(self) -> Float[Array, "n n"]:
        """‖x_i - x_j‖², at least 0, and 0 to itself. A sum of n of them is infinite if one is."""
        known, finite = self.within_range, self.finite
        far = float(jnp.finfo(self.dtype).max) / (self.num_workers + 1) ** 2
        apart = jnp.where(
            known & known[:, None], squared_distances(self.gram[:-1, :-1]), jnp.asarray(far)
        )
        apart = jnp.where(finite & finite[:, None], apart, jnp.inf)
        return jnp.where(jnp.eye(self.num_workers, dtype=bool), 0, apart)

    def mixed(self, matrix: Float[Array, "m n"]) -> "Vectors":
        """The vectors Σ_j M_ij x_j; those with a part in one that isn't finite aren't either."""

        def spoilt_by(bad: Array) -> Array:
            return jnp.any((matrix != 0) & bad, axis=1)

        # Σ_j M_ij x_j = Σ_j M_ij (x_j - p) + s_i p.
        sums = matrix.sum(axis=1)

        def new_products() -> Products:
            # About s p in their midst, for the middle s of the s_i.
            s = jnp.sort(sums)[(len(sums) - 1) // 2]
            pivot = jnp.zeros(self.num_workers + 1, matrix.dtype).at[-1].set(s)
            basis = jnp.vstack([jnp.column_stack([matrix, sums - s]), pivot])
            lost = jnp.append(spoilt_by(~self.within_range), False)
            gram = jnp.where(jnp.diag(lost), jnp.nan, dot(dot(basis, self.gram), basis.T))
            return Products(gram, ~spoilt_by(~self.finite), self.unit)

        def norms() -> Array:
            basis = jnp.column_stack([matrix, sums])
            squares = jnp.sum(dot(basis, self.gram) * basis, axis=1)
            lengths = _in_unit_1(jnp.sqrt(jnp.maximum(squares, 0)), self.unit)
            lengths = jnp.where(spoilt_by(~self.within_range), jnp.finfo(self.dtype).max, lengths)
            return jnp.where(spoilt_by(~self.finite), jnp.inf, lengths)

        def rows() -> Rows:
            spoilt = spoilt_by(~self.finite)[:, None]
            finite = self.finite[:, None]
            return [
                jnp.where(spoilt, jnp.nan, dot(matrix, jnp.where(finite, x, 0))) for x in self.rows
            ]

        return Vectors(len(matrix), self.dtype, rows, norms, new_products)

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
    return vectors_of_rows(
        [x.astype(jnp.promote_types(x.dtype, jnp.float32)) for x in promised.rows()]
    )


def vectors_of_rows(rows: Rows) -> Vectors:
    """The vectors with these parts, in float32 at least."""
    n, dtype = len(rows[0]), jnp.result_type(*rows)
    return Vectors(
        n,
        dtype,
        lambda: rows,
        lambda: over_shards(lambda x, first, names: _norms(x, dtype), rows, n, "workers"),
        lambda: over_shards(lambda x, first, names: products(x, n, names), rows, n, "all"),
    )


def _norms(rows: Rows, dtype: jnp.dtype) -> Float[Array, " w"]:
    """The lengths of the vectors, infinite for those that aren't finite."""
    least = small_unit(dtype)

    def measure(state: tuple[Array, Array]) -> tuple[Array, Array]:
        unit, norms = state
        squares = (jnp.sum((x * unit.astype(x.dtype)) ** 2, axis=1).astype(dtype) for x in rows)
        found = jnp.sqrt(sum(squares, jnp.zeros_like(norms)))
        found = jnp.where(jnp.isfinite(found), _in_unit_1(found, unit), jnp.inf)
        return unit * least, jnp.where(jnp.isfinite(norms), norms, found)

    # In the small unit only if there are any whose squares overflow.
    start = (jnp.ones([], dtype), jnp.full(len(rows[0]), jnp.inf, dtype))
    return lax.while_loop(
        lambda state: (state[0] >= least) & ~jnp.all(jnp.isfinite(state[1])), measure, start
    )[1]


def _in_unit_1(norms: Float[Array, " n"], unit: Float[Array, ""]) -> Float[Array, " n"]:
    """Lengths as they are, those that overflow being the largest number."""
    return jnp.minimum(norms / unit, jnp.finfo(norms.dtype).max)

"""The workers' vectors as geometric rules and mixings see them, with a centred Gram matrix.

All leaves together make up a worker's vector.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from medjax._engine.gram import Products, Rows, dot, products, small_unit, squared_distances
from medjax._engine.kernels.sums import Row, Worker, sum_over_workers
from medjax._engine.lazy import LazyUpdates
from medjax._engine.mesh import Axes, local_slice, over_shards, total
from medjax._engine.precision import at_least_float32, common_dtype


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Vectors:
    """n vectors, their lengths and their inner products about a pivot p.

    The pivot lies in the midst of the majority, so that differences of the vectors are exact to
    rounding however much they have in common. It is a pytree of arrays. Under jit, XLA drops
    whatever a rule doesn't use.

    Lengths whose squares underflow, below 10^-19 in float32, are 0.

    A vector whose square overflows beside the majority's is out of range: it counts as equally far
    from all others, and farther than any vector within range. A vector that isn't finite counts as
    infinitely far.

    Attributes:
        rows: the vectors, a matrix (n, _) for each leaf, in float32 at least.
        norms: (n,), ‖x_i‖: finite for every finite x_i, infinite for any other.
        gram: (n + 1, n + 1), the inner products of x_1 - p, ..., x_n - p and p, times unit²; 0
            where one of them is out of range.
        finite: (n,), which vectors are finite.
        within_range: (n,), which vectors are finite and have their products in `gram`.
        unit: the length that `gram` and `squared_distances` take for 1: 1, or a power of two below
            it for vectors so long that their squares would overflow.
    """

    rows: list[Float[Array, "n _"]]
    norms: Float[Array, " n"]
    gram: Float[Array, "m m"]
    finite: Bool[Array, " n"]
    within_range: Bool[Array, " n"]
    unit: Float[Array, ""]

    @property
    def num_workers(self) -> int:
        """The number of vectors, n."""
        return self.rows[0].shape[0]

    @property
    def dtype(self) -> jnp.dtype:
        """The precision of everything computed, float32 at least."""
        return self.gram.dtype

    @property
    def squared_distances(self) -> Float[Array, "n n"]:
        """‖x_i - x_j‖² in units, at least 0. A sum of n of them is infinite if one of them is."""
        known, finite, n = self.within_range, self.finite, self.num_workers
        far = float(jnp.finfo(self.dtype).max) / (n + 1) ** 2
        apart = jnp.where(
            known[None] & known[:, None], squared_distances(self.gram[:-1, :-1]), jnp.asarray(far)
        )
        apart = jnp.where(finite[None] & finite[:, None], apart, jnp.inf)
        return jnp.where(jnp.eye(n, dtype=bool), 0, apart)

    def mixed(self, matrix: Float[Array, "m n"]) -> "Vectors":
        """Return the vectors Σ_j M_ij x_j. One with a part in a non-finite vector isn't finite."""

        def spoilt_by(bad: Array) -> Array:
            return jnp.any((matrix != 0) & bad[None], axis=1)

        lost, infinite = spoilt_by(~self.within_range), spoilt_by(~self.finite)
        # Σ_j M_ij x_j = Σ_j M_ij (x_j - p) + s_i p with s_i = Σ_j M_ij. The products of the mixed
        # vectors are taken about s p, for the middle s of the s_i: that is in their midst.
        sums = matrix.sum(axis=1)
        s = jnp.sort(sums)[(len(sums) - 1) // 2]
        pivot = jnp.zeros(self.num_workers + 1, matrix.dtype).at[-1].set(s)
        basis = jnp.vstack([jnp.column_stack([matrix, sums - s]), pivot])
        gram = dot(dot(basis, self.gram), basis.T)
        gram = jnp.where(jnp.diag(jnp.append(lost, False)), jnp.nan, gram)

        from_zero = jnp.column_stack([matrix, sums])
        squares = jnp.sum(dot(from_zero, self.gram) * from_zero, axis=1)
        norms = _in_unit_1(jnp.sqrt(jnp.maximum(squares, 0)), self.unit)
        # About the pivot a short vector's norm is lost to rounding, but not if it is one of these.
        parts = jnp.where(matrix != 0, jnp.abs(matrix) * self.norms[None], 0)
        is_one = jnp.sum(matrix != 0, axis=1) == 1
        is_one &= ~spoilt_by(self.norms >= jnp.finfo(self.dtype).max)  # no more is known of these
        norms = jnp.where(is_one, parts.sum(axis=1), norms)
        norms = jnp.where(lost, jnp.finfo(self.dtype).max, norms)
        norms = jnp.where(infinite, jnp.inf, norms)

        rows = [
            jnp.where(
                infinite[:, None], jnp.nan, dot(matrix, jnp.where(self.finite[:, None], x, 0))
            )
            for x in self.rows
        ]
        return _vectors(rows, norms, Products(gram, ~infinite, self.unit))

    def weighted_sum(self, weights: Float[Array, " n"]) -> Row:
        """Return Σ_i w_i x_i. A vector of weight 0 has no part in it, even if it isn't finite."""

        def local(rows: Rows, first: int | Array, names: Axes) -> Row:
            local_weights = local_slice(weights, first, rows[0].shape[0])

            def weigh(row: Row, worker: Worker) -> Row:
                w = local_weights[worker.index]
                return [jnp.where(w == 0, 0, w.astype(x.dtype) * x) for x in row]

            zeros = [jnp.zeros(x.shape[1:], x.dtype) for x in rows]
            return total(sum_over_workers(weigh, rows, 0, zeros, paired=False), names)

        return over_shards(local, self.rows, len(weights), "all")


def vectors_of(updates: LazyUpdates) -> Vectors:
    """Return the vectors of stacked updates."""
    return vectors_of_rows([x.astype(at_least_float32(x.dtype)) for x in updates.rows()])


def vectors_of_rows(rows: Rows) -> Vectors:
    """Return the vectors with these parts, in float32 at least."""
    n, dtype = len(rows[0]), common_dtype(*rows)
    norms = over_shards(lambda x, first, names: _norms(x, dtype), rows, n, "workers")
    found = over_shards(lambda x, first, names: products(x, n, names), rows, n, "all")
    return _vectors(rows, norms, found)


def _vectors(rows: Rows, norms: Float[Array, " n"], found: Products) -> Vectors:
    within_range = jnp.isfinite(jnp.diagonal(found.gram)[:-1])
    known = jnp.append(within_range, True)
    gram = jnp.where(known[None] & known[:, None], found.gram, 0)
    return Vectors(rows, norms, gram, found.finite, within_range, found.unit)


def _norms(rows: Rows, dtype: jnp.dtype) -> Float[Array, " w"]:
    """Return the lengths of the vectors, infinite for those that aren't finite."""
    least = small_unit(dtype)

    def measure(state: tuple[Array, Array]) -> tuple[Array, Array]:
        unit, norms = state
        squares = (jnp.sum((x * unit.astype(x.dtype)) ** 2, axis=1).astype(dtype) for x in rows)
        found = jnp.sqrt(sum(squares, jnp.zeros_like(norms)))
        found = jnp.where(jnp.isfinite(found), _in_unit_1(found, unit), jnp.inf)
        return unit * least, jnp.where(jnp.isfinite(norms), norms, found)

    # A second pass, in the small unit, only if there are vectors whose squares overflow.
    start = (jnp.ones([], dtype), jnp.full(len(rows[0]), jnp.inf, dtype))
    return lax.while_loop(
        lambda state: (state[0] >= least) & ~jnp.all(jnp.isfinite(state[1])), measure, start
    )[1]


def _in_unit_1(norms: Float[Array, " n"], unit: Float[Array, ""]) -> Float[Array, " n"]:
    """Convert lengths to unit 1; those that overflow become the largest number."""
    return jnp.minimum(norms / unit, jnp.finfo(norms.dtype).max)

"""Inner products of the workers' vectors about a pivot, so that what they have in common cancels.

‖x_i‖² + ‖x_j‖² - 2⟨x_i, x_j⟩ is nothing but rounding error where vectors differ by a thousandth of
their length. About a pivot p in their midst, the x_i - p are no longer than the vectors are apart.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from medjax._engine.mesh import Axes, to_columns, total
from medjax._engine.precision import common_dtype

Rows = list[Float[Array, "n _"]]
"""The workers' vectors in parts, a matrix for each leaf."""

# The coordinates from which the first pivot is chosen. They are few, because sorting is slow on the
# CPU, and a bad choice is corrected.
_SAMPLED_COORDINATES = 64

# The columns that are centred and multiplied at a time on a CPU: 100 rows of float32 stay in a
# cache. With 4,096 to 16,384 columns the product takes 1.5 to 2 times as long as the gradients on
# two cores (JAX 0.10.2; two machines). No faster: its upper triangle alone, by blocks of rows; more
# products in each turn; batches of them; rows cut to a multiple of the vector registers.
_BLOCK_COLUMNS = 4096

# So many numbers, 1 GiB of float32, are centred at a time on an accelerator: mostly all of them. On
# an H100 (JAX 0.11.2, n = 100) a step with Krum took 8.3 times as long as the gradients by blocks
# of 4,096 columns, and 2.5 times by one product.
_NUMBERS_PER_BLOCK = 1 << 28

# A pivot whose median squared distance to the others is more than this many times the smallest one
# isn't in their midst. Rounding about a pivot at the limit costs 6 of float32's 24 bits.
_FAR_RATIO = 64

# The product of a vector with this constant is a sum of its coordinates, so small that it is finite
# if they are. One row more in the product tells which vectors are finite, without another pass.
_TINY = 2.0**-40


class Products(NamedTuple):
    """Gram matrix of n vectors, centred for accuracy.

    Attributes:
        gram: the inner products of x_1 - p, ..., x_n - p and p, times `unit` squared. No sum of a
            few times n² of them overflows. The exceptions are the rows and columns of vectors that
            are too far away or not finite, which are marked by a non-finite diagonal entry.
        finite: mask of the finite vectors.
        unit: a power of two: 1, or less if the squares of half of the vectors would overflow.
    """

    gram: Float[Array, "m m"]
    finite: Bool[Array, " n"]
    unit: Float[Array, ""]


def products(leaves: Rows, num_workers: int, names: Axes) -> Products:
    """Return the products about one of the vectors, in the midst of the majority.

    The first pivot is the vector nearest to the median in a sample of the coordinates. Those may
    hide an outlier: a pivot that turns out not to be in the midst, by the products about it, is
    replaced by the vector that is.

    Args:
        leaves: the vectors of the local workers, in float32 at least.
        num_workers: n.
        names: the mesh axes that the workers are spread over.
    """
    columns = [to_columns(x, num_workers, names) for x in leaves]
    dtype = common_dtype(*columns)
    small = small_unit(dtype)
    limit = _limit(num_workers + 2, dtype)
    limit_in_small = (small * limit**0.5) ** 2

    def try_pivot(state: tuple[Array, ...]) -> tuple[Array, ...]:
        _, pivot, unit, spoilt, _ = state
        gram = total(_gram_about(columns, pivot, unit, dtype), names)
        gram = jnp.where(jnp.diag(jnp.diagonal(gram) > limit), jnp.inf, gram)
        finite = jnp.isfinite(gram[-1, :-2])
        judged = jnp.where(spoilt, finite.sum(), num_workers)
        nearest, is_far, overflows = _judge_pivot(gram[:-1, :-1], judged)
        shrinks = overflows & (unit == 1) & ~spoilt
        # If the squares would have fit but for vectors that aren't finite, which only the small
        # unit tells from long ones, it is unit 1 after all, and the others are judged alone.
        fits = jnp.isfinite(jnp.diagonal(gram)) & (jnp.diagonal(gram) <= limit_in_small)
        grows = (unit < 1) & (2 * finite.sum() <= num_workers) & fits[-2]
        grows &= 2 * jnp.sum(fits[:-2] & finite) > finite.sum()
        unit = jnp.where(shrinks, small, jnp.where(is_far | grows, 1, unit))
        done = ~shrinks & ~is_far & ~grows
        # The loop ends, because a pivot is only ever replaced by one that is nearer to the midst.
        return done, jnp.where(is_far, nearest, pivot), unit, spoilt | grows, gram

    start = (
        jnp.array(False),
        _nearest_to_median(columns, names),
        jnp.ones([], dtype),
        jnp.array(False),
        jnp.zeros((num_workers + 2, num_workers + 2), dtype),
    )
    *_, unit, _, gram = lax.while_loop(lambda state: ~state[0], try_pivot, start)
    return Products(gram[:-1, :-1], jnp.isfinite(gram[-1, :-2]), unit)


def small_unit(dtype: jnp.dtype) -> float:
    """Return a unit in which no square overflows, and none that overflows in unit 1 underflows."""
    return 2.0 ** -int(0.7 * float(jnp.finfo(dtype).maxexp))


def squared_distances(gram: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """Return ‖x_i - x_j‖², at least 0, from the inner products about any point."""
    squares = jnp.diagonal(gram)
    return jnp.maximum(squares[None] + squares[:, None] - 2 * gram, 0)


def dot(a: Array, b: Array) -> Array:
    """Return the matrix product in full precision on every device."""
    # By default TPUs and recent GPUs round float32 factors to bfloat16 or TF32. That would make a
    # step with Krum 30% faster on an H100. About a pivot TF32 leaves squared distances with three
    # digits, two where vectors are far nearer to each other than to it, and five at best; float32
    # leaves six (TF32 emulated in NumPy, n = 10, d = 100,000).
    return jnp.dot(a, b, precision=lax.Precision.HIGHEST)


def _nearest_to_median(columns: Rows, names: Axes) -> Int[Array, ""]:
    """Return the index of the vector nearest to the coordinate-wise median, in a sample."""
    step = -(-sum(x.shape[1] for x in columns) // _SAMPLED_COORDINATES) or 1
    dtype = common_dtype(*columns)
    sample = jnp.concatenate([x[:, ::step].astype(dtype) for x in columns], axis=1)
    # NaN is sorted to the end, as +∞ is.
    median = jnp.sort(sample, axis=0)[(len(sample) - 1) // 2]
    distances = total(jnp.sum(jnp.abs(sample - median[None]), axis=1), names)
    return jnp.argmin(jnp.where(jnp.isnan(distances), jnp.inf, distances))


def _gram_about(
    columns: Rows, pivot: Int[Array, ""], unit: Float[Array, ""], dtype: jnp.dtype
) -> Float[Array, "m m"]:
    """Return the products of x_1 - p, ..., x_n - p, p and a tiny constant, at local coordinates."""
    n = columns[0].shape[0]

    def finite_pivot(x: Array) -> Array:
        # NaN or ∞ in the pivot would spoil every row.
        return jnp.where(jnp.isfinite(x[pivot]), x[pivot], 0)

    def centred(x: Array, p: Array) -> Array:
        # NaN or ∞ in a vector spoils only its own row and column of the product.
        x, p = x * unit.astype(x.dtype), p * unit.astype(x.dtype)
        return jnp.concatenate([x - p[None], p[None], jnp.full((1, len(p)), _TINY, x.dtype)])

    def gram_of(*blocks: Array) -> Array:
        block = blocks[0]
        if len(blocks) > 1:
            block = jnp.concatenate([x.astype(dtype) for x in blocks], axis=1)
        return dot(block, block.T).astype(dtype)

    def in_blocks(x: Array, width: int) -> Array:
        p, blocks = finite_pivot(x), x.shape[1] // width

        def add(k: Array, gram: Array) -> Array:
            part = (lax.dynamic_slice_in_dim(y, k * width, width, -1) for y in (x, p))
            return gram + gram_of(centred(*part))

        gram = jnp.zeros((n + 2, n + 2), dtype)
        gram = lax.fori_loop(0, blocks, add, gram) if blocks else gram
        rest = blocks * width
        if rest < x.shape[1]:
            gram += gram_of(centred(x[:, rest:], p[rest:]))
        return gram

    def on_cpu(columns: Rows) -> Array:
        return sum((in_blocks(x, _BLOCK_COLUMNS) for x in columns), no_gram)

    def on_accelerator(columns: Rows) -> Array:
        if n * sum(x.shape[1] for x in columns) <= _NUMBERS_PER_BLOCK:
            return gram_of(*(centred(x, finite_pivot(x)) for x in columns))
        width = max(_BLOCK_COLUMNS, _NUMBERS_PER_BLOCK // n)
        return sum((in_blocks(x, width) for x in columns), no_gram)

    no_gram = jnp.zeros((n + 2, n + 2), dtype)
    return lax.platform_dependent(columns, cpu=on_cpu, default=on_accelerator)


def _limit(num_rows: int, dtype: jnp.dtype) -> float:
    """Return the largest square with which sums of a few times m² products don't overflow."""
    return float(jnp.finfo(dtype).max) / (8 * num_rows**2)


def _judge_pivot(
    gram: Float[Array, "m m"], count: int | Int[Array, ""]
) -> tuple[Int[Array, ""], Bool[Array, ""], Bool[Array, ""]]:
    """Return the index of the vector in the midst, and whether the pivot is far or overflows.

    The vector in the midst is the one with the smallest median distance to the others. The pivot
    overflows if its own square or that of the vectors' median distance to it isn't finite. Medians
    are of the nearest `count`.
    """
    squares, rank = jnp.diagonal(gram), count // 2
    distances = squared_distances(gram[:-1, :-1])
    medians = jnp.sort(jnp.where(jnp.isfinite(distances), distances, jnp.inf), axis=1)[:, rank]
    of_pivot = jnp.sort(squares[:-1])[rank]
    nearest = jnp.argmin(medians)
    fits = jnp.isfinite(of_pivot) & jnp.isfinite(squares[-1])
    return nearest, fits & (of_pivot > _FAR_RATIO * medians[nearest]), ~fits

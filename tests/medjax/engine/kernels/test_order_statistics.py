"""Order statistics by each design: a network, passes on a CPU and an accelerator, registers."""

from collections.abc import Callable, Iterator
from functools import partial

import jax
import numpy as np
import pytest

from medjax._engine.kernels import bisection, columns, hopper, network, radix
from medjax._engine.kernels import order_statistics as kernel
from medjax._engine.kernels.ordered import from_ordered_integers, to_ordered_integers

pytestmark = pytest.mark.optimized

# Small sizes, both sides of a power of two, and the largest.
NETWORK_SIZES = (1, 2, 3, 8, 11, columns.NETWORK_MAX_ROWS)
# Fewer rows than a turn has, and two turns and a rest.
BISECTION_SIZES = (1, 11, 129)
# Both sides of where a counter takes more bits.
RADIX_SIZES = (1, 4, 11, 255, 256, 1023, 1024)
UINT = {np.float32: np.uint32, np.float64: np.uint64}
SELECT = {
    "bisection": bisection.select,
    "radix": partial(radix.select, unroll=False),
    "unrolled radix": partial(radix.select, unroll=True),
}


@pytest.fixture
def x64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def in_registers(x, *vectors, of_rows, of_matrix, settings):
    """The body of the kernel for Hopper, interpreted."""
    return hopper.by_columns(partial(of_rows, **dict(settings)), x, *vectors, interpret=True)


@pytest.fixture(params=["network", "blocks", "passes", "registers"])
def design(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each design in turn, instead of the one that a CPU takes."""
    if request.param == "passes":
        request.getfixturevalue("accelerated")
        return request.param
    designs = {"network": columns.unrolled, "blocks": columns.in_blocks, "registers": in_registers}
    monkeypatch.setattr(columns, "design_for_cpu", lambda num_rows: designs[request.param])
    jax.clear_caches()
    return request.param


def awkward(n: int, dtype: type = np.float32) -> np.ndarray:
    """Columns of plain numbers, ties, special values, and any 32 or 64 bits read as a float."""
    rng, info = np.random.default_rng(n), np.finfo(dtype)
    subnormal = info.smallest_subnormal
    specials = [np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, subnormal, -subnormal]
    specials += [2 * subnormal, info.tiny, -info.tiny, info.max, -info.max, 1.0, -1.0]
    bits = rng.integers(0, 2 ** (8 * info.dtype.itemsize), (n, 8), UINT[dtype], endpoint=False)
    return np.concatenate(
        [
            rng.normal(size=(n, 6)).astype(dtype),
            rng.integers(-1, 2, (n, 6)).astype(dtype),
            np.full((n, 1), 0.1, dtype),
            np.array(specials, dtype)[rng.integers(0, len(specials), (n, 16))],
            bits.view(dtype),
        ],
        axis=1,
    )


def sorted_columns(x: np.ndarray) -> np.ndarray:
    """Each column in order, NaN as +∞ and -0 before +0: by value, then by the sign bit."""
    x = np.where(np.isnan(x), np.inf, x).astype(x.dtype)
    return np.take_along_axis(x, np.lexsort((~np.signbit(x), x), axis=0), axis=0)


def assert_same_bits(actual: jax.Array, expected: np.ndarray) -> None:
    assert actual.dtype == expected.dtype
    integer = UINT[expected.dtype.type]
    np.testing.assert_array_equal(np.asarray(actual).view(integer), expected.view(integer))


def some_ranks(n: int) -> list[int]:
    # Compiling a large network takes seconds: only the middle, which depends on most of it.
    return sorted({0, n // 4, (n - 1) // 2, n // 2, n - 1}) if n < 64 else [n // 2]


def check_network(x: np.ndarray, ranks: list[int]) -> None:
    values = jax.jit(lambda x: network.select(list(x), ranks))(x)
    for rank, value in zip(ranks, values, strict=True):
        assert_same_bits(value, sorted_columns(x)[rank])


def check_selection(x: np.ndarray, select: Callable[..., jax.Array]) -> None:
    def values_of(x: jax.Array) -> list[jax.Array]:
        selected = (select(to_ordered_integers(x), rank) for rank in ranks)
        return [from_ordered_integers(value, x.dtype) for value in selected]

    ranks = some_ranks(len(x))
    for rank, value in zip(ranks, jax.jit(values_of)(x), strict=True):
        assert_same_bits(value, sorted_columns(x)[rank])


@pytest.mark.slow
@pytest.mark.parametrize("n", NETWORK_SIZES)
def test_network_equals_sort(n: int):
    check_network(awkward(n), some_ranks(n))


@pytest.mark.slow
@pytest.mark.parametrize("n", BISECTION_SIZES)
def test_bisection_equals_sort(n: int):
    check_selection(awkward(n), bisection.select)


@pytest.mark.slow
@pytest.mark.parametrize("n", RADIX_SIZES)
def test_radix_equals_sort(n: int):
    check_selection(awkward(n), SELECT["radix"])


@pytest.mark.slow
@pytest.mark.parametrize("n", [11])
def test_unrolled_radix_equals_sort(n: int):
    check_selection(awkward(n), SELECT["unrolled radix"])


def test_radix_of_more_rows_than_16_bits_count():
    x = np.random.default_rng(0).integers(-3, 4, (2**16 + 1, 1)).astype(np.float32)
    check_selection(x, SELECT["radix"])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("n", [2, 11])
def test_float64_equals_sort(n: int):
    check_network(awkward(n, np.float64), some_ranks(n))


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("n", "method"), [(2, "bisection"), (4, "bisection"), (11, "radix")])
def test_float64_selection_equals_sort(n: int, method: str):
    check_selection(awkward(n, np.float64), SELECT[method])


@pytest.mark.slow
def test_every_rank_at_once():
    check_network(awkward(9), list(range(9)))


@pytest.mark.slow
@pytest.mark.parametrize("d", [0, 1, 7, 8, 17])
def test_blocks_of_columns_cover_every_width(d: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(columns, "_BLOCK_ELEMENTS", 5 * 7)  # 7 columns of 5
    monkeypatch.setattr(columns, "design_for_cpu", lambda num_rows: columns.in_blocks)
    x = np.random.default_rng(d).normal(size=(5, d)).astype(np.float32)
    assert_same_bits(jax.jit(lambda x: kernel.median(x))(x), sorted_columns(x)[2])


def test_a_column_may_be_longer_than_a_block(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(columns, "_BLOCK_ELEMENTS", 3)
    monkeypatch.setattr(columns, "design_for_cpu", lambda num_rows: columns.in_blocks)
    x = awkward(5)
    assert_same_bits(jax.jit(lambda x: kernel.median(x))(x), sorted_columns(x)[2])


# As many as a warpgroup has threads, fewer, and more: blocks overlap where they don't divide.
@pytest.mark.slow
@pytest.mark.parametrize("d", [1, 128, 300])
def test_registers_cover_every_width(d: int):
    x = np.random.default_rng(d).normal(size=(2, 5, d)).astype(np.float32)
    shift = np.arange(2 * d, dtype=np.float32).reshape(2, d)

    def of_rows(rows: list[jax.Array], shift: jax.Array) -> jax.Array:
        return network.select(rows, [2])[0] + shift

    actual = hopper.by_columns(of_rows, x, shift, interpret=True)
    assert_same_bits(actual, np.sort(x, axis=1)[:, 2] + shift)


@pytest.mark.parametrize("n", [3, 4, 130])
def test_no_columns(n: int):
    x = np.zeros((n, 0), np.float32)
    assert kernel.median(x).shape == (0,)
    assert kernel.trimmed_mean(x, 1).shape == (0,)


@pytest.mark.slow
@pytest.mark.usefixtures("design")
@pytest.mark.parametrize("n", [1, 11])
def test_odd_median_is_the_middle_one(n: int):
    x = awkward(n)
    assert_same_bits(jax.jit(lambda x: kernel.median(x))(x), sorted_columns(x)[n // 2])


@pytest.mark.slow
@pytest.mark.usefixtures("design")
@pytest.mark.parametrize("n", [10])
def test_even_median_is_the_midpoint_rounded_once(n: int):
    x = np.random.default_rng(n).normal(size=(n, 50)).astype(np.float32)
    low, high = sorted_columns(x)[n // 2 - 1 : n // 2 + 1].astype(np.float64)
    assert_same_bits(jax.jit(lambda x: kernel.median(x))(x), ((low + high) / 2).astype(np.float32))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.usefixtures("x64")
def test_midpoint_does_not_overflow(dtype: type):
    big = np.finfo(dtype).max
    x = np.array([[big, big, -big, 0, -np.inf], [big, big / 2, big, big, big]], dtype)
    # (M + M)/2, (M + M/2)/2, 0, M/2; the midpoint of -∞ and a number is -∞.
    expected = np.array([big, 0.75 * big, 0, big / 2, -np.inf], dtype)
    assert_same_bits(jax.jit(lambda x: kernel.median(x))(x), expected)


def test_even_median_of_subnormals_stays_between_the_middle_two():
    # XLA flushes subnormals to 0 in arithmetic and in comparisons, order statistics don't.
    low, high = np.float32(1e-40), np.float32(3e-40)
    x = np.array([[low, high, -low], [low, low, -high]])
    result = np.asarray(jax.jit(lambda x: kernel.median(x))(x))
    np.testing.assert_array_less(np.array([low, low, -high]), np.nextafter(result, 1))
    np.testing.assert_array_less(result, np.nextafter(np.array([low, high, -low]), 1))


@pytest.mark.slow
@pytest.mark.parametrize(("n", "trim"), [(5, 2), (8, 1)])
@pytest.mark.usefixtures("design")
def test_trimmed_mean(n: int, trim: int):
    rng = np.random.default_rng(n)
    # Plain numbers, then many ties, among them at the edges of what is kept.
    x = np.concatenate([rng.normal(size=(n, 20)), rng.integers(-2, 3, (n, 20))], axis=1)
    x = x.astype(np.float32)
    kept = sorted_columns(x)[trim : n - trim]
    actual = np.asarray(jax.jit(lambda x: kernel.trimmed_mean(x, trim))(x))
    # n additions and a division, each rounded to half an ulp of at most the sum of |kept|.
    bound = (n + 1) * 2**-24 * np.abs(kept).mean(axis=0, dtype=np.float64)
    assert np.all(np.abs(actual - kept.mean(axis=0, dtype=np.float64)) <= bound)
    assert np.all((kept[0] <= actual) & (actual <= kept[-1]))


@pytest.mark.slow
@pytest.mark.parametrize("n", [7, 131])
def test_trimmed_mean_forgets_what_it_trims_and_does_not_overflow(n: int):
    trimmed_mean = jax.jit(lambda x: kernel.trimmed_mean(x, 3))
    # f = 3 rows are extreme; the others are 0.25, whose sum is exact, so that the mean must be 0.25
    # to the bit, where the sum of all, less what is trimmed, would keep nothing of it.
    x = np.full((n, 4), 0.25, np.float32)
    x[:3] = np.array([[np.inf], [np.nan], [1e38]]) * np.array([[1, -1, 1, -1]])
    assert_same_bits(trimmed_mean(x), np.full(4, 0.25, np.float32))
    # The sum of the largest numbers isn't one.
    largest = np.finfo(np.float32).max * np.array([1, -1, 1, -1], np.float32)
    assert_same_bits(trimmed_mean(np.tile(largest, (n, 1))), largest)


@pytest.mark.slow
@pytest.mark.usefixtures("design")
def test_vmap_equals_each():
    x = np.random.default_rng(0).normal(size=(3, 11, 5)).astype(np.float32)
    batched = jax.jit(jax.vmap(lambda x: kernel.median(x)))(x)
    assert_same_bits(batched, np.sort(x, axis=1)[:, 5])


def test_what_is_selected_counts_as_constant():
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    gradient = jax.jit(jax.grad(lambda x: kernel.median(x).sum()))(x)
    np.testing.assert_array_equal(gradient, np.zeros((5, 3)))

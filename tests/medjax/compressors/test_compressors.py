import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from medjax import compressors

TREE = {
    "m": jnp.array([[[1.0], [-2.0]], [[0.5], [0.0]], [[-0.25], [3.0]]]),
    "v": [jnp.array([[1.5, -1.0], [0.75, 0.125], [2.5, -0.5]])],
}
FLAT = np.array([1.0, -2.0, 0.5, 0.0, -0.25, 3.0, 1.5, -1.0, 0.75, 0.125, 2.5, -0.5])
D = 12


def flat(tree: Any) -> np.ndarray:
    return np.concatenate([np.asarray(x, np.float64).reshape(-1) for x in jax.tree.leaves(tree)])


@pytest.mark.slow
def test_biased_ones_by_hand():
    np.testing.assert_array_equal(
        flat(compressors.sign().compress(TREE)), np.where(FLAT < 0, -1, 1)
    )
    # ‖g‖₁ = 1 + 2 + 0.5 + 0.25 + 3 + 1.5 + 1 + 0.75 + 0.125 + 2.5 + 0.5 = 13.125, over 12.
    np.testing.assert_array_equal(
        flat(compressors.scaled_sign().compress(TREE)), np.where(FLAT < 0, -1.09375, 1.09375)
    )
    # The largest are 3, 2.5, -2 and 1.5; of the equal 1 and -1 the first is next.
    largest = [1, -2, 0, 0, 0, 3, 1.5, 0, 0, 0, 2.5, 0]
    np.testing.assert_array_equal(flat(compressors.top_k(5).compress(TREE)), largest)
    # 0.4 · 12 = 4.8, so 5.
    np.testing.assert_array_equal(flat(compressors.top_k(fraction=0.4).compress(TREE)), largest)
    assert np.count_nonzero(flat(compressors.top_k(fraction=1e-9).compress(TREE))) == 1
    np.testing.assert_array_equal(flat(compressors.top_k(12).compress(TREE)), FLAT)


@pytest.mark.slow
def test_a_zero_is_sent_as_either_sign():
    update = jnp.zeros(1000).at[0].set(5).at[1].set(-5).at[2].set(-0.0).at[3].set(jnp.nan)
    np.testing.assert_array_equal(
        compressors.sign().compress(update), np.where(np.arange(1000) == 1, -1, 1)
    )
    drawn = np.asarray(compressors.sign("random").compress(update, 0))
    np.testing.assert_array_equal(drawn[:2], [1, -1])
    np.testing.assert_array_equal(np.abs(drawn), 1)
    assert abs(drawn[2:].sum()) < 5 * np.sqrt(998)
    drawn = np.asarray(compressors.scaled_sign("random").compress(update.at[3].set(0), 0))
    np.testing.assert_array_equal(np.abs(drawn), np.float32(0.01))
    assert abs(drawn[2:].sum()) < 0.05 * np.sqrt(998)


@pytest.mark.parametrize("k", [1, 3, 6])
def test_contractions(k: int):
    # Karimireddy et al. (2019): δ = k/d for top-k, and exactly ‖v‖₁²/(d‖v‖²) for the scaled sign.
    rng = np.random.default_rng(k)
    v = rng.standard_t(2, (500, 6)) * (rng.random((500, 6)) < 0.7)
    squares = np.sum(v * v, axis=1)

    def error(compressor: compressors.Compressor) -> np.ndarray:
        sent = jax.jit(jax.vmap(compressor.compress))(jnp.asarray(v, jnp.float32))
        return np.sum((np.asarray(sent, np.float64) - v) ** 2, axis=1)

    assert np.all(error(compressors.top_k(k)) <= (1 - k / 6 + 1e-5) * squares)
    if k == 1:
        exact = squares - np.sum(np.abs(v), axis=1) ** 2 / 6
        assert np.all(np.abs(error(compressors.scaled_sign()) - exact) <= 1e-5 * squares)


LIKE = {
    "m": jax.ShapeDtypeStruct((30, 7), jnp.float32),
    "v": jax.ShapeDtypeStruct((4,), jnp.bfloat16),
}
# d = 214, so an index has 8 bits.
EXPECTED_BITS = [
    (compressors.sign(), 214),
    (compressors.scaled_sign(), 214 + 32),
    (compressors.stochastic_sign(), 214 + 32),
    (compressors.stochastic_sign(1.0), 214),
    (compressors.qsgd(1), 32 + 214 * (1 + 1)),  # levels 0, 1
    (compressors.qsgd(3), 32 + 214 * (1 + 2)),  # 0, ..., 3
    (compressors.qsgd(4), 32 + 214 * (1 + 3)),  # 0, ..., 4
    (compressors.terngrad(), 43 * 8 + 2 * 32),  # 214 = 42 · 5 + 4
    (compressors.top_k(10), 10 * (32 + 8)),
    (compressors.random_k(10), 10 * 32 + 32),
    (compressors.random_k(fraction=0.05), 11 * 32 + 32),  # 10.7
    (compressors.random_mask(0.1), 21 * 32 + 1 * 16 + 32),  # 0.4 of the vector's 4, but one
    (compressors.rotation_quantization(3), 3 * 256 + 96),
    (compressors.low_rank(2), 2 * 7 * 32 + 4 * 16 + 32),
    (compressors.low_rank(30), 210 * 32 + 4 * 16 + 32),
]


@pytest.mark.parametrize(
    ("compressor", "bits"), EXPECTED_BITS, ids=lambda x: getattr(x, "name", "")
)
def test_bits(compressor: compressors.Compressor, bits: int):
    assert compressor.bits(LIKE) == bits
    assert compressor.bits(jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), LIKE)) == bits


@pytest.mark.parametrize(("d", "bits"), [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (1024, 10)])
def test_bits_of_an_index(d: int, bits: int):
    assert compressors.top_k(1).bits(jnp.ones(d)) == 32 + bits
    assert compressors.top_k(1).bits(jnp.ones(d, jnp.bfloat16)) == 16 + bits


def test_communication():
    # 214 numbers, of which 210 in 32 bits and 4 in 16.
    assert compressors.communication(LIKE, 5) == (5 * 6784, 5 * 6784)
    actual = compressors.communication(
        LIKE, 5, up=compressors.top_k(10), down=compressors.sign("random")
    )
    assert actual == compressors.Bits(up=5 * 400, down=5 * 214)


def draws(compressor: compressors.Compressor, update: Any, count: int = 200) -> np.ndarray:
    """What comes out, (count, d)."""
    keys = jax.random.split(jax.random.key(1), count)
    drawn = jax.jit(jax.vmap(lambda key: compressor.compress(update, key)))(keys)
    leaves = [np.asarray(x, np.float64).reshape(count, -1) for x in jax.tree.leaves(drawn)]
    return np.concatenate(leaves, axis=1)


@pytest.mark.slow
def test_messages_say_no_more_than_their_bits():
    scale = np.abs(FLAT).sum() / D
    sent = draws(compressors.scaled_sign("random"), TREE) / scale
    np.testing.assert_allclose(np.unique(sent.round(6)), [-1, 1])
    sent = draws(compressors.stochastic_sign(), TREE)
    np.testing.assert_array_equal(np.unique(sent), [-3, 3])
    sent = draws(compressors.stochastic_sign(4.0), TREE)
    np.testing.assert_array_equal(np.unique(sent), [-4, 4])
    levels = draws(compressors.qsgd(3), TREE) * 3 / np.sqrt(np.sum(FLAT**2))
    np.testing.assert_allclose(levels, levels.round(), atol=1e-5)
    assert np.abs(levels).max() <= 3 + 1e-5
    # Levels are the two around s|g_j|/‖g‖.
    exact = 3 * FLAT / np.sqrt(np.sum(FLAT**2))
    assert np.abs(levels - exact).max() < 1 + 1e-5
    sent = draws(compressors.terngrad(), TREE)
    np.testing.assert_array_equal(np.unique(sent[:, :6]), [-3, 0, 3])
    np.testing.assert_array_equal(np.unique(sent[:, 6:]), [-2.5, 0, 2.5])


@pytest.mark.slow
def test_sparse_messages_have_so_many_numbers():
    update = jax.tree.map(lambda x: x + 10, TREE)
    sent = draws(compressors.random_k(5), update)
    kept = sent != 0
    np.testing.assert_array_equal(kept.sum(axis=1), 5)
    np.testing.assert_allclose(sent, kept * (FLAT + 10) * 12 / 5, rtol=1e-6)
    assert np.any(kept[:, :6].sum(axis=1) < 2)
    sent = draws(compressors.random_mask(0.3), update)
    kept = sent != 0
    np.testing.assert_array_equal(kept[:, :6].sum(axis=1), 2)
    np.testing.assert_array_equal(kept[:, 6:].sum(axis=1), 2)
    np.testing.assert_allclose(sent, kept * (FLAT + 10) * 3, rtol=1e-6)


@pytest.mark.slow
def test_all_subsets_are_as_likely():
    kept = draws(compressors.random_k(2), jnp.ones(5), 4000) != 0
    pairs = [np.sum(kept[:, i] & kept[:, j]) for i, j in itertools.combinations(range(5), 2)]
    assert sum(pairs) == 4000
    # χ² of 9 degrees of freedom: above 27.9 with probability 0.001.
    assert np.sum((np.array(pairs) - 400) ** 2 / 400) < 27.9


@pytest.mark.parametrize("bits", [1, 2])
def test_rotated_messages_have_so_many_levels(bits: int):
    # For one of the 2⁸ diagonals of signs the rotated message has 2ᵇ values, from the least
    # coordinate of the rotated vector to the greatest.
    v = np.array([3.0, -1.0, 0.5, 2.0, -4.0, 0.25, 1.0, -2.0])
    h = scipy.linalg.hadamard(8) / np.sqrt(8)
    signs = np.array(list(itertools.product([1, -1], repeat=8)))
    rotated = (signs * v) @ h
    low, high = rotated.min(axis=1, keepdims=True), rotated.max(axis=1, keepdims=True)
    for sent in draws(compressors.rotation_quantization(bits), jnp.asarray(v), 5):
        levels = ((signs * sent) @ h - low) / (high - low) * (2**bits - 1)
        whole = np.abs(levels - levels.round()).max(axis=1) < 1e-4
        inside = (levels.round().min(axis=1) >= 0) & (levels.round().max(axis=1) < 2**bits)
        near = np.abs(levels - (rotated - low) / (high - low) * (2**bits - 1)).max(axis=1) < 1.001
        assert np.any(whole & inside & near)


def test_low_rank_messages_are_of_low_rank():
    g = jnp.asarray(np.random.default_rng(0).normal(size=(4, 5, 9)), jnp.float32)
    for sent in draws(compressors.low_rank(3), {"g": g}, 5):
        assert np.linalg.matrix_rank(sent.reshape(20, 9), tol=1e-4) == 3
    # A matrix of no more than r rows, and a vector, are sent as they are.
    small = {"g": g[0, :3], "v": g[0, 0], "c": jnp.float32(2)}
    np.testing.assert_array_equal(flat(compressors.low_rank(3).compress(small, 0)), flat(small))

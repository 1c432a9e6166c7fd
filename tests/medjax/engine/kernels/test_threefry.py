from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax._engine.kernels.threefry import pair_words, random_bits, random_words, threefry_2x32

pytestmark = pytest.mark.optimized

KEYS = {
    "zero": jax.random.key(0),
    "large": jax.random.key(2**31 - 1),
    "negative": jax.random.key(-1),
    "folded": jax.random.fold_in(jax.random.key(5), 2**32 - 1),
}
SIZES = (0, 1, 2, 127)

jitted_bits = jax.jit(random_bits, static_argnums=1)
jitted_words = jax.jit(random_words, static_argnums=1)
jitted_pair_words = jax.jit(pair_words, static_argnums=2)


@pytest.fixture
def x64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize(
    ("key", "counter", "expected"),
    [
        # The known answers of Random123's kat_vectors, "threefry2x32 20".
        ((0x00000000, 0x00000000), (0x00000000, 0x00000000), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_known_answers(key: tuple[int, int], counter: tuple[int, int], expected: tuple[int, int]):
    actual = threefry_2x32(
        (jnp.uint32(key[0]), jnp.uint32(key[1])), (jnp.uint32(counter[0]), jnp.uint32(counter[1]))
    )
    assert tuple(int(word) for word in actual) == expected


def test_block_function_is_elementwise():
    # The three known answers again, as one array.
    key = (jnp.array([0, 2**32 - 1], jnp.uint32), jnp.array([0, 2**32 - 1], jnp.uint32))
    word0, word1 = jax.jit(threefry_2x32)(key, key)
    np.testing.assert_array_equal(word0, np.array([0x6B200159, 0x1CB996FC], np.uint32))
    np.testing.assert_array_equal(word1, np.array([0x99BA4EFE, 0xBB002BE7], np.uint32))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS.keys())
def test_bits_equal_those_of_jax(key: jax.Array, size: int):
    bits = jitted_bits(key, size)
    assert bits.dtype == jnp.uint32
    np.testing.assert_array_equal(bits, jax.random.bits(key, (size,)))


def test_eager_equals_jit():
    key = KEYS["large"]
    np.testing.assert_array_equal(random_bits(key, 9), jitted_bits(key, 9))


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS.keys())
def test_words_are_the_halves_of_64_bits_of_jax(key: jax.Array, size: int):
    high, low = (np.asarray(word).astype(np.uint64) for word in jitted_words(key, size))
    bits = jax.random.bits(key, (size,), jnp.uint64)
    np.testing.assert_array_equal(high << np.uint64(32) | low, bits)


def test_a_draw_is_the_beginning_of_a_longer_one():
    key = jax.random.key(3)
    np.testing.assert_array_equal(jitted_bits(key, 127)[:7], jitted_bits(key, 7))


@pytest.mark.slow
def test_vmapped_keys_draw_what_each_draws():
    keys = jax.random.split(jax.random.key(1), (2, 3))
    batched = jax.jit(jax.vmap(jax.vmap(lambda key: random_bits(key, 11))))(keys)
    for i in range(2):
        for j in range(3):
            np.testing.assert_array_equal(batched[i, j], jax.random.bits(keys[i, j], (11,)))


def test_counters_do_not_wrap_around():
    with pytest.raises(ValueError, match="draw of 4294967297 words is more than a 32-bit counter"):
        random_words(jax.random.key(0), 2**32 + 1)


def threefry_by_hand(key: jax.Array, x0: int, x1: int) -> tuple[int, int]:
    """Salmon et al. (2011) in Python's integers: 20 rounds, a key injection after every 4."""
    k0, k1 = (int(word) for word in jax.random.key_data(key))
    keys = (k0, k1, k0 ^ k1 ^ 0x1BD11BDA)
    x0, x1 = (x0 + k0) % 2**32, (x1 + k1) % 2**32
    for i in range(20):
        r = (13, 15, 26, 6, 17, 29, 16, 24)[i % 8]
        x0 = (x0 + x1) % 2**32
        x1 = (x1 << r | x1 >> (32 - r)) % 2**32 ^ x0
        if i % 4 == 3:
            j = i // 4 + 1
            x0, x1 = (x0 + keys[j % 3]) % 2**32, (x1 + keys[(j + 1) % 3] + j) % 2**32
    return x0, x1


@pytest.mark.parametrize("pair", [0, 1, 7, 2**31 - 2])
@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS.keys())
def test_pair_words_are_the_blocks_of_pair_and_coordinate(key: jax.Array, pair: int):
    expected = np.array([threefry_by_hand(key, pair + 1, j) for j in range(127)], np.uint32)
    for words in (pair_words, jitted_pair_words):
        np.testing.assert_array_equal(words(key, jnp.int32(pair), 127), expected.T)


@pytest.mark.slow
def test_pairs_have_words_of_their_own():
    key = KEYS["large"]
    pairs = [jitted_pair_words(key, jnp.int32(pair), 500) for pair in range(4)]
    words = np.concatenate([*pairs, random_words(key, 500)], axis=None)
    # 5000 draws of 2³² coincide with probability 5000²/2³³ = 0.003.
    assert len(np.unique(words)) == 5000
    beginning = jitted_pair_words(key, jnp.int32(2), 9)
    np.testing.assert_array_equal(beginning, np.array(pairs[2])[:, :9])
    batched = jax.vmap(lambda pair: pair_words(key, pair, 500))(jnp.arange(4))
    np.testing.assert_array_equal(np.stack(batched, axis=1), np.array(pairs))

import functools
import math
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import special, stats

import medjax
from medjax import aggregate, noise, noisy_sign, perturb, rules
from medjax._engine.chunks import Chunk
from medjax._engine.kernels.threefry import pair_words
from medjax._engine.lazy import LazyUpdates
from medjax._engine.streaming import apply_optimizer
from medjax.noise import NOISES

pytestmark = pytest.mark.optimized

SIGMAS = 5  # a normal deviate beyond it has probability 6e-7
# g/b, and scipy's distributions of variance 1.
RATIOS = np.array([0, 0.01, -0.01, 0.5, -0.5, 2, -2, 30, -30])
DISTRIBUTIONS: dict[str, Any] = {
    "normal": stats.norm(),
    "laplace": stats.laplace(scale=1 / math.sqrt(2)),
    "logistic": stats.logistic(scale=math.sqrt(3) / math.pi),
    "uniform": stats.uniform(-math.sqrt(3), 2 * math.sqrt(3)),
    "triangular": stats.triang(0.5, -math.sqrt(6), 2 * math.sqrt(6)),
    "student_t": stats.t(5, scale=math.sqrt(3 / 5)),
}
RBG = jax.random.key(0, impl="rbg")
G = np.random.default_rng(0).normal(size=(7, 40)).astype(np.float32)

each_noise = pytest.mark.parametrize("name", NOISES)


def steps(tx: optax.GradientTransformation, updates: Any, num_steps: int = 1) -> list[Any]:
    state, outs, update = tx.init(None), [], jax.jit(tx.update)
    for _ in range(num_steps):
        out, state = update(updates, state)
        outs.append(out)
    return outs


def key_by_hand(seed: int, step: int, leaf: int) -> jax.Array:
    stage = jax.random.fold_in(jax.random.key(seed), zlib.crc32(b"noisy_sign"))
    return functools.reduce(jax.random.fold_in, (step, leaf), stage)


def by_hand(g: np.ndarray, b: float, seed: int = 0, step: int = 0, leaf: int = 0) -> np.ndarray:
    """The documented scheme for normal noise: +1 where the worker's word, from -1 to 1, is below
    2 F(g/b) - 1; both workers of a pair take their words from one block."""
    key, words = key_by_hand(seed, step, leaf), []
    for worker in range(len(g)):
        pair = pair_words(key, jnp.int32(worker // 2), g[0].size)
        words.append(np.asarray(pair[worker % 2]).view(np.int32) / 2**31)
    mean = special.erf(g.astype(np.float64) / b / math.sqrt(2))
    return np.where(np.reshape(words, g.shape) < mean, 1, -1)


@pytest.mark.slow
def test_signs_are_drawn_as_documented():
    g = {"a": G.reshape(7, 4, 10), "b": [G[:, :3], G[:, 0]]}
    for step, out in enumerate(steps(noisy_sign(0.5, key=7), g, 2)):
        assert jax.tree.map(lambda x: (x.shape, x.dtype), out) == jax.tree.map(
            lambda x: (x.shape, x.dtype), g
        )
        for leaf, (signs, x) in enumerate(zip(*map(jax.tree.leaves, (out, g)), strict=True)):
            np.testing.assert_array_equal(signs, by_hand(x, 0.5, 7, step, leaf))


@pytest.mark.slow
@each_noise
def test_share_of_plus_1_is_the_distribution_function(name: str):
    n, d, b = 8, 50_000, 0.3
    g = jnp.broadcast_to(jnp.float32(b * RATIOS)[:, None], (n, len(RATIOS), d))
    (signs,) = steps(noisy_sign(b, NOISES[name](), key=1), g)
    assert set(np.unique(signs)) == {-1, 1}
    shares, p = np.mean(np.asarray(signs) == 1, axis=(0, 2)), DISTRIBUTIONS[name].cdf(RATIOS)
    # The probability itself is within 2⁻²² of F.
    assert np.all(np.abs(shares - p) <= SIGMAS * np.sqrt(p * (1 - p) / (n * d)) + 2**-22)


@pytest.mark.slow
def test_distributed_as_the_sign_of_the_noisy_gradient():
    n, d = 7, 30_000
    worker = np.linspace(-1, 1.2, n)[:, None, None] * np.array([1.0, 0.3])[:, None]
    g = jnp.broadcast_to(jnp.float32(worker), (n, 2, d))
    signs = [steps(stage(1.0, noise.laplace(), key=5), g)[0] for stage in (noisy_sign, perturb)]
    signs = np.sign(np.asarray(signs))
    # Worker by worker, and the votes of all, -7, -5, ..., 7.
    for i in range(n):
        plus = np.sum(signs[:, i] == 1, axis=-1)
        for j in range(2):
            assert stats.chi2_contingency([plus[:, j], d - plus[:, j]]).pvalue > 1e-4
    votes = ((signs.sum(axis=1) + n) / 2).astype(int)
    for j in range(2):
        table = np.stack([np.bincount(votes[k, j], minlength=n + 1) for k in range(2)])
        assert stats.chi2_contingency(table).pvalue > 1e-4


@pytest.mark.slow
def test_draws_are_independent():
    # Even odds everywhere: the product of any two signs has mean 0, and variance 1.
    d = 1 << 18
    outs = steps(noisy_sign(1.0, key=0), {"a": jnp.zeros((5, d)), "b": jnp.zeros((5, d))}, 2)
    x = np.concatenate([out[leaf] for out in outs for leaf in "ab"])  # steps, leaves, workers
    products = x @ x.T / d - np.eye(20)
    assert np.abs(products).max() < SIGMAS / math.sqrt(d)
    for lag in (1, 2, 64):  # coordinates of any two workers, leaves and steps
        products = x[:, lag:] @ x[:, :-lag].T / (d - lag)
        assert np.abs(products).max() < SIGMAS / math.sqrt(d - lag)
    (other,) = steps(noisy_sign(1.0, key=1), jnp.zeros((5, d)))
    assert np.abs(np.asarray(other) @ x.T / d).max() < SIGMAS / math.sqrt(d)


SPECIAL = np.float32([[0, -0.0, np.nan, np.inf, -np.inf, 1e-30, -3e38, 2]] * 3)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.float64])
def test_without_noise_it_is_the_sign(dtype: Any):
    with jax.enable_x64(dtype == jnp.float64):
        g = jnp.asarray(np.concatenate([SPECIAL, G[:3]], axis=1), dtype)
        (out,) = steps(noisy_sign(0.0, key=0), g)
        assert out.dtype == dtype
        np.testing.assert_array_equal(*(x.astype(jnp.float32) for x in (out, jnp.sign(g))))


@pytest.mark.slow
@each_noise
def test_nan_stays_and_infinity_is_certain(name: str):
    (out,) = steps(noisy_sign(0.5, NOISES[name](), key=0), jnp.asarray(SPECIAL))
    np.testing.assert_array_equal(out[:, 2:5], [[np.nan, 1, -1]] * 3)
    np.testing.assert_array_equal(out[:, 6], [-1] * 3)
    assert np.all(np.abs(np.asarray(out)[:, [0, 1, 5, 7]]) == 1)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float64])
def test_other_precisions(dtype: Any):
    with jax.enable_x64(dtype == jnp.float64):
        g = jnp.asarray(G, dtype)
        (out,) = steps(noisy_sign(0.5, key=0), g)
        assert out.dtype == dtype
    np.testing.assert_array_equal(out.astype(np.float32), by_hand(np.asarray(g, np.float64), 0.5))


@pytest.mark.slow
def test_b_may_be_a_schedule_or_traced_or_adaptive():
    for step, out in enumerate(
        steps(noisy_sign(lambda t: 0.5 * (t.astype(float) + 1), key=0), G, 3)
    ):
        np.testing.assert_array_equal(out, by_hand(G, 0.5 * (step + 1), step=step))
    bs = np.float32([0, 0.1, 1, 10])
    swept = jax.jit(jax.vmap(lambda b: steps(noisy_sign(b, key=0), G)[0]))(bs)
    np.testing.assert_array_equal(swept[0], np.sign(G))
    for b, out in zip(bs[1:], swept[1:], strict=True):
        np.testing.assert_array_equal(out, by_hand(G, b))
    g = {"a": G.copy(), "b": -10 * G}
    g["a"][0, 0] = np.inf  # left out of the largest
    (out,) = steps(noisy_sign(medjax.adaptive_scale(0.2), key=0), g)
    for leaf, name in enumerate("ab"):
        b = 0.2 * np.abs(g[name][np.isfinite(g[name])]).max()
        np.testing.assert_array_equal(out[name], by_hand(g[name], b, leaf=leaf))


POWERS = 3.0 ** np.arange(len(G))


def streamed(tx: optax.GradientTransformation, g: np.ndarray, chunk_size: int) -> jax.Array:
    """Σ_i 3ⁱ sign_i, summed a few workers at a time: the sign of each worker is a digit of it."""
    rule = rules.Additive("digits", lambda x, i, _: jnp.float32(POWERS)[i] * x, lambda x, *_: x)
    chain = optax.chain(tx, aggregate(rule))
    like, rows = jax.ShapeDtypeStruct(g.shape[1:], g.dtype), jnp.asarray(g)
    lazy = LazyUpdates(
        like, len(g), Chunk(chunk_size, chunk_size), rows, jax.lax.dynamic_slice_in_dim
    )
    return apply_optimizer(lambda x: chain.update(x, chain.init(None))[0], lazy, "require")


@pytest.mark.slow
def test_the_signs_of_a_worker_do_not_depend_on_how_the_work_is_cut_up():
    tx = noisy_sign(0.5, noise.logistic(), key=0)
    (whole,) = steps(tx, G)
    np.testing.assert_array_equal(tx.update(G, tx.init(None))[0], whole)  # not jitted
    for n in (1, 4):
        np.testing.assert_array_equal(steps(tx, G[:n])[0], whole[:n])
    digits = POWERS @ whole
    for chunk_size in (1, 2, 5):
        chunked = jax.jit(lambda k=chunk_size: streamed(tx, G, k))()
        np.testing.assert_array_equal(chunked, digits)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("b", "exact"),
    [(-0.0, False), (-0.0, True), (optax.constant_schedule(-1e-9), False)],
    ids=["-0", "-0, exact", "schedule"],
)
def test_the_sign_of_the_scale_does_not_matter(b: Any, exact: bool):
    # The noise is symmetric, so b and -b are the same, and no check sees a schedule's values.
    tx = medjax.noisy_sign_sgd(1.0, b, exact=exact, key=0)
    updates, _ = jax.jit(tx.update)(jnp.ones((5, 20)), tx.init(jnp.zeros(20)))
    np.testing.assert_array_equal(updates, -1)


@pytest.mark.slow
@pytest.mark.parametrize("inject", [False, True])
def test_the_alias_is_the_vote_of_noisy_signs(inject: bool):
    make = medjax.noisy_sign_sgd
    make = optax.inject_hyperparams(make, static_args="noise") if inject else make
    tx, x = make(0.1, b=0.5, key=3), jnp.zeros(40)
    state, update = tx.init(x), jax.jit(tx.update)
    for step in range(3):
        out, state = update(G, state, x)
        vote = np.sign(by_hand(G, 0.5, 3, step).sum(axis=0))
        np.testing.assert_allclose(out, -0.1 * vote, rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: noisy_sign(-1.0, key=0),
            ValueError,
            "b must be a finite number at least 0, got -1",
        ),
        (lambda: noisy_sign(math.nan, key=0), ValueError, "b must be a finite number .*, got nan"),
        (lambda: noisy_sign("x", key=0), TypeError, "b must be a real number, got 'x'"),
        (
            lambda: noisy_sign(1.0, noise.normal, key=0),
            TypeError,
            r"such as .*normal\(\), or a plain f",
        ),
        (lambda: noisy_sign(1.0, key=RBG).init(0), TypeError, "threefry2x32 key, got key<rbg>"),
        (
            lambda: steps(noisy_sign(1.0, key=0), np.ones((2, 2), int)),
            TypeError,
            "be floating point",
        ),
    ],
)
def test_errors(make: Callable[[], Any], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        make()

"""Noise added to the workers' vectors: its documented draws, its scales, and its keys."""

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

import medjax
from medjax import noise, perturb

N = 5
RBG = jax.random.key(0, impl="rbg")
CENTRES = np.random.default_rng(0).normal(size=(N, 3)).astype(np.float32)


def fold(seed: int, *path: int) -> jax.Array:
    """The documented scheme: the stage's name, then the step, leaf and worker, are folded in."""
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(b"perturb"))
    return functools.reduce(jax.random.fold_in, path, key)


def noise_by_hand(seed: int, step: int, leaf: int, shape: tuple[int, ...]) -> np.ndarray:
    keys = jnp.stack([fold(seed, step, leaf, worker) for worker in range(shape[0])])
    return np.asarray(_normal(keys, shape[1:]))


_normal = jax.jit(jax.vmap(jax.random.normal, (0, None)), static_argnums=1)


def apply(tx: optax.GradientTransformation, updates: Any, num_steps: int = 1) -> list[Any]:
    state, outs = tx.init(jax.tree.map(lambda leaf: leaf[0], updates)), []
    update = jax.jit(tx.update)
    for _ in range(num_steps):
        out, state = update(updates, state)
        outs.append(out)
    return outs


def assert_close(actual: Any, expected: Any) -> None:
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, e, rtol=2e-6, atol=2e-6)


@pytest.mark.slow
def test_perturb_adds_the_documented_noise():
    g = {"a": np.ones((N, 2, 3), np.float32), "b": [CENTRES]}
    for step, out in enumerate(apply(perturb(0.5, key=7), g, 3)):
        assert_close(out["a"], 1 + 0.5 * noise_by_hand(7, step, 0, (N, 2, 3)))
        assert_close(out["b"], [CENTRES + 0.5 * noise_by_hand(7, step, 1, (N, 3))])


@pytest.mark.slow
def test_noise_is_independent_of_the_number_of_workers_and_of_all_other_draws():
    zeros = {"a": np.zeros((N, 4), np.float32), "b": np.zeros((N, 4), np.float32)}
    draws = apply(perturb(1.0, key=0), zeros, 2)
    fewer = apply(perturb(1.0, key=0), jax.tree.map(lambda leaf: leaf[:2], zeros), 2)
    np.testing.assert_array_equal(fewer[1]["b"], draws[1]["b"][:2])
    everything = np.concatenate([out[leaf].ravel() for out in draws for leaf in "ab"])
    assert len(np.unique(everything)) == 2 * 2 * N * 4  # steps, leaves, workers, coordinates


@pytest.mark.slow
@pytest.mark.parametrize("name", noise.NOISES)
def test_perturb_by_other_noise_and_in_half_precision(name: str):
    distribution, g = noise.NOISES[name](), jnp.asarray(CENTRES, jnp.bfloat16)
    (out,) = apply(perturb(2.0, distribution, key=0), g)
    xi = distribution.sample(fold(0, 0, 0, 3), (3,), jnp.bfloat16)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_array_equal(out[3], g[3] + 2 * xi)


@pytest.mark.slow
def test_b_may_be_a_schedule_or_traced_or_0():
    for step, out in enumerate(
        apply(perturb(lambda t: 0.5 * (t.astype(float) + 1), key=0), CENTRES, 3)
    ):
        assert_close(out, CENTRES + 0.5 * (step + 1) * noise_by_hand(0, step, 0, (N, 3)))
    traced = jax.jit(lambda b: apply(perturb(b, key=0), CENTRES)[0])
    assert_close(traced(3.0), CENTRES + 3 * noise_by_hand(0, 0, 0, (N, 3)))
    np.testing.assert_array_equal(traced(0.0), CENTRES)


SCALES = np.float32([0, 0.5, 1, 2, 30])


@pytest.mark.slow
@pytest.mark.parametrize("scales", [jnp.asarray(SCALES), np.array([0, 3, 1, 2, 30])])
def test_b_may_be_one_scale_for_each_worker(scales: Any):
    g = {"a": np.ones((N, 2, 3), np.float32), "b": [CENTRES]}
    for step, out in enumerate(apply(perturb(scales, key=7), g, 2)):
        for leaf, (sent, x) in enumerate(zip(*map(jax.tree.leaves, (out, g)), strict=True)):
            xi = noise_by_hand(7, step, leaf, x.shape)
            # Worker i's draws are those of any other b, scaled by b_i.
            expected = np.stack([x[i] + np.float32(scales[i]) * xi[i] for i in range(N)])
            np.testing.assert_allclose(sent, expected, rtol=2e-6, atol=2e-5)
            np.testing.assert_array_equal(sent[0], x[0])


@pytest.mark.slow
def test_scales_of_the_workers_may_be_traced_or_scheduled_and_of_half_precision():
    xi = [noise_by_hand(0, step, 0, (N, 3)) for step in range(2)]
    small, column = SCALES / 8, SCALES[:, None] / 8
    sweep = jax.jit(jax.vmap(lambda b: apply(perturb(b, key=0), CENTRES)[0]))
    swept = sweep(np.stack([small, 2 * small]))
    assert_close(swept, np.stack([CENTRES + column * xi[0], CENTRES + 2 * column * xi[0]]))
    for step, out in enumerate(
        apply(perturb(lambda t: small * (t.astype(float) + 1), key=0), CENTRES, 2)
    ):
        assert_close(out, CENTRES + column * (step + 1) * xi[step])
    half = jnp.asarray(CENTRES, jnp.bfloat16)
    (out,) = apply(perturb(SCALES, key=0), half)
    assert out.dtype == jnp.bfloat16
    one = jax.jit(lambda b: apply(perturb(b, key=0), half)[0])
    by_worker = [np.asarray(one(b))[i] for i, b in enumerate(SCALES)]
    np.testing.assert_array_equal(out, np.stack(by_worker))


@pytest.mark.slow
def test_scales_of_the_workers_do_not_depend_on_chunks_or_devices():
    # The gradients of f_i(x) = ‖x - c_i‖²/2 at 0 are -c_i.
    objective = lambda x, c: (jnp.sum((x[None] - c) ** 2, axis=1) / 2, {})  # noqa: E731
    data = medjax.stack_workers(CENTRES, np.arange(N)[:, None])
    tx = optax.chain(perturb(SCALES, key=3), medjax.mean_sgd(1.0))
    noisy = -CENTRES + SCALES[:, None] * noise_by_hand(3, 0, 0, (N, 3))

    def run(**settings: Any) -> Any:
        parts = medjax.simulation(objective, tx, **settings)
        return jax.jit(lambda: parts.advance(parts.init(jnp.zeros(3), 0), data, 1).params)()

    for settings in (
        {"worker_chunk": 2, "streaming": "require"},
        {"streaming": "off"},
        {"mesh": medjax.sharding.make_mesh(workers=2)},
    ):
        np.testing.assert_allclose(run(**settings), -noisy.mean(axis=0), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_adaptive_scale_follows_the_largest_finite_entry_of_each_tensor():
    g = {"a": CENTRES.copy(), "b": -10 * CENTRES, "c": np.full((N, 1), np.inf, np.float32)}
    g["a"][:3, 0] = [np.nan, np.inf, -np.inf]
    b_a, b_b = (0.2 * np.abs(x[np.isfinite(x)]).max() for x in (g["a"], g["b"]))

    def run(fraction: Any) -> Any:
        return apply(perturb(medjax.adaptive_scale(fraction), key=0), g)[0]

    out = jax.jit(run)(0.2)
    assert_close(out["a"], g["a"] + b_a * noise_by_hand(0, 0, 0, (N, 3)))
    assert_close(out["b"], g["b"] + b_b * noise_by_hand(0, 0, 1, (N, 3)))
    np.testing.assert_array_equal(out["c"], g["c"])  # nothing finite: a scale of 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", [-1, 2**32 - 1])
def test_all_kinds_of_keys_agree(seed: int):
    (expected,) = apply(perturb(1.0, key=jax.random.key(seed)), CENTRES)
    np.testing.assert_array_equal(apply(perturb(1.0, key=seed), CENTRES)[0], expected)
    traced = jax.jit(lambda key: apply(perturb(1.0, key=key), CENTRES)[0])
    assert_close(traced(jax.random.PRNGKey(seed)), expected)
    assert_close(traced(jax.random.key(seed)), expected)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: perturb(-1.0, key=0), ValueError, "b must be a finite number at least 0, got -1"),
        (lambda: perturb(math.nan, key=0), ValueError, "b must be a finite number .*, got nan"),
        (lambda: perturb("x", key=0), TypeError, "b must be a real number, got 'x'"),
        (lambda: perturb(None, key=0), TypeError, "b must be a real number, got None"),
        (lambda: perturb(0.1), TypeError, "required keyword-only argument: 'key'"),
        (lambda: perturb(0.1, None, 0), TypeError, "takes from 1 to 2 positional arguments"),
        (lambda: perturb(SCALES - 1, key=0), ValueError, r"b must be .* 0, got \[-1\. +-0\.5 +0"),
        (lambda: perturb(SCALES + math.inf, key=0), ValueError, "b must be a finite number at l"),
        (lambda: perturb(np.ones((N, 1)), key=0), ValueError, r"b must be .*, got shape \(5, 1\)"),
        (
            lambda: apply(perturb(SCALES[:4], key=0), CENTRES),
            ValueError,
            r"^b must be one number or one for each of the 5 workers, got shape \(4,\)",
        ),
        (
            lambda: apply(perturb(lambda t: SCALES[:1] * t.astype(float), key=0), CENTRES),
            ValueError,
            r"^b must be one number or one for each of the 5 workers, got shape \(1,\)",
        ),
        (lambda: perturb(1.0, noise.normal, key=0), TypeError, r"such as .*normal\(\), or a plain"),
        (lambda: medjax.adaptive_scale(-0.1), ValueError, "fraction must be .* 0, got -0.1"),
        (lambda: perturb(0.1, key=RBG).init(0), TypeError, "a threefry2x32 key, got key<rbg>"),
    ],
)
def test_errors(make: Callable[[], Any], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.slow
def test_absent_workers_keep_their_scales():
    """Workers 1 and 3 of 4 take part: their scales are 0 and 4, whoever else there is."""
    tx = perturb(jnp.array([9.0, 0.0, 9.0, 4.0]), key=0)
    zeros = np.zeros((2, 500), np.float32)
    present = {"workers": np.array([1, 3]), "num_workers": 4}
    sent, _ = jax.jit(lambda x: tx.update(x, tx.init(x[0]), **present))(zeros)
    same, _ = jax.jit(lambda x: perturb(4.0, key=0).update(x, tx.init(x[0])))(zeros)
    np.testing.assert_array_equal(sent[0], np.zeros(500))
    np.testing.assert_array_equal(sent[1], same[1])

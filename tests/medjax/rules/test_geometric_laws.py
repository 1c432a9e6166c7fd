"""What holds of geometric rules whatever their weights: symmetries, pytrees, broken workers."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from medjax import mixing, rules

N, F, D = 11, 2, 6
SETTINGS: dict[str, dict[str, Any]] = {
    "geometric_median": {"num_steps": 5},
    "centered_clipping": {"tau": 4.0, "num_steps": 2},
    "dnc": {"num_byzantine": F, "num_iterations": 3},
    "signguard": {"fraction": 1.0},
    "clipped_clustering": {},
} | {
    name: {"num_byzantine": F}
    for name in ("krum", "multi_krum", "mda", "monna", "smea", "caf", "cge", "bulyan")
}
TRANSLATED = ("krum", "multi_krum", "mda", "monna", "smea", "caf", "bulyan", "dnc")
each_rule = pytest.mark.parametrize("name", SETTINGS)
ANYTHING = hnp.arrays(np.float32, (F, D), elements=st.floats(width=32, allow_subnormal=False))


@functools.cache
def build(name: str) -> Callable[..., Any]:
    rule = rules.RULES[name](**SETTINGS[name])
    return lambda x: rule(x, 0 if rule.needs_key else None)


@functools.cache
def jitted(name: str) -> Callable[..., jax.Array]:
    return jax.jit(build(name))


def honest(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(1, 1, size=(N, D)).astype(np.float32)


def assert_close(actual: Any, expected: Any, atol: float = 2e-5) -> None:
    np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=atol)


@each_rule
def test_vmap_and_scan_agree_with_jit(name: str):
    x = np.stack([honest(seed) for seed in range(6)]).reshape(2, 3, N, D)
    x[1, 0, 4] = np.nan  # the loops of each have lengths of their own

    def scan(x: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda carry, one: (carry, build(name)(one)), None, x)[1]

    expected = np.stack([[jitted(name)(one) for one in some] for some in x])
    assert_close(jax.jit(jax.vmap(scan))(x), expected)


@each_rule
def test_pytree_counts_as_one_vector(name: str):
    x = honest()
    tree = {"b": x[:, :1], "none": np.ones((N, 0)), "w": [x[:, 1:5].reshape(N, 2, 2), x[:, 5]]}
    tree["w"][1] = jnp.asarray(tree["w"][1], jnp.bfloat16)
    x[:, 5] = np.asarray(tree["w"][1], np.float32)
    actual, expected = jax.jit(build(name))(tree), jitted(name)(x)
    assert jax.tree.structure(actual) == jax.tree.structure(tree)
    assert_close(actual["b"], expected[:1])
    assert_close(actual["w"][0], expected[1:5].reshape(2, 2))
    assert actual["w"][1].dtype == jnp.bfloat16
    assert_close(actual["w"][1], jnp.asarray(expected[5], jnp.bfloat16))


@each_rule
def test_order_of_workers_does_not_matter(name: str):
    for seed in range(10):
        x = honest(seed)
        order = np.random.default_rng(seed).permutation(N)
        if name == "monna":  # but for that of the reference
            order = np.concatenate([[0], order[order > 0]])
        assert_close(jitted(name)(x[order]), jitted(name)(x))


@each_rule
def test_translation_and_scale(name: str):
    for seed in range(5):
        x, shift = honest(seed), np.random.default_rng(seed).normal(0, 3, D).astype(np.float32)
        result = jitted(name)(x)
        if name in TRANSLATED:
            assert_close(jitted(name)(x + shift), result + shift)
        if name not in ("geometric_median", "centered_clipping"):  # ν and τ have a scale
            for scale in (-1, 4, 2**-10):
                assert_close(jitted(name)(scale * x), scale * result, atol=2e-5 * abs(scale))


def test_nu_and_tau_have_the_scale_of_the_vectors_and_may_be_traced():
    x = honest()
    for factory, value in ((rules.geometric_median, 2.0), (rules.centered_clipping, 1.5)):
        rule = jax.jit(lambda x, v, factory=factory: factory(v, num_steps=3)(x))
        assert_close(rule(4 * x, 4 * value), 4 * rule(x, value))
        assert_close(rule(x, value), jax.jit(factory(value, num_steps=3))(x))
        assert np.any(np.abs(rule(x, value) - rule(x, 3 * value)) > 1e-3)


@each_rule
@pytest.mark.parametrize(
    "attack",
    [
        np.full((F, D), 1e6),
        np.full((F, D), -1e6),
        np.full((F, D), np.nan),
        [[np.inf] * D, [-np.inf] * D],
        [[1e6] * D, [np.nan] + [0] * (D - 1)],
        np.full((F, D), 1e30),  # finite, but its square isn't
        np.full((F, D), 7e18),  # its square is, but a few times that isn't
    ],
)
def test_result_is_near_the_honest_mean_whatever_f_workers_send(name: str, attack: Any):
    for seed in range(3):
        x = honest(seed)
        byzantine = np.random.default_rng(seed).choice(np.arange(1, N), F, replace=False)
        x[byzantine] = attack
        good = np.delete(x, byzantine, axis=0)
        radius = np.linalg.norm(good - good.mean(axis=0), axis=1).max()
        result = jitted(name)(x)
        assert np.linalg.norm(result - good.mean(axis=0)) <= radius


@each_rule
@pytest.mark.parametrize("broken", [False, True])
def test_vectors_of_which_no_square_is_a_number(name: str, broken: bool):
    x = honest()
    if broken:
        x[[1, 3]] = [[math.nan], [math.inf]]
    scale = np.float32(2.0**90)
    result = jitted(name)(scale * x)
    if name in ("geometric_median", "centered_clipping"):  # ν and τ have a scale
        length = 4.0 if name == "centered_clipping" else np.linalg.norm(scale * np.ones(D))
        assert np.linalg.norm(result / length) < 3
    else:
        assert_close(result / scale, jitted(name)(x))
    assert np.all(np.isfinite(jitted(name)(np.full((N, D), 2e19, np.float32))))


@each_rule
@settings(max_examples=40)
@given(attack=ANYTHING, where=st.sampled_from([[0, 1], [3, 10]]))
def test_result_is_finite_whatever_f_workers_send(name: str, attack: np.ndarray, where: list[int]):
    x = honest()
    x[where] = attack
    assert np.all(np.isfinite(jitted(name)(x)))


@pytest.mark.parametrize("name", ["mda", "dnc", "bulyan"])
def test_rules_of_mixed_vectors(name: str):
    # A geometric rule is given the Gram matrix of the mixed vectors, which are never written.
    x, rule = honest(), rules.RULES[name](**SETTINGS[name])
    x[4] = np.nan
    mixed = jax.jit(lambda x: mixing.premixed(rule, mixing.nnm(F))(x, 0))(x)
    by_hand = np.full_like(x, np.nan)
    for i in set(range(N)) - {4}:
        apart = np.where(np.arange(N) == 4, np.inf, np.linalg.norm(x - x[i], axis=1))
        by_hand[i] = x[np.argsort(apart)[: N - F]].mean(axis=0)
    assert_close(mixed, jitted(name)(by_hand))

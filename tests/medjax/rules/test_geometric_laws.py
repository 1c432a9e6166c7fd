"""What holds of geometric rules whatever their weights: symmetries, pytrees, broken workers."""

import math
from collections.abc import Iterable
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
ANYTHING = hnp.arrays(np.float32, (F, D), elements=st.floats(width=32, allow_subnormal=False))


# A rule for each way to look at the vectors, and those with loops.
LOOKING = ("krum", "mda", "caf", "bulyan", "geometric_median", "centered_clipping", "dnc")
LOOKING += ("signguard", "clipped_clustering")


def apply_each(updates: Any, names: Iterable[str] = SETTINGS) -> dict[str, Any]:
    """Apply the rules to the updates."""
    built = {name: rules.RULES[name](**SETTINGS[name]) for name in names}
    return {name: rule(updates, 0 if rule.needs_key else None) for name, rule in built.items()}


# All rules in one program, which takes less to compile than one for each.
_PROGRAM = jax.jit(apply_each)


def apply(updates: Any) -> dict[str, Any]:
    return jax.device_get(_PROGRAM(updates))  # arithmetic with NumPy's arrays isn't a program


def honest(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(1, 1, size=(N, D)).astype(np.float32)


def assert_close(actual: Any, expected: Any, atol: float = 2e-5, name: str = "") -> None:
    np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=atol, err_msg=name)


@pytest.mark.slow
def test_pytrees_count_as_one_vector_in_vmap_and_scan_too():
    x = np.stack([honest(seed) for seed in range(6)]).reshape(2, 3, N, D)
    x[1, 0, 4] = np.nan  # the loops of each have lengths of their own
    half = x[..., 5].astype(jnp.bfloat16)
    w = [x[..., 1:5].reshape(2, 3, N, 2, 2), half]
    tree = {"b": x[..., :1], "none": np.ones((2, 3, N, 0), np.float32), "w": w}
    x[..., 5] = half.astype(np.float32)

    def scan(tree: Any) -> Any:
        return jax.lax.scan(lambda carry, one: (carry, apply_each(one, LOOKING)), None, tree)[1]

    results = jax.device_get(jax.jit(jax.vmap(scan))(tree))
    flat = [[apply(one) for one in some] for some in x]
    for name, actual in results.items():
        assert jax.tree.structure(actual) == jax.tree.structure(tree), name
        assert actual["none"].shape == (2, 3, 0), name
        expected = np.stack([[one[name] for one in some] for some in flat])
        assert_close(actual["b"], expected[..., :1], name=name)
        assert_close(actual["w"][0], expected[..., 1:5].reshape(2, 3, 2, 2), name=name)
        assert actual["w"][1].dtype == jnp.bfloat16, name
        rounded = expected[..., 5].astype(jnp.bfloat16).astype(np.float32)
        assert_close(actual["w"][1].astype(np.float32), rounded, name=name)


@pytest.mark.slow
def test_order_of_workers_does_not_matter():
    for seed in range(10):
        x = honest(seed)
        order = np.random.default_rng(seed).permutation(N)
        # The reference of monna stays where it is.
        but_first = np.concatenate([[0], order[order > 0]])
        expected, actual, fixed = (apply(x[i]) for i in (slice(None), order, but_first))
        for name in SETTINGS:
            permuted = fixed if name == "monna" else actual
            assert_close(permuted[name], expected[name], name=name)


@pytest.mark.slow
def test_translation_and_scale():
    for seed in range(5):
        x, shift = honest(seed), np.random.default_rng(seed).normal(0, 3, D).astype(np.float32)
        result, shifted = apply(x), apply(x + shift)
        for name in TRANSLATED:
            assert_close(shifted[name], result[name] + shift, name=name)
        for scale in (-1, 4, 2**-10):
            scaled = apply(scale * x)
            # ν and τ have a scale.
            for name in SETTINGS.keys() - {"geometric_median", "centered_clipping"}:
                assert_close(scaled[name], scale * result[name], 2e-5 * abs(scale), name)


@pytest.mark.slow
def test_nu_and_tau_have_the_scale_of_the_vectors_and_may_be_traced():
    factories = {rules.geometric_median: 2.0, rules.centered_clipping: 1.5}

    @jax.jit
    def by_both(x: jax.Array, scale: float) -> Any:
        traced = [factory(scale * v, num_steps=3)(x) for factory, v in factories.items()]
        return traced, [factory(v, num_steps=3)(x) for factory, v in factories.items()]

    x = honest()
    results, static = by_both(x, 1.0)
    assert_close(by_both(4 * x, 4.0)[0], 4 * np.stack(results))
    assert_close(results, static)
    others = np.stack(by_both(x, 3.0)[0])
    assert np.all(np.any(np.abs(np.stack(results) - others) > 1e-3, axis=1))


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
def test_result_is_near_the_honest_mean_whatever_f_workers_send(attack: Any):
    for seed in range(3):
        x = honest(seed)
        byzantine = np.random.default_rng(seed).choice(np.arange(1, N), F, replace=False)
        x[byzantine] = attack
        good = np.delete(x, byzantine, axis=0)
        radius = np.linalg.norm(good - good.mean(axis=0), axis=1).max()
        for name, result in apply(x).items():
            assert np.linalg.norm(result - good.mean(axis=0)) <= radius, name


@pytest.mark.parametrize("broken", [False, True])
def test_vectors_of_which_no_square_is_a_number(broken: bool):
    x = honest()
    if broken:
        x[[1, 3]] = [[math.nan], [math.inf]]
    scale = np.float32(2.0**90)
    expected = apply(x)
    for name, result in apply(scale * x).items():
        if name in ("geometric_median", "centered_clipping"):  # ν and τ have a scale
            length = 4.0 if name == "centered_clipping" else np.linalg.norm(scale * np.ones(D))
            assert np.linalg.norm(result / length) < 3, name
        else:
            assert_close(result / scale, expected[name], name=name)
    for name, result in apply(np.full((N, D), 2e19, np.float32)).items():
        assert np.all(np.isfinite(result)), name


@settings(max_examples=40)
@given(attack=ANYTHING, where=st.sampled_from([[0, 1], [3, 10]]))
def test_result_is_finite_whatever_f_workers_send(attack: np.ndarray, where: list[int]):
    x = honest()
    x[where] = attack
    for name, result in apply(x).items():
        assert np.all(np.isfinite(result)), name


@pytest.mark.slow
def test_rules_of_mixed_vectors():
    # A geometric rule is given the Gram matrix of the mixed vectors, which are never written.
    x, names = honest(), ("mda", "dnc", "bulyan")
    x[4] = np.nan

    def mix(x: jax.Array) -> list[jax.Array]:
        of = [mixing.premixed(rules.RULES[name](**SETTINGS[name]), mixing.nnm(F)) for name in names]
        return [rule(x, 0) for rule in of]

    by_hand = np.full_like(x, np.nan)
    for i in set(range(N)) - {4}:
        apart = np.where(np.arange(N) == 4, np.inf, np.linalg.norm(x - x[i], axis=1))
        by_hand[i] = x[np.argsort(apart)[: N - F]].mean(axis=0)
    expected = apply(by_hand)
    for name, mixed in zip(names, jax.jit(mix)(x), strict=True):
        assert_close(mixed, expected[name], name=name)

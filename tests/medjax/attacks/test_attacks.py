import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from medjax import attacks, mixing, rules

N, F = 9, 3
H = N - F
X = np.random.default_rng(3).normal(0.5, 1, (N, 5)).astype(np.float32)
HONEST, OWN = X[:H].astype(np.float64), X[H:].astype(np.float64)
MEAN, STD = HONEST.mean(axis=0), HONEST.std(axis=0, ddof=1)
DIRECTIONS = {"std": -STD, "unit": -MEAN / np.linalg.norm(MEAN), "sign": -np.sign(MEAN)}


def halving(fits: Callable[[float], bool]) -> float:
    """The search of Shejwalkar & Houmansadr (2021, algorithm 1), to convergence."""
    gamma, step, best = 1e3, 1e3, 0.0
    for _ in range(60):
        if fits(gamma):
            best = gamma
            gamma += step / 2
        else:
            gamma -= step / 2
        step /= 2
    return best


def pairwise(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.sum((a[:, None] - b[None]) ** 2, axis=2)


def min_max(p: np.ndarray) -> np.ndarray:
    limit = pairwise(HONEST, HONEST).max()
    return MEAN + p * halving(lambda g: pairwise(MEAN[None] + g * p, HONEST).max() <= limit)


def min_sum(p: np.ndarray) -> np.ndarray:
    limit = pairwise(HONEST, HONEST).sum(axis=1).max()
    return MEAN + p * halving(lambda g: pairwise(MEAN[None] + g * p, HONEST).sum() <= limit)


Z_MAX = stats.norm.ppf((N - F - 2) / (N - F))  # s = ⌊9/2 + 1⌋ - 3 = 2
CASES: dict[str, tuple[attacks.Attack, np.ndarray]] = {
    "sign_flip": (attacks.sign_flip(), -MEAN),
    "ipm": (attacks.ipm(), -2 * MEAN),
    "ipm(0.1)": (attacks.ipm(0.1), -0.1 * MEAN),
    "alie": (attacks.alie(), MEAN + 1.5 * STD),
    "alie(-1)": (attacks.alie(-1), MEAN - STD),
    "alie(None)": (attacks.alie(None), MEAN + Z_MAX * STD),
    "mimic": (attacks.mimic(), HONEST[0]),
    "mimic(5)": (attacks.mimic(5), HONEST[5]),
    "nan": (attacks.nonfinite(), np.full(5, np.nan)),
    "inf": (attacks.nonfinite("inf"), np.full(5, np.inf)),
    "-inf": (attacks.nonfinite("-inf"), np.full(5, -np.inf)),
    "model_replacement": (attacks.model_replacement(), 3 * OWN),
    "model_replacement(7)": (attacks.model_replacement(7), 7 * OWN),
} | {
    f"{make.__name__} {name}": (make(name), reference(p))
    for make, reference in ((attacks.min_max, min_max), (attacks.min_sum, min_sum))
    for name, p in DIRECTIONS.items()
}


@functools.cache
def all_sent() -> dict[str, np.ndarray]:
    """The vectors that all cases send, from one program."""
    send = jax.jit(lambda x: {case: attack(x, F) for case, (attack, _) in CASES.items()})
    return jax.device_get(send(X))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_equals_reference(case: str):
    sent, expected = all_sent()[case], CASES[case][1]
    np.testing.assert_array_equal(sent[:H], X[:H])
    np.testing.assert_allclose(sent[H:], np.broadcast_to(expected, (F, 5)), rtol=2e-6, atol=2e-6)


def forged(attack: attacks.Attack, *columns: list[float], key: Any = None) -> np.ndarray:
    """What one attacker sends against the honest values of each column."""
    x = np.float32(columns).T
    send = jax.jit(lambda x: attack(x, 1, key))
    return np.asarray(send(np.concatenate([x, 0 * x[:1]])))[-1]


def test_by_hand():
    # Of 1, 3, 8: μ = 4, σ² = (9 + 1 + 16)/2 = 13. Of 5, 5, 5: μ = 5, σ = 0.
    two = ([1, 3, 8], [5, 5, 5])
    np.testing.assert_allclose(forged(attacks.sign_flip(), *two), [-4, -5])
    np.testing.assert_allclose(forged(attacks.ipm(0.5), *two), [-2, -2.5])
    np.testing.assert_allclose(forged(attacks.alie(2), *two), [4 + 2 * np.sqrt(13), 5], rtol=1e-6)
    np.testing.assert_array_equal(forged(attacks.mimic(2), *two), [8, 5])


@pytest.mark.slow
def test_min_max_and_min_sum_by_hand():
    # 0, 2, 4 and 10, of mean 4, going down. The largest distance is 10: 10 - 10 = 0 is as far as
    # min-max goes. The largest sum of squares is that of 10, 100 + 64 + 36 = 200; that of 4 - γ is
    # (4 - γ)² + (2 - γ)² + γ² + (6 + γ)² = 4γ² + 56, so γ = 6 = |10 - 4|, and -2 is sent.
    for direction in ("std", "unit", "sign"):
        column = [0, 2, 4, 10]
        assert forged(attacks.min_max(direction), column) == pytest.approx(0, abs=1e-5)
        assert forged(attacks.min_sum(direction), column) == pytest.approx(-2, abs=1e-5)


@pytest.mark.slow
def test_distance_attacks_where_there_is_no_direction_send_the_mean():
    for make in (attacks.min_max, attacks.min_sum):
        np.testing.assert_array_equal(forged(make("std"), [2, 2], [3, 3]), [2, 3])
        np.testing.assert_array_equal(forged(make("unit"), [1, -1]), [0])


@pytest.mark.slow
def test_distance_attacks_do_not_lose_small_differences_to_a_large_common_part():
    # The first example, a thousandth the size, 1000 off: float32 there is exact to 2^-14.
    column = (1000 + np.array([0, 2, 4, 10]) * 2.0**-10).tolist()
    for make, expected in ((attacks.min_max, 0), (attacks.min_sum, -2)):
        found = (forged(make("sign"), column) - 1000) * 2**10
        assert found == pytest.approx(expected, abs=0.2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "f", "z"), [(10, 4, 0.430727), (50, 24, 1.426077), (10, 1, -0.13971)]
)
def test_z_max(n: int, f: int, z: float):
    # s = 6 - 4 = 2, Φ⁻¹(4/6); s = 26 - 24 = 2, Φ⁻¹(24/26); s = 6 - 1 = 5, Φ⁻¹(4/9).
    x = np.random.default_rng(n).normal(size=(n, 1)).astype(np.float32)
    honest = x[: n - f].astype(np.float64)
    sent = attacks.alie(None)(x, f)[-1]
    assert (sent - honest.mean()) / honest.std(ddof=1) == pytest.approx(z, abs=1e-5)


# A column for each case: all positive or all negative honest values, and mixed ones of either mean.
COLUMNS = ([2, 4], [-4, -2], [-1, 4], [-4, 1], [-2, 2])
# b = 2: down from 2 to 2/2; up from -2 to -2/2; down from -1 to -2; up from 1 to 2; μ = 0 is down.
INTERVALS = {2: [(1, 2), (-2, -1), (-2, -1), (1, 2), (-4, -2)]}
# b = 4 of the same.
INTERVALS[4] = [(0.5, 2), (-2, -0.5), (-4, -1), (1, 4), (-8, -2)]


@pytest.mark.parametrize("factor", INTERVALS)
def test_fang_draws_from_the_papers_intervals(factor: float):
    repeats, f = 1000, 4
    columns = np.repeat(np.float32(COLUMNS), repeats, axis=0)
    x = np.concatenate([columns.T, np.zeros((f, columns.shape[0]), np.float32)])
    sent = np.asarray(jax.jit(lambda x, k: attacks.fang(factor)(x, f, k))(x, 0))[2:]
    for i, (low, high) in enumerate(INTERVALS[factor]):
        drawn = sent[:, i * repeats : (i + 1) * repeats].ravel()
        # Uniform: the distribution function of 4000 draws is within 0.03 (p ~ 0.001) of its own.
        assert stats.kstest((drawn - low) / (high - low), "uniform").statistic < 0.031
    assert len(np.unique(sent[:, :repeats])) > 0.99 * f * repeats  # workers draw apart


@pytest.mark.slow
def test_gaussian_is_standard_normal_times_its_scale_and_a_function_of_the_key():
    x = {"a": np.zeros((6, 3000), np.float32), "b": np.zeros((6, 3000), np.float32)}
    send = jax.jit(lambda scale, key: attacks.gaussian(scale)(x, 2, key))
    first = send(3.0, 1)
    drawn = np.concatenate([np.asarray(first[leaf])[4:].ravel() for leaf in "ab"])
    assert stats.kstest(drawn / 3, "norm").statistic < 0.018  # of 12000, p ~ 0.001
    assert len(np.unique(drawn)) > 11900  # leaves and workers draw apart
    np.testing.assert_array_equal(send(6.0, 1)["b"], 2 * first["b"])
    np.testing.assert_array_equal(send(3.0, jax.random.key(1))["a"], first["a"])
    assert np.all(np.asarray(send(3.0, 2)["a"])[4:] != np.asarray(first["a"])[4:])


VECTOR_ATTACKS = {
    name: make(rules.median()) if name.startswith("optimal") else make()
    for name, make in attacks.ATTACKS.items()
    if name not in ("label_flip", "backdoor")
}
TREE = {"w": X.reshape(N, 5, 1)[:, :3], "b": [X[:, 3], X[:, 4:]], "none": np.zeros((N, 0, 2), "f4")}
DRAWING = ("fang", "gaussian")


@jax.jit
def send_all(x: Any) -> dict[str, Any]:
    """By all attacks, in one program."""
    return {name: attack(x, F, 0) for name, attack in VECTOR_ATTACKS.items()}


def sent_by_all(x: Any) -> dict[str, Any]:
    return jax.device_get(send_all(x))  # slices of NumPy's arrays aren't programs


@pytest.mark.slow
def test_a_pytree_is_one_vector_and_f_of_0_changes_nothing():
    wholes = sent_by_all(X)
    for name, sent in sent_by_all(TREE).items():
        attack = VECTOR_ATTACKS[name]
        assert attack.needs_key == (name in DRAWING), name
        assert jax.tree.map(jnp.shape, sent) == jax.tree.map(jnp.shape, TREE), name
        if name not in DRAWING:
            parts = [sent["w"].reshape(N, 3), sent["b"][0][:, None], sent["b"][1]]
            whole = np.concatenate(parts, 1)
            np.testing.assert_allclose(whole, wholes[name], rtol=2e-6, atol=2e-6, err_msg=name)
        assert attack(TREE, 0, 0) is TREE, name


@pytest.mark.slow
def test_half_precision_is_forged_in_float32_and_rounded():
    x = X.astype(jnp.bfloat16)
    expected = sent_by_all(x.astype(np.float32))
    for name, sent in sent_by_all(x).items():
        assert sent.dtype == jnp.bfloat16, name
        np.testing.assert_array_equal(sent[:H], x[:H], name)
        forged = np.asarray(sent, np.float32)[H:]
        np.testing.assert_allclose(forged, expected[name][H:], rtol=2**-8, err_msg=name)


@pytest.mark.slow
def test_vmap_equals_each():
    batch = np.stack([X, X[::-1]])
    batched, each = jax.jit(jax.vmap(send_all))(batch), [sent_by_all(x) for x in batch]
    for name, sent in batched.items():
        expected = np.stack([one[name] for one in each])
        np.testing.assert_allclose(sent, expected, rtol=2e-6, atol=2e-6, err_msg=name)


@pytest.mark.slow
def test_settings_may_be_traced():
    for make in (attacks.ipm, attacks.alie, attacks.model_replacement):
        traced = jax.jit(lambda tau, make=make: make(tau)(X, F))(0.25)
        np.testing.assert_allclose(traced, make(0.25)(X, F), rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: attacks.ipm(-1), ValueError, "tau must be a finite number at least 0, got -1"),
        (lambda: attacks.ipm("2"), TypeError, "tau must be a real number, got '2'"),
        (lambda: attacks.alie(np.nan), ValueError, "tau must be a finite number"),
        (lambda: attacks.fang(1.0), ValueError, "factor must be a finite number above 1, got 1"),
        (lambda: attacks.gaussian(-1), ValueError, "scale must be a finite number at least 0"),
        (lambda: attacks.model_replacement(-1), ValueError, "scale must be a finite number at le"),
        (lambda: attacks.mimic(-1), ValueError, "worker must be at least 0, got -1"),
        (lambda: attacks.nonfinite("zero"), ValueError, "one of nan, inf, -inf; got 'zero'"),
        (lambda: attacks.min_max("up"), ValueError, "one of std, unit, sign; got 'up'"),
        (lambda: attacks.optimal_ipm(rules.median), TypeError, "rule must be built, such as"),
        (lambda: attacks.optimal_ipm(mixing.nnm(1)), TypeError, "rule must be built, such as"),
        (lambda: attacks.optimal_alie(rules.mean(), 0), ValueError, "max_tau must be .* above 0"),
        (lambda: attacks.optimal_alie(rules.mean(), 1, 2), ValueError, "num_points must be at l"),
        (lambda: attacks.optimal_alie(rules.mean(), 1, 3, 0), ValueError, "num_rounds must be at"),
        (lambda: attacks.mimic(6)(X, F), ValueError, "honest worker 6, got only 6 honest workers"),
        (lambda: attacks.alie()(X[:2], 1), ValueError, "alie.* needs at least 2 honest workers"),
        (lambda: attacks.min_sum()(X[:2], 1), ValueError, "min_sum.* needs at least 2 honest work"),
        (
            lambda: attacks.alie(None)(X, 5),
            ValueError,
            "needs 2f <= n, got f = 5 and n = 9 workers",
        ),
        (lambda: attacks.ipm()(X, 9), ValueError, "f < n, got f = 9 Byzantine of n = 9 workers"),
        (lambda: attacks.ipm()(X, -1), ValueError, "num_byzantine must be at least 0, got -1"),
        (lambda: attacks.ipm()(X, 1.5), TypeError, "num_byzantine must be an integer, got 1.5"),
        (lambda: attacks.ipm()({}, 1), ValueError, "need at least one array, got an empty pytree"),
        (lambda: attacks.fang()(X, 1), ValueError, r"fang\(factor=2\) draws random numbers: give"),
    ],
)
def test_impossible_settings(make: Callable[[], Any], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        make()

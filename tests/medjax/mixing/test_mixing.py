"""Mixing: n vectors to m combinations of them, before a rule or as a stage of a chain."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import medjax
from medjax import aggregate, mixing, rules
from medjax._engine.lazy import as_lazy
from medjax._engine.vectors import vectors_of

NAN, INF = math.nan, math.inf


def column(*values: float) -> np.ndarray:
    return np.array(values, np.float32)[:, None]


def normals(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(1, 1, size=(n, d)).astype(np.float32)


def mix(stage: mixing.Mixing, x: Any) -> Any:
    """Mix stacked updates by the stage as a transform."""
    tx = medjax.mix(stage, key=3 if stage.needs_key else None)
    return tx.update(x, tx.init(None))[0]


def nnm(x: np.ndarray, f: int) -> np.ndarray:
    apart = np.linalg.norm(x[:, None] - x, axis=2)
    return np.stack([x[np.argsort(row)[: len(x) - f]].mean(axis=0) for row in apart])


def clip(x: np.ndarray, length: float) -> np.ndarray:
    return x * np.minimum(1, length / np.linalg.norm(x, axis=1))[:, None]


def arc(x: np.ndarray, f: int) -> np.ndarray:
    n = len(x)
    return clip(x, np.sort(np.linalg.norm(x, axis=1))[::-1][2 * f * (n - f) // n])


REFERENCES = {
    mixing.nnm(2): lambda x: nnm(x, 2),
    mixing.clip(2.0): lambda x: clip(x, 2.0),
    mixing.arc(2): lambda x: arc(x, 2),
}


@jax.jit
def mix_by_each(x: Any) -> dict[str, Any]:
    """All stages in one program."""
    return {stage.name: mix(stage, x) for stage in REFERENCES}


def mixed(x: Any) -> dict[str, Any]:
    return jax.device_get(mix_by_each(x))  # slices of NumPy's arrays aren't programs


@pytest.mark.slow
@pytest.mark.parametrize("n", [5, 8])
def test_equals_reference(n: int):
    for seed in range(4):
        x = normals(n, 3, seed)
        x[0] *= 5
        actual = mixed(x)
        for stage, reference in REFERENCES.items():
            expected = reference(x.astype(np.float64))
            np.testing.assert_allclose(
                actual[stage.name], expected, rtol=1e-5, atol=1e-5, err_msg=stage.name
            )


BY_HAND: list[tuple[mixing.Mixing, np.ndarray, list[float]]] = [
    # 2 is as near to 1 as to 3: the lower index.
    (mixing.nnm(1), column(1, 2, 3), [1.5, 1.5, 2.5]),
    # One that isn't finite stays so, and has no part in others.
    (mixing.nnm(1), column(1, 2, NAN, 4), [7 / 3, 7 / 3, NAN, 7 / 3]),
    (mixing.nnm(1), column(INF, 1, 3), [NAN, 2, 2]),
    (mixing.clip(2.0), column(1, -4, 0, NAN, INF), [1, -2, 0, 0, 0]),
    # k = ⌊2 · 1 · 4/5⌋ = 1 is clipped to the second length; ⌊2 · 2 · 3/5⌋ = 2 to the third.
    (mixing.arc(1), column(1, -9, 2, 5, 3), [1, -5, 2, 5, 3]),
    (mixing.arc(2), column(1, -9, 2, 5, 3), [1, -3, 2, 3, 3]),
    (mixing.arc(1), column(1, NAN, 2, 5, 3), [1, 0, 2, 5, 3]),
    (mixing.arc(0), column(1, 9), [1, 9]),
]


@pytest.mark.slow
def test_by_hand():
    stages, xs, expected = zip(*BY_HAND, strict=True)
    mix_all = jax.jit(lambda xs: [mix(stage, x) for stage, x in zip(stages, xs, strict=True)])
    for stage, x, actual, rows in zip(
        stages, xs, jax.device_get(mix_all(xs)), expected, strict=True
    ):
        name = f"{stage.name} of {x[:, 0]}"
        np.testing.assert_allclose(actual[:, 0], rows, rtol=1e-6, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "s"), [(7, 3), (6, 2), (5, 5)])
def test_bucketing_averages_groups_of_a_random_order(n: int, s: int):
    stage, vectors = mixing.bucketing(s), vectors_of(as_lazy(normals(n, 2)))
    draw = jax.jit(lambda seed: stage.matrix(vectors, jax.random.key(seed)))
    matrices = np.stack([draw(seed) for seed in range(60)])
    sizes = [s] * (n // s) + [n % s] * (n % s > 0)
    members = matrices > 0
    np.testing.assert_array_equal(members.sum(axis=1), 1)  # each worker is in one group
    np.testing.assert_array_equal(members.sum(axis=2), [sizes] * 60)
    np.testing.assert_allclose(matrices.sum(axis=2), 1, rtol=1e-6)
    if s < n:  # each worker is in each group sometimes
        assert np.all(members.any(axis=0))


@pytest.mark.parametrize(("n", "s"), [(7, 3), (6, 2)])
def test_bucketing_equals_reference_given_its_order(n: int, s: int):
    x, stage = normals(n, 2), mixing.bucketing(s)
    draw = jax.jit(lambda key: stage.matrix(vectors_of(as_lazy(x)), key))
    for seed in range(5):
        key = jax.random.key(seed)
        order = np.asarray(jax.random.permutation(key, n))
        expected = [x[order[i : i + s]].mean(axis=0) for i in range(0, n, s)]
        np.testing.assert_allclose(draw(key) @ x, expected, rtol=1e-5)


@pytest.mark.slow
def test_a_stage_that_draws_does_so_anew_at_each_step():
    x = normals(6, 2)
    tx = medjax.mix(mixing.bucketing(2), key=5)
    update, state, outs = jax.jit(tx.update), tx.init(None), []
    for _ in range(8):
        out, state = update(x, state)
        outs.append(np.asarray(out))
        np.testing.assert_allclose(outs[-1].mean(axis=0), x.mean(axis=0), rtol=1e-5)
    assert len({out.tobytes() for out in outs}) > 1
    again, _ = update(x, medjax.mix(mixing.bucketing(2), key=5).init(None))
    np.testing.assert_allclose(again, outs[0], rtol=1e-6)


@pytest.mark.slow
def test_pytree_counts_as_one_vector():
    x = normals(8, 5)
    half = x[:, 4].astype(jnp.bfloat16)
    x[:, 4] = half
    none = np.ones((8, 0), np.float32)
    expected = mixed(x)
    for name, out in mixed({"a": x[:, :4].reshape(8, 2, 2), "b": half, "none": none}).items():
        a, b = out["a"].reshape(8, 4), np.asarray(out["b"], np.float32)
        np.testing.assert_allclose(a, expected[name][:, :4], rtol=1e-5, atol=1e-6, err_msg=name)
        assert out["b"].dtype == jnp.bfloat16, name
        np.testing.assert_allclose(b, expected[name][:, 4], rtol=2**-8, atol=1e-6, err_msg=name)


@pytest.mark.slow
def test_order_of_workers_is_kept():
    x, order = normals(8, 3), np.random.default_rng(1).permutation(8)
    permuted = mixed(x[order])
    for name, rows in mixed(x).items():
        np.testing.assert_allclose(permuted[name], rows[order], 1e-5, 1e-6, err_msg=name)


@pytest.mark.slow
def test_vmap_agrees_with_jit():
    many = np.stack([normals(8, 3, seed) for seed in range(3)])
    each = [mixed(x) for x in many]
    for name, batched in jax.vmap(mix_by_each)(many).items():
        one_by_one = np.stack([one[name] for one in each])
        np.testing.assert_allclose(batched, one_by_one, rtol=1e-5, atol=1e-6, err_msg=name)


def test_the_norm_to_clip_to_may_be_traced():
    x = normals(5, 3)

    def clipped(c: jax.Array) -> Any:
        stage = medjax.mix(mixing.clip(c))
        return stage.update(x, stage.init(None))[0]

    for c in (0.5, 2.0):
        np.testing.assert_allclose(jax.jit(clipped)(c), clip(x, c), rtol=1e-5)


@pytest.mark.slow
def test_premixed_is_mixing_and_then_the_rule():
    x = normals(9, 4)
    x[3] = 100
    stages = (mixing.arc(1), mixing.nnm(2))
    by_hand = nnm(arc(x.astype(np.float64), 1), 2)
    expected = {
        rules.mean(): by_hand.mean(axis=0),
        rules.median(): np.median(by_hand, axis=0),
        rules.cge(4): by_hand[np.argsort(np.linalg.norm(by_hand, axis=1))[:5]].mean(axis=0),
    }

    @jax.jit
    def apply(x: np.ndarray) -> list[Any]:
        both = [mixing.premixed(rule, *stages) for rule in expected]
        for rule, one in zip(expected, both, strict=True):
            assert isinstance(one, rules.Rule)
            assert one.name == f"arc(num_byzantine=1), nnm(num_byzantine=2), {rule.name}"
        mixes = [medjax.mix(stage) for stage in stages]
        chains = [optax.chain(*mixes, aggregate(rule)) for rule in expected]
        return [
            (rule(x), chain.update(x, chain.init(x[0]))[0])
            for rule, chain in zip(both, chains, strict=True)
        ]

    for (rule, value), results in zip(expected.items(), apply(x), strict=True):
        for result in results:
            np.testing.assert_allclose(result, value, rtol=1e-4, err_msg=rule.name)
    assert mixing.premixed(rules.median()).name == "median"


@pytest.mark.slow
def test_premixed_draws_by_its_key():
    x = normals(6, 2)
    rule = jax.jit(mixing.premixed(rules.krum(0), mixing.bucketing(2), mixing.bucketing(1)))
    outs = {np.asarray(rule(x, key)).tobytes() for key in range(10)}
    assert len(outs) > 1
    np.testing.assert_array_equal(rule(x, 1), rule(x, jax.random.key(1)))


def test_names():
    assert [make().name for make in (mixing.bucketing, lambda: mixing.clip(2.0))] == [
        "bucketing(bucket_size=2)",
        "clip(max_norm=2)",
    ]
    assert set(mixing.MIXINGS) == {"nnm", "bucketing", "clip", "arc"}


X = np.ones((4, 1), np.float32)


def use(stage: mixing.Mixing) -> Any:
    tx = medjax.mix(stage, key=0)
    return tx.update(X, tx.init(None))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: mixing.nnm(-1), ValueError, "num_byzantine must be at least 0, got -1"),
        (lambda: mixing.arc(1.0), TypeError, "num_byzantine must be an integer, got 1.0"),
        (lambda: use(mixing.nnm(2)), ValueError, r"nnm\(.*=2\) needs 2f < n, got f = 2 and n = 4"),
        (lambda: use(mixing.arc(2)), ValueError, r"arc\(.*=2\) needs 2f < n, got f = 2 and n = 4"),
        (lambda: mixing.bucketing(0), ValueError, "bucket_size must be at least 1, got 0"),
        (lambda: use(mixing.bucketing(5)), ValueError, r"=5\) needs at least 5 workers, got n = 4"),
        (lambda: mixing.clip(0.0), ValueError, "max_norm must be a finite number above 0, got 0"),
        (lambda: mixing.clip("1"), TypeError, "max_norm must be a real number, got '1'"),
        (lambda: medjax.mix(mixing.bucketing(2)), ValueError, "draws random numbers: give mix a k"),
        (
            lambda: medjax.mix(mixing.arc),
            TypeError,
            r"be built, such as medjax.mixing.nnm\(1\), or",
        ),
        (lambda: mixing.premixed(rules.median), TypeError, "rule must be built, such as medjax.ru"),
        (
            lambda: mixing.premixed(rules.centered_clipping_from_last(1.0), mixing.nnm(1)),
            TypeError,
            r"rule must be one without memory, got centered_clipping_from_last\(tau=1, num_steps=1",
        ),
        (
            lambda: mixing.premixed(rules.median(), mixing.arc),
            TypeError,
            "mixing must be built, ",
        ),
        (
            lambda: mixing.premixed(rules.median(), mixing.bucketing(2))(X),
            ValueError,
            r"bucketing\(bucket_size=2\) draws random numbers: give it a key",
        ),
    ],
)
def test_errors(make: Callable[[], Any], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        jax.eval_shape(make)

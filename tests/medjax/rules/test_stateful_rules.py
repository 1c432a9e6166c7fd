"""Rules that remember their earlier steps."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from medjax import aggregate, mixing, rules

N, D, NUM_STEPS = 7, 4, 12
NAN = math.nan


def column(*values: float) -> np.ndarray:
    return np.array(values, np.float32)[:, None]


def trajectory(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Parameters and stacked updates of some steps; workers 1 and 4 are Byzantine."""
    rng = np.random.default_rng(seed)
    params = np.cumsum(rng.normal(0, 0.3, (NUM_STEPS, D)), axis=0)
    updates = rng.normal(1, 0.3, (NUM_STEPS, N, D))
    updates[:, 1] += 0.5  # not much at a time
    updates[seed + 3, 4] += 10  # once
    return params.astype(np.float32), updates.astype(np.float32)


def run(rule: rules.StatefulRule, params: Any, updates: Any) -> tuple[Any, Any]:
    """The aggregates and the states of all steps."""

    def step(state: Any, given: Any) -> tuple[Any, Any]:
        out, state = rule.update(given[1], state, given[0])
        return state, (out, state)

    start = rule.init(jax.tree.map(lambda p: p[0], params))
    return jax.lax.scan(step, start, (params, updates))[1]


@pytest.mark.slow
def test_clipping_from_last_equals_reference():
    params, updates = trajectory(0)
    outs, states = jax.jit(lambda *x: run(rules.centered_clipping_from_last(0.7, 2), *x))(
        params, updates
    )
    v = np.zeros(D)
    for x, out, last in zip(updates.astype(np.float64), outs, states.last, strict=True):
        for _ in range(2):
            lengths = np.linalg.norm(x - v, axis=1, keepdims=True)
            v = v + np.mean((x - v) * np.minimum(1, 0.7 / lengths), axis=0)
        np.testing.assert_allclose(out, v, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(last, out)
    # Each step is that of a rule that starts there, as is that of mixed vectors.

    @jax.jit
    def apart(updates: jax.Array) -> list[jax.Array]:
        second = rules.centered_clipping(0.7, 2, outs[0])
        mixed = mixing.premixed(second, mixing.bucketing(1))  # another order
        return [
            rules.centered_clipping(0.7, 2)(updates[0]),
            second(updates[1]),
            mixed(updates[1], key=0),
        ]

    for found, out in zip(apart(updates), (outs[0], outs[1], outs[1]), strict=True):
        np.testing.assert_allclose(found, out, rtol=1e-5)


@pytest.mark.slow
def test_clipping_from_last_of_pytrees_in_half_precision():
    _, updates = trajectory(1)
    shape = jax.ShapeDtypeStruct
    like = {"a": shape((2,), jnp.bfloat16), "b": shape((), jnp.float32)}
    rule = rules.centered_clipping_from_last(0.5)
    tree = {"a": jnp.asarray(updates[..., :2], jnp.bfloat16), "b": updates[..., 2]}
    update = jax.jit(lambda x, state: rule.update(x, state, None))
    whole = jax.jit(lambda x, state: rule.update(x, state, None))
    state, other = rule.init(like), rule.init(jnp.zeros(3))
    for t in range(3):
        x = jax.tree.map(lambda leaf, t=t: leaf[t], tree)
        out, state = update(x, state)
        flat = jnp.concatenate([x["a"].astype(jnp.float32), x["b"][:, None]], axis=1)
        expected, other = whole(flat, other)
        assert out["a"].dtype == jnp.bfloat16
        assert state.last["a"].dtype == jnp.float32  # nothing is rounded between the steps
        np.testing.assert_allclose(state.last["a"], expected[:2], rtol=1e-5)
        np.testing.assert_array_equal(out["a"], expected[:2].astype(jnp.bfloat16))
        np.testing.assert_allclose(out["b"], expected[2], rtol=1e-5)


@pytest.mark.slow
def test_clipping_from_last_stands_still_for_what_is_not_finite():
    rule = rules.centered_clipping_from_last(10.0)
    state, update = rule.init(jnp.zeros(1)), jax.jit(lambda x, state: rule.update(x, state, None))
    for expected in (1.0, 1.5):  # (2 + 0)/2, then 1 + (1 + 0)/2
        out, state = update(column(2, NAN), state)
        assert out == expected


def byzantine_sgd(
    params: np.ndarray, updates: np.ndarray, bound: float, t_a: float, t_b: float
) -> tuple[list[np.ndarray], list[list[int]]]:
    """Algorithm 1, word for word."""
    n = updates.shape[1]

    def near(x: np.ndarray, threshold: float, reach: float) -> np.ndarray:
        apart = np.linalg.norm(x[:, None] - x, axis=2)
        median = next(i for i in range(n) if np.sum(apart[i] <= threshold) > n / 2)
        return apart[median] <= reach

    good, outs, goods = set(range(n)), [], []
    for k in range(len(params)):
        a = sum(updates[t] @ (params[t] - params[0]) for t in range(k + 1))
        fine = np.abs(a - np.median(a)) <= t_a
        fine &= near(updates[: k + 1].sum(axis=0), t_b, t_b)
        fine &= near(updates[k], 2 * bound, 4 * bound)
        good &= set(np.flatnonzero(fine).tolist())
        outs.append(updates[k][sorted(good)].mean(axis=0))
        goods.append(sorted(good))
    return outs, goods


@pytest.mark.slow
def test_byzantine_sgd_equals_reference():
    both = jax.jit(lambda bounds, *x: run(rules.byzantine_sgd(2, N, *bounds), *x))
    dropped = set()
    # Loose in all but one: by what is sent, by the products, by the sums.
    for bounds in ((1.0, 1e3, 1e3), (1e2, 3.0, 1e3), (1e2, 1e3, 6.0), (1.0, 6.0, 6.0)):
        for seed in (0, 1):
            params, updates = trajectory(seed)
            given = (params.astype(np.float64), updates.astype(np.float64))
            expected, good = byzantine_sgd(*given, *bounds)
            outs, states = both(bounds, params, updates)
            np.testing.assert_allclose(outs, expected, rtol=1e-4, atol=1e-5)
            assert [np.flatnonzero(g).tolist() for g in states.good] == good
            dropped.add(tuple(set(range(N)) - set(good[-1])))
    assert {(4,), (1, 4)} <= dropped  # each is found out by something


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bounds", "params", "sent", "expected"),
    [
        # B: 0 and 1 are within 3 of each other, 10 isn't; who is dropped stays so.
        ((9.0, 9.0, 3.0), [0, 0], [(0, 1, 10), (0, 1, 0)], [0.5, 0.5]),
        # A = 0, 0, 0, then 1, 1, -1 at x_2 - x_1 = 1.
        ((9.0, 1.5, 9.0), [5, 6], [(1, 1, -1), (1, 1, -1)], [1 / 3, 1]),
        # Who is away by no more than the threshold stays: A = -50, 0, 1, 1.5 and 1.
        ((99.0, 1.0, 999.0), [0, 1], [(0,) * 5, (-50, 0, 1, 1.5, 1)], [0, 3.5 / 4]),
        # Just within 2V = 4 of 0, the first with three, are 4 and -4; within 4V = 8 is 8, not 9.
        ((2.0, 99.0, 99.0), [0], [(9, 0, 4, -4, 8)], [2]),
        # So where squares overflow.
        ((2e25, 1e30, 1e30), [0], [(3e26, 0, 3e25, -3e25, 7e25)], [1.75e25]),
        # 0 has half of them within 2, but 2 has more than half.
        ((1.0, 99.0, 99.0), [0], [(0, 2, 4, 6)], [3]),
        # No vector has more than half within 2V = 2: 10 has the most, and 4V = 4.
        ((1.0, 99.0, 99.0), [0], [(0, 10, 11, 30)], [10.5]),
        # Nobody is near another: the first.
        ((1.0, 99.0, 99.0), [0], [(NAN, 10, 50, 30)], [10]),
        # Who sends NaN or ±∞ is dropped at once, and for good; with nobody left there is no step.
        ((9.0, 99.0, 99.0), [0, 0], [(1, NAN, 2), (0, 0, 2)], [1.5, 1]),
        ((9.0, 99.0, 99.0), [0, 0], [(1, 2, 3), (NAN, math.inf, NAN)], [2, 0]),
    ],
)
def test_byzantine_sgd_by_hand(bounds: Any, params: list, sent: list, expected: list):
    rule = rules.byzantine_sgd(1, len(sent[0]), *bounds)
    x = np.array(sent, np.float32)[..., None]
    outs, states = jax.jit(lambda *x: run(rule, *x))(column(*params), x)
    np.testing.assert_allclose(outs[:, 0], expected, rtol=1e-6)
    np.testing.assert_array_equal(states.sums, np.cumsum(x, axis=0))
    np.testing.assert_array_equal(states.step, 1 + np.arange(len(sent)))


@pytest.mark.slow
def test_byzantine_sgd_of_pytrees_in_half_precision():
    params, updates = trajectory(1)

    def split(x: np.ndarray) -> dict[str, Any]:
        return {"a": x[..., :3].astype(jnp.bfloat16), "b": x[..., 3]}

    rounded = updates.copy()
    rounded[..., :3] = rounded[..., :3].astype(jnp.bfloat16)
    params[:, :3] = params[:, :3].astype(jnp.bfloat16)
    rule = rules.byzantine_sgd(2, N, 1.0, 6.0, 6.0)
    whole, states = jax.jit(lambda *x: run(rule, *x))(params, rounded)
    parts, others = jax.jit(lambda *x: run(rule, *x))(split(params), split(updates))
    np.testing.assert_array_equal(others.good, states.good)
    np.testing.assert_allclose(others.products, states.products, rtol=1e-5, atol=1e-5)
    assert others.sums["a"].dtype == jnp.float32
    np.testing.assert_array_equal(parts["a"], whole[:, :3].astype(jnp.bfloat16))
    np.testing.assert_allclose(parts["b"], whole[:, 3], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "rule",
    [
        rules.centered_clipping_from_last(0.7),
        rules.byzantine_sgd(2, N, 1.0, 6.0, jnp.float32(6.0)),
    ],
)
def test_state_is_kept_in_the_chain_and_under_vmap(rule: rules.StatefulRule):
    tx = optax.chain(optax.scale(-1.0), aggregate(rule), optax.scale(0.1))

    def train(updates: jax.Array) -> jax.Array:
        def step(carry: Any, x: jax.Array) -> tuple[Any, jax.Array]:
            params, state = carry
            out, state = tx.update(x, state, params)
            return (optax.apply_updates(params, out), state), out

        return jax.lax.scan(step, (jnp.ones(D), tx.init(jnp.ones(D))), updates)[1]

    many = np.stack([trajectory(seed)[1] for seed in range(3)])
    outs = jax.jit(jax.vmap(train))(many)
    params = 1 + np.cumsum(outs, axis=1) - outs
    update = jax.jit(rule.update)
    for updates, xs, out in zip(many, params, outs, strict=True):
        state = rule.init(jnp.ones(D))
        for t in range(NUM_STEPS):
            expected, state = update(-updates[t], state, jnp.asarray(xs[t]))
            np.testing.assert_allclose(out[t], 0.1 * expected, rtol=1e-4, atol=1e-6)


def test_names():
    assert rules.centered_clipping_from_last(0.5).name == (
        "centered_clipping_from_last(tau=0.5, num_steps=1)"
    )
    traced = rules.byzantine_sgd(1, 3, 2.0, 3.5, jnp.ones(()))
    assert traced.name == (
        "byzantine_sgd(num_byzantine=1, num_workers=3, gradient_bound=2, "
        "product_threshold=3.5, sum_threshold)"
    )


def update(params: Any, n: int) -> Any:
    rule = rules.byzantine_sgd(1, 3, 1.0, 1.0, 1.0)
    return rule.update(np.ones((n, 1), np.float32), rule.init(np.ones(1, np.float32)), params)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: rules.byzantine_sgd(2, 4, 1.0, 1.0, 1.0), ValueError, "2f < n, got f = 2 and n ="),
        (lambda: rules.byzantine_sgd(0, 0, 1.0, 1.0, 1.0), ValueError, "num_workers must be at le"),
        (lambda: rules.byzantine_sgd(1, 3, 0.0, 1.0, 1.0), ValueError, "gradient_bound must be a "),
        (lambda: rules.byzantine_sgd(1, 3, 1.0, -1, 1.0), ValueError, "product_threshold must be "),
        (lambda: rules.byzantine_sgd(1, 3, 1.0, 1.0, "1"), TypeError, "sum_threshold must be a re"),
        (lambda: update(None, 3), ValueError, "byzantine_sgd(.*) needs the parameters: give them "),
        (lambda: update(np.ones(1), 4), ValueError, "built for 3 workers, got updates stacked fro"),
        (lambda: rules.centered_clipping_from_last(-1.0), ValueError, "tau must be a finite numbe"),
    ],
)
def test_impossible_settings(make: Callable[[], Any], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        jax.eval_shape(make)

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import medjax
from medjax import aggregate, attacks, rules

N, F = 7, 2
X = np.random.default_rng(0).normal(size=(N, 3)).astype(np.float32)


def step(tx: optax.GradientTransformation, x: Any, num_steps: int = 1) -> Any:
    """What comes out of the last of so many steps."""
    state, out = tx.init(jax.tree.map(lambda leaf: leaf[0], x)), None
    for _ in range(num_steps):
        out, state = tx.update(x, state)
    return out


def changed(out: Any, x: np.ndarray = X) -> list[int]:
    return np.flatnonzero(np.any(np.asarray(out) != x, axis=1)).tolist()


@pytest.mark.slow
def test_the_last_workers_are_byzantine_by_default():
    out = step(medjax.attack(attacks.sign_flip(), F), X)
    np.testing.assert_array_equal(out[: N - F], X[: N - F])
    np.testing.assert_allclose(out[N - F :], np.tile(-X[: N - F].mean(axis=0), (F, 1)), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("chosen", [[0, 3], (3, 0), np.array([1, 6]), [5, 6]])
def test_byzantine_workers_by_index(chosen: Any):
    out = step(medjax.attack(attacks.sign_flip(), F, byzantine=chosen), X)
    honest = np.delete(X, chosen, axis=0)
    assert changed(out) == sorted(chosen)
    expected = np.tile(-honest.mean(axis=0), (F, 1))
    np.testing.assert_allclose(out[np.asarray(chosen)], expected, rtol=1e-6, atol=1e-7)


@pytest.mark.slow
def test_honest_and_own_vectors_are_given_in_the_order_of_the_workers():
    out = step(medjax.attack(attacks.mimic(2), 2, byzantine=[4, 1]), X)
    np.testing.assert_array_equal(out[1:5:3], X[[3, 3]])  # honest are 0, 2, 3, 5, 6
    out = step(medjax.attack(attacks.model_replacement(2), 3, 0, byzantine="random"), X)
    twice = changed(out)
    assert len(twice) == 3
    np.testing.assert_array_equal(out[np.array(twice)], 2 * X[twice])


@pytest.mark.parametrize("byzantine", ["last", "random", [1, 6]])
def test_the_state_tells_who_sent_what_is_not_finite(byzantine: Any):
    x = {"a": X, "b": np.ones((N, 2, 2), np.float32)}
    # Scaled by 2^127, ones overflow in the rows where X is above 2 or b is: which rows is NumPy's.
    x["b"][[1, 5]] = 4
    tx = medjax.attack(attacks.model_replacement(2.0**127), F, 0, byzantine=byzantine)
    state = tx.init(jax.tree.map(lambda leaf: leaf[0], x))
    np.testing.assert_array_equal(state.nonfinite, [False, False])  # nothing has been sent
    sent, state = jax.jit(tx.update)(x, state)
    overflown = ~np.isfinite(np.asarray(sent["b"])).all(axis=(1, 2))
    overflown |= ~np.isfinite(np.asarray(sent["a"])).all(axis=1)
    chosen = {"last": [5, 6]}.get(byzantine, byzantine) if isinstance(byzantine, str) else byzantine
    if chosen == "random":
        chosen = np.flatnonzero((np.asarray(sent["b"]) != x["b"]).any(axis=(1, 2)))
    np.testing.assert_array_equal(state.nonfinite, overflown[chosen])
    assert state.nonfinite.sum() > 0 or byzantine == "random"


@pytest.mark.slow
def test_drawn_workers_stay_the_same_and_are_a_function_of_the_key():
    def drawn(key: Any, num_steps: int) -> list[int]:
        tx = medjax.attack(attacks.nonfinite(), F, key, byzantine="random")
        return np.flatnonzero(np.isnan(step(tx, X, num_steps)[:, 0])).tolist()

    choices = [drawn(seed, 1) for seed in range(20)]
    assert all(len(chosen) == F for chosen in choices)
    assert len({tuple(chosen) for chosen in choices}) > 5  # of 21 pairs
    assert {worker for chosen in choices for worker in chosen} == set(range(N))
    for seed in range(3):
        assert drawn(seed, 4) == choices[seed] == drawn(jax.random.key(seed), 2)


@pytest.mark.slow
def test_an_attack_that_draws_does_so_at_every_step_anew():
    tx = medjax.attack(attacks.gaussian(1.0), F, 3)
    first, second = step(tx, X), step(tx, X, 2)
    np.testing.assert_array_equal(first[: N - F], second[: N - F])
    assert np.all(first[N - F :] != second[N - F :])
    np.testing.assert_array_equal(step(tx, X), first)


@pytest.mark.slow
@pytest.mark.parametrize("byzantine", ["last", "random", [2, 0]])
def test_scan_and_vmap_equal_steps_by_hand(byzantine: Any):
    def run(x: jax.Array, key: jax.Array) -> jax.Array:
        tx = medjax.attack(attacks.gaussian(2.0), F, key, byzantine=byzantine)
        return jax.lax.scan(lambda state, _: tx.update(x, state)[::-1], tx.init(x[0]), length=3)[1]

    keys = jax.random.split(jax.random.key(0), 2)
    batched = jax.jit(jax.vmap(run, in_axes=(None, 0)))(jnp.asarray(X), keys)
    for key, outs in zip(keys, batched, strict=True):
        tx = medjax.attack(attacks.gaussian(2.0), F, key, byzantine=byzantine)
        for i, out in enumerate(outs):
            np.testing.assert_allclose(out, step(tx, X, i + 1), rtol=1e-6)


def descend(tx: optax.GradientTransformation, **settings: Any) -> Any:
    """One step from 0 down f_i(w) = ‖w - x_i‖²/2, whose gradients are -x_i there."""
    objective = lambda w, x: (jnp.sum((w[None] - x) ** 2, axis=1) / 2, {})  # noqa: E731
    data = medjax.stack_workers(X, np.arange(N)[:, None])
    run = medjax.simulation(objective, tx, **settings)
    return run.advance(run.init(jnp.zeros(3), 0), data, 1).params


@pytest.mark.slow
def test_no_attackers_change_nothing_and_leave_gradients_to_be_streamed():
    for byzantine in ("last", "random", []):
        tx = medjax.attack(attacks.fang(), 0, 0, byzantine=byzantine)
        assert step(tx, X) is X
        chain = optax.chain(tx, medjax.sign_sgd(0.5))
        sent = descend(chain, worker_chunk=2, streaming="require")
        np.testing.assert_array_equal(sent, 0.5 * np.sign(np.sign(X).sum(axis=0)))


@pytest.mark.slow
def test_gradients_that_could_be_streamed_are_attacked_as_stacked_ones():
    tx = medjax.attack(attacks.alie(), F)
    mean = np.mean(step(tx, -X), axis=0)
    chain = optax.chain(tx, medjax.mean_sgd(0.5))
    np.testing.assert_allclose(descend(chain, worker_chunk=2), -0.5 * mean, rtol=1e-6)
    with pytest.raises(ValueError, match=r"streaming isn't possible: alie.* needs all workers'"):
        descend(chain, worker_chunk=2, streaming="require")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mean", "median", "krum"])
def test_ipm_breaks_the_mean_in_training_but_not_robust_rules(name: str):
    # f_i(w) = |w - c_i|²/2 with all c_i near c: with f = 2 of 7 sending -10 μ the mean is
    # (5 - 20)/7 μ, uphill; of the other rules' results |w - c| comes down to the spread of the c_i.
    centres = 3 + 0.1 * X
    rule = rules.krum(F) if name == "krum" else rules.RULES[name]()
    tx = optax.chain(medjax.attack(attacks.ipm(10.0), F), aggregate(rule), optax.sgd(0.1))

    def advance(carry: Any, _: None) -> tuple[Any, None]:
        w, state = carry
        updates, state = tx.update(w[None] - centres, state, w)
        return (w + updates, state), None

    start = jnp.zeros(3)
    w = jax.jit(lambda s: jax.lax.scan(advance, (s, tx.init(s)), length=100)[0][0])(start)
    error = np.linalg.norm(w - 3)
    assert error > 1e3 if name == "mean" else error < 0.5


@pytest.mark.slow
def test_simulation_with_the_stage():
    def objective(params: Any, batch: Any) -> Any:
        return jnp.sum((params[None] - batch) ** 2, axis=1), {}

    data = medjax.stack_workers(X, [[i] for i in range(N)])
    tx = optax.chain(
        medjax.perturb(0.1, key=0),
        medjax.attack(attacks.mimic(), F),
        aggregate(rules.mean()),
        optax.sgd(0.1),
    )
    result = jax.jit(
        lambda d: medjax.simulate(objective, jnp.zeros(3), d, tx, num_steps=300, key=0)
    )(data)
    # The mean of the honest ones, of whom the first counts three times. w ← 0.8 w + ... adds noise
    # of 0.1 · 0.1 · √(3² + 4)/7 = 0.005 at each step, 0.005/√(1 - 0.8²) = 0.009 in the long run.
    expected = (X[:5].sum(axis=0) + 2 * X[0]) / 7
    np.testing.assert_allclose(result.params, expected, atol=0.05)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: medjax.attack(attacks.alie, 1), TypeError, "must be built, such as .*alie"),
        (lambda: medjax.attack(rules.mean(), 1), TypeError, "attack must be built"),
        (
            lambda: medjax.attack(attacks.label_flip(2), 1),
            TypeError,
            "changes the workers' data: call",
        ),
        (lambda: medjax.attack(attacks.alie(), -1), ValueError, "num_byzantine must be at least 0"),
        (lambda: medjax.attack(attacks.alie(), 0.5), TypeError, "num_byzantine must be an integer"),
        (lambda: medjax.attack(attacks.fang(), 1), ValueError, "draws random numbers: give attack"),
        (
            lambda: medjax.attack(attacks.alie(), 1, byzantine="random"),
            ValueError,
            'byzantine="random" draws the workers: give attack a key',
        ),
        (
            lambda: medjax.attack(attacks.alie(), 1, byzantine="first"),
            ValueError,
            "byzantine must be one of last, random; got 'first'",
        ),
        (
            lambda: medjax.attack(attacks.alie(), 2, byzantine=[1, 1]),
            ValueError,
            r"num_byzantine = 2 different indices, got \[1, 1\]",
        ),
        (
            lambda: medjax.attack(attacks.alie(), 2, byzantine=[1]),
            ValueError,
            r"num_byzantine = 2 different indices, got \[1\]",
        ),
        (
            lambda: medjax.attack(attacks.alie(), 1, byzantine=[-1]),
            ValueError,
            "byzantine must be at least 0, got -1",
        ),
        (
            lambda: step(medjax.attack(attacks.alie(), 1, byzantine=[7]), X),
            ValueError,
            "byzantine names worker 7, got n = 7 workers",
        ),
        (
            lambda: step(medjax.attack(attacks.alie(), 7), X),
            ValueError,
            "needs an honest worker, f < n, got f = 7 Byzantine of n = 7 workers",
        ),
        (
            lambda: step(medjax.attack(attacks.alie(), 1), np.ones((3, 2), np.int32)),
            TypeError,
            "must be floating point, the array is int32",
        ),
    ],
)
def test_impossible_settings(make: Callable[[], Any], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        make()

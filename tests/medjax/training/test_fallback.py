"""Optimizers that know nothing of promised gradients get the stacked ones; errors stay clear."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import medjax
from medjax import _gradients

pytestmark = pytest.mark.optimized

A = np.float32([[1.0, 2.0], [4.0, -1.0], [7.0, 5.0]])  # worker i's one example


def objective(params, a):
    """f_i(x) = ‖x - a_i‖²/2, so that g_i = x - a_i."""
    return ((params["x"] - a) ** 2).sum(axis=1) / 2, {}


def stage(update):
    """A stage of a chain without a state."""
    return optax.GradientTransformation(
        lambda params: optax.EmptyState(), lambda u, s, p=None: (update(u, p), s)
    )


LOOKS = {
    "params_first": lambda u, p: jax.tree.map(lambda x, g: g + 0 * x, p, u),
    "by_name": lambda u, p: {"x": u["x"] + 0},
    "items": lambda u, p: {name: leaf + 0 for name, leaf in u.items()},
    "flattened": lambda u, p: jax.tree.map(lambda g: g + 0, u),
}


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_whoever_looks_into_the_updates_gets_the_stacked_gradients(look):
    optimizer = optax.chain(stage(look), medjax.mean_sgd(0.5))
    data = medjax.stack_workers(A, [[0], [1], [2]])
    run = medjax.simulate(objective, {"x": jnp.zeros(2)}, data, optimizer, num_steps=3, key=0)
    # x - mean halves at each step: from 0 to the mean times 1 - 1/8.
    np.testing.assert_allclose(run.params["x"], A.mean(axis=0) * 7 / 8, rtol=1e-6)


def test_whoever_keeps_the_updates_gets_the_stacked_gradients():
    keep = optax.GradientTransformation(
        lambda params: {"x": jnp.zeros((3, 2))}, lambda u, s, p=None: (u, u)
    )
    data = medjax.stack_workers(A, [[0], [1], [2]])
    driven = medjax.simulation(objective, optax.chain(keep, medjax.mean_sgd(0.5)))
    state = driven.advance(driven.init({"x": jnp.zeros(2)}, 0), data, 1)
    np.testing.assert_allclose(state.opt_state[0]["x"], -A)


def test_an_error_of_the_users_is_the_only_one():
    def fail(u, p):
        raise KeyError("mine")

    data = medjax.stack_workers(A, [[0], [1], [2]])
    optimizer = optax.chain(stage(fail), medjax.mean_sgd(0.5))
    with pytest.raises(KeyError, match="mine") as raised:
        medjax.simulate(objective, {"x": jnp.zeros(2)}, data, optimizer, num_steps=1, key=0)
    assert raised.value.__context__ is None


@pytest.mark.parametrize("optimizer", [medjax.mean_sgd(0.1), medjax.median_sgd(0.1)])
def test_an_objective_gives_one_number_for_each_example(optimizer):
    data = medjax.stack_workers(A, [[0], [1], [2]])

    def wrong(params, a):
        return objective(params, a)[0][:, None], {}

    driven = medjax.simulation(wrong, optimizer)
    with pytest.raises(ValueError, match=r'"loss" must have shape \(\d,\), got \(\d, 1\)'):
        driven.advance(driven.init({"x": jnp.zeros(2)}, 0), data, 1)


def test_half_precision_gradients_are_rounded_once(monkeypatch):
    # 600 pieces of 8 equal examples, each with the gradient 1/600 of the whole: adding them up in
    # bfloat16, with its 8 bits, stops where 1/600 is below half a unit in the last place.
    monkeypatch.setattr(_gradients, "_EXAMPLES_AT_ONCE", 8)
    data = medjax.stack_workers(np.ones(4800, np.float32), [np.arange(4800)])
    gradient = _gradients.weighted_gradient(
        lambda w, x: (w.astype(jnp.float32) * x, {}), jnp.bfloat16(0), data, jnp.ones(1)
    )
    assert gradient.dtype == jnp.bfloat16
    np.testing.assert_allclose(float(gradient), 1, rtol=2**-8)


@pytest.mark.parametrize("b", [-0.0, optax.constant_schedule(-1e-9)], ids=["-0", "schedule"])
@pytest.mark.parametrize("exact", [False, True])
def test_a_scales_sign_does_not_matter(b, exact):
    # The noise is symmetric, so b and -b are the same; a schedule can't be looked at beforehand.
    tx = medjax.noisy_sign_sgd(1.0, b, exact=exact)
    updates, _ = tx.update(jnp.ones((5, 20)), tx.init(jnp.zeros(20)))
    np.testing.assert_array_equal(updates, -1)


@pytest.mark.parametrize("factory", medjax.noise.NOISES.values(), ids=medjax.noise.NOISES)
def test_noise_does_not_depend_on_how_the_program_is_cut(factory):
    # Large enough for the compiler to vectorise it, in different ways.
    sample, keys = factory().sample, jax.random.split(jax.random.key(0), 3)
    draw = jax.jit(sample, static_argnums=1)
    whole = jax.jit(jax.vmap(lambda key: sample(key, (10_007,))))(keys)
    np.testing.assert_array_equal(whole, [draw(key, (10_007,)) for key in keys])
    np.testing.assert_array_equal(whole[:, :10_000], [draw(key, (10_000,)) for key in keys])

"""User code in an optimizer sees arrays only, once a trace; streaming keeps its results."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.experimental import io_callback

import medjax
from medjax import aggregate, compressors, noise, rules

N = 6
RNG = np.random.default_rng(0)
CENTRES = RNG.integers(-8, 8, (N, 5)).astype(np.float32)
DATA = medjax.stack_workers(CENTRES, np.arange(N)[:, None])
START = {"a": jnp.zeros(2), "b": jnp.zeros(3)}


def objective(params, a):
    """f_i(x) = ‖x - a_i‖²/2 for x = (params a, params b), so that g_i = x - a_i."""
    x = jnp.concatenate([params["a"], params["b"]])
    return ((x[None] - a) ** 2).sum(axis=1) / 2, {}


def gradients(params):
    x = np.concatenate([params["a"], params["b"]]) - CENTRES
    return {"a": jnp.asarray(x[:, :2]), "b": jnp.asarray(x[:, 2:])}


def by_hand(optimizer, num_steps):
    params, state, update = START, optimizer.init(START), jax.jit(optimizer.update)
    for _ in range(num_steps):
        updates, state = update(gradients(params), state, params)
        params = optax.apply_updates(params, updates)
    return params


def simulated(optimizer, num_steps, **settings):
    run = medjax.simulation(objective, optimizer, **settings)
    return jax.jit(run.advance)(run.init(START, 0), DATA, num_steps)


def stage(update):
    """Make a stage of a chain without a state."""
    return optax.GradientTransformation(
        lambda params: optax.EmptyState(), lambda u, s, p=None: (update(u), s)
    )


def triple(u):
    return jax.tree.map(lambda g: 3 * g, u)


def guarded(u):
    try:
        return {"a": 3 * u["a"], "b": 3 * u["b"]}
    except TypeError:
        return u


# Each would do nothing if it were given anything but a dict of arrays.
LOOKS = {
    "isinstance": lambda u: triple(u) if isinstance(u, dict) else u,
    "hasattr": lambda u: triple(u) if hasattr(u, "keys") else u,
    "ndim": lambda u: jax.tree.map(lambda g: 3 * g if jnp.ndim(g) == 2 else g, u),
    "truth": lambda u: triple(u) if u else u,
    "is_leaf": lambda u: jax.tree.map(
        lambda g: triple(g) if isinstance(g, dict) else g, u, is_leaf=lambda g: isinstance(g, dict)
    ),
    "try": guarded,
    "array": lambda u: jax.tree.map(lambda g: 3 * g if isinstance(g, jax.Array) else g, u),
}


@pytest.mark.slow
@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_a_transform_acts_whatever_it_asks_of_the_updates(look):
    actual = simulated(optax.chain(stage(look), medjax.mean_sgd(0.1)), 3).params
    # x moves by 0.1 · 3 of the mean gradient: x - mean shrinks by 1 - 0.3 in each step.
    mean = CENTRES.mean(axis=0) * (1 - 0.7**3)
    np.testing.assert_allclose(np.concatenate([actual["a"], actual["b"]]), mean, rtol=1e-5)


@pytest.mark.slow
def test_a_callback_runs_once_a_step():
    log = []

    def update(u, count, p=None):
        io_callback(lambda k: log.append(int(k)), None, count, ordered=True)
        return u, count + 1

    keep = optax.GradientTransformation(lambda params: jnp.int32(0), update)
    simulated(optax.chain(keep, medjax.noisy_sign_sgd(0.1, 1.0, key=0)), 4)
    jax.effects_barrier()
    assert log == [0, 1, 2, 3]


@pytest.mark.slow
def test_a_transform_is_called_once_a_trace():
    calls = []

    def look(u):
        calls.append(jax.tree.map(jnp.shape, u))
        return u

    optimizer = optax.chain(stage(look), medjax.mean_sgd(0.1))
    jax.make_jaxpr(lambda: simulated(optimizer, 4))()
    assert calls == [{"a": (N, 2), "b": (N, 3)}]


def test_an_error_at_the_first_call_is_the_users():
    calls = []

    def fail_once(u):
        calls.append(u)
        if len(calls) == 1:
            raise KeyError("mine")
        return u

    with pytest.raises(KeyError, match="mine") as raised:
        simulated(optax.chain(stage(fail_once), medjax.mean_sgd(0.1)), 1)
    assert raised.value.__context__ is None
    assert len(calls) == 1


def test_a_state_may_keep_the_updates():
    keep = optax.GradientTransformation(
        lambda params: jax.tree.map(lambda x: jnp.zeros((N, *x.shape)), params),
        lambda u, s, p=None: (u, u),
    )
    state = simulated(optax.chain(keep, medjax.mean_sgd(0.5)), 1)
    np.testing.assert_array_equal(state.opt_state[0]["a"], -CENTRES[:, :2])


def uniform(key, shape, dtype):
    return jax.random.uniform(key, shape, dtype, -(3**0.5), 3**0.5)


VOTE = [aggregate(rules.majority_vote()), optax.sgd(0.25)]
MEAN = [aggregate(rules.mean()), optax.sgd(0.25)]
NOISY = medjax.noisy_sign_sgd(0.25, 2.0, key=3)
STREAMED = {
    "mean": medjax.mean_sgd(0.25),
    "weights": optax.chain(aggregate(rules.mean(1 + np.arange(N))), optax.sgd(0.25)),
    "sign": medjax.sign_sgd(0.25, zero="random", tie="random", key=3),
    "noisy_sign": NOISY,
    "b of each": medjax.noisy_sign_sgd(0.25, jnp.linspace(0, 4, N), key=3),
    "schedule": medjax.noisy_sign_sgd(0.25, optax.linear_schedule(4, 1, 5), key=3),
    "exact": medjax.noisy_sign_sgd(0.25, 2.0, noise.laplace(), exact=True, key=3),
    "plain noise": medjax.noisy_sign_sgd(0.25, 2.0, uniform, key=3),
    "compress": optax.chain(medjax.compress(compressors.qsgd(4), key=1), *MEAN),
    "plain compressor": optax.chain(medjax.compress(lambda x: (jnp.round(x), x.size)), *MEAN),
    "three stages": optax.chain(
        medjax.perturb(0.5, key=1),
        medjax.compress(compressors.top_k(3)),
        medjax.perturb(0.5, key=2),
        *MEAN,
    ),
    "jit": optax.GradientTransformation(NOISY.init, jax.jit(NOISY.update)),
    "jit without marks": optax.chain(stage(jax.jit(lambda u: u)), *VOTE),
    "a family of one's own": optax.chain(
        aggregate(rules.Additive("l2", lambda x, i, key: x**2, lambda s, n, key: jnp.sqrt(s / n))),
        optax.sgd(0.25),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in STREAMED if name != "compress"])
def test_streamed_equals_stacked_equals_the_loop_by_hand(name):
    expected = by_hand(STREAMED[name], 5)
    ways = [{"streaming": "require", "worker_chunk": 4}]
    if name in ("noisy_sign", "plain compressor", "a family of one's own"):
        ways += [{"streaming": "require", "worker_chunk": 1}, {"streaming": "off"}]
    for settings in ways:
        actual = simulated(STREAMED[name], 5, **settings).params
        for leaf in START:
            np.testing.assert_allclose(actual[leaf], expected[leaf], rtol=1e-5, atol=1e-6)


def peek(u):
    return {k: g + 0 for k, g in u.items()}


def both(u, s, p=None):
    return jax.tree.map(lambda x, y: x + 0 * y, rules.majority_vote()(u), rules.mean()(u)), s


OBSTACLES = {
    "median": (medjax.median_sgd(0.1), "median needs all workers' updates at once"),
    "plain rule": (aggregate(lambda v: v.mean(axis=0)), "<lambda> needs all workers'"),
    "krum": (aggregate(rules.krum(1)), r"krum\(num_byzantine=1\) needs all workers'"),
    "adaptive": (
        medjax.noisy_sign_sgd(0.1, medjax.adaptive_scale(), key=0),
        "adaptive_scale needs",
    ),
    "attack": (
        optax.chain(medjax.attack(medjax.attacks.ipm(), 2), *MEAN),
        r"ipm\(tau=2\) needs all workers'",
    ),
    "own transform": (
        optax.chain(stage(peek), *MEAN),
        r"the operation add at .*test_plumbing.py:\d+ needs all workers'",
    ),
    "two rules": (optax.GradientTransformation(lambda p: (), both), "mean takes updates that were"),
    "masked": (
        optax.partition(
            {"m": aggregate(rules.mean()), "v": aggregate(rules.majority_vote())},
            {"a": "m", "b": "v"},
        ),
        "(mean|majority_vote) takes the updates of some of the parameters alone",
    ),
    "no rule": (optax.identity(), "the optimizer must drop the worker axis"),
}


@pytest.mark.parametrize("name", OBSTACLES)
def test_required_streaming_names_the_operation_that_prevents_it(name):
    optimizer, reason = OBSTACLES[name]
    with pytest.raises(ValueError, match=reason) as raised:
        simulated(optimizer, 1, streaming="require")
    assert "\n" not in str(raised.value)


def test_streaming_is_one_of_three_options():
    with pytest.raises(ValueError, match="streaming must be one of auto, require, off; got 'on'"):
        medjax.simulation(objective, NOISY, streaming="on")


@pytest.mark.slow
def test_marks_are_ordinary_operations_elsewhere():
    """A chain jitted, vmapped, exported and differentiated by the user, outside of `simulate`."""
    g = gradients(START)
    many = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), g)
    for name in ("compress", "weights"):
        tx = STREAMED[name]
        state = tx.init(START)
        expected = jax.jit(tx.update)(g, state, START)[0]
        others = [jax.jit(jax.vmap(lambda g, tx=tx, s=state: tx.update(g, s, START)[0]))(many)]
        others[0] = jax.tree.map(lambda x: x[0], others[0])
        if name == "weights":  # the other takes long to compile
            others.append(tx.update(g, state, START)[0])  # not jitted
        else:
            update = jax.jit(lambda g, tx=tx, s=state: tx.update(g, s, START)[0])
            others.append(jax.export.export(update)(g).call(g))
        for leaf in START:
            for other in others:
                np.testing.assert_allclose(other[leaf], expected[leaf], rtol=1e-6, atol=1e-7)

    def length(scale):
        scaled = jax.tree.map(lambda x: scale * x, g)
        moved = jax.jit(STREAMED["weights"].update)(scaled, STREAMED["weights"].init(START), START)
        return sum(jnp.sum(x) for x in jax.tree.leaves(moved[0]))

    # The rule is linear: the derivative is the value at 1, forwards and backwards.
    for derivative in (jax.grad(length), jax.jacfwd(length)):
        np.testing.assert_allclose(derivative(1.0), length(1.0), rtol=1e-6)

"""Runs of which only a few workers' gradients exist at a time."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import medjax
from medjax import aggregate, noise, noisy_sign, per_worker, perturb, rules
from medjax.objectives import classification

N, CHUNK = 64, 4
# 2 examples of 3 numbers for each worker, and many more parameters: the data are small beside them.
SHAPES = {"w": (3, 50), "b": (50,), "v": (50, 2), "c": (2,)}
SIZE = sum(map(math.prod, SHAPES.values()))
RNG = np.random.default_rng(0)
PARAMS = {k: jnp.asarray(RNG.normal(size=shape), jnp.float32) for k, shape in SHAPES.items()}
EXAMPLES = (RNG.normal(size=(2 * N, 3)).astype(np.float32), RNG.integers(0, 2, 2 * N))
PARTS = np.split(np.arange(2 * N), np.sort(RNG.choice(np.arange(1, 2 * N), N - 1, replace=False)))
EVEN = np.arange(2 * N).reshape(N, 2)


def network(params: Any, x: jax.Array) -> jax.Array:
    hidden = jnp.tanh(x @ params["w"] + params["b"][None])
    return hidden @ params["v"] + params["c"][None]


objective = classification(network)
# A smaller model, where the numbers are compared.
LINEAR = {k: PARAMS["w"][:, :2] if k == "w" else PARAMS[k] for k in ("w", "c")}
linear = classification(lambda params, x: x @ params["w"] + params["c"][None])


def chain(*stages: optax.GradientTransformation) -> optax.GradientTransformation:
    return optax.chain(*stages, optax.scale_by_learning_rate(0.1))


TRACE = per_worker(optax.trace(0.9), N)
SOME = ("mean", "sign", "noisy_sign", "noisy_mean")
MEAN, VOTE = aggregate(rules.mean()), aggregate(rules.majority_vote())
OPTIMIZERS = {
    "mean": medjax.mean_sgd(0.1),
    "mean(weights)": chain(aggregate(rules.mean(1 + np.arange(N)))),
    "sign": medjax.sign_sgd(0.1, zero="random", tie="random", key=0),
    "noisy_sign": medjax.noisy_sign_sgd(0.1, 0.5, key=0),
    "exact": medjax.noisy_sign_sgd(0.1, 0.5, noise.laplace(), exact=True, key=0),
    "noisy_mean": chain(perturb(0.1, key=0), MEAN),
    "mean_of_signs": chain(noisy_sign(lambda t: 0.1 * t.astype(float), key=0), MEAN),
}
WHOLE = {"median": medjax.median_sgd(0.1), "clip": chain(optax.clip(0.1), VOTE)}


def shapes(jaxpr: Any) -> Iterator[tuple[int, ...]]:
    """Yield the shapes of everything that is computed, in all programs within the program."""
    for equation in jaxpr.eqns:
        yield from (out.aval.shape for out in equation.outvars)
        for value in jax.tree.leaves(list(equation.params.values())):
            inner = getattr(value, "jaxpr", value)  # a closed one, or not
            if hasattr(inner, "eqns"):
                yield from shapes(inner)


def computed(optimizer: Any, chunk: int | None, **settings: Any) -> Any:
    run = medjax.simulation(objective, optimizer, worker_chunk=chunk, **settings)
    arguments = (run.init(PARAMS, 0), medjax.stack_workers(EXAMPLES, EVEN), 2)
    return list(shapes(jax.make_jaxpr(run.advance)(*arguments).jaxpr))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "batch_size"), [*((name, None) for name in OPTIMIZERS), ("mean", 2), ("noisy_sign", 2)]
)
def test_nothing_of_the_size_of_all_gradients_is_computed(name: str, batch_size: int | None):
    found = computed(OPTIMIZERS[name], CHUNK, batch_size=batch_size)
    assert max(map(math.prod, found)) < N * 50 * 3  # not the largest leaf's, let alone n · d
    if not name.startswith("mean"):
        assert (CHUNK, 3, 50) in found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mean", "mean(weights)"])
def test_the_mean_computes_no_workers_gradient(name: str):
    for chunk in (None, 1, CHUNK, N):
        found = computed(OPTIMIZERS[name], chunk)
        for shape in SHAPES.values():
            assert not [s for s in found if s[-len(shape) :] == shape and len(s) > len(shape) >= 2]


@pytest.mark.slow
def test_the_test_finds_what_is_computed():
    noisy = chain(perturb(0.1, key=0), aggregate(rules.trimmed_mean(3)))
    for optimizer in (*WHOLE.values(), noisy):
        assert (N, 3, 50) in computed(optimizer, CHUNK)
    assert (N, 3, 50) in computed(OPTIMIZERS["sign"], N)
    assert (N, 3, 50) in computed(OPTIMIZERS["sign"], None)  # all fit into the memory


@pytest.mark.slow
@pytest.mark.parametrize("name", SOME)
def test_off_computes_all_gradients_first(name: str):
    found = computed(OPTIMIZERS[name], CHUNK, streaming="off")
    assert {(N, *shape) for shape in SHAPES.values()} <= set(found)
    assert (CHUNK, 3, 50) not in found


@pytest.mark.slow
@pytest.mark.parametrize("name", SOME)
def test_require_streams_what_can_stream(name: str):
    required = computed(OPTIMIZERS[name], CHUNK, streaming="require")
    assert required == computed(OPTIMIZERS[name], CHUNK, streaming="auto")
    # No more than a chunk of 8 participants' gradients exists either.
    some = computed(OPTIMIZERS[name], CHUNK, streaming="require", participants=8)
    assert not {(8, 3, 50), (N, 3, 50)} & set(some)


NEEDING_ALL = {
    "error_feedback": (medjax.error_feedback(medjax.compressors.top_k(2), N), "error_feedback"),
    "mix": (medjax.mix(medjax.mixing.nnm(3)), r"nnm\(num_byzantine=3\)"),
    "momentum": (medjax.worker_momentum(0.9, N), "per_worker"),
    "per_worker": (per_worker(optax.trace(0.9), N), "per_worker"),
    "decay": (optax.add_decayed_weights(0.1), "the operation add"),
    "attack": (medjax.attack(medjax.attacks.alie(), 2), r"alie.*"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NEEDING_ALL)
def test_require_refuses_a_stage_that_needs_all_gradients(name: str):
    stage, named = NEEDING_ALL[name]
    message = f"^streaming isn't possible: {named} needs all workers' updates at once"
    others = [{"batch_size": 2}, {"local_steps": 2, "local_lr": 0.1}] if name == "mix" else []
    for settings in ({}, *others):
        # optax adds weights to the workers' vectors by promotion of ranks.
        with pytest.raises(ValueError, match=message), jax.numpy_rank_promotion("allow"):
            computed(chain(stage, MEAN), CHUNK, streaming="require", **settings)


@pytest.mark.slow
def test_what_an_attack_overwrites_unread_is_not_computed():
    # Of 64 workers the last 6 send copies of another's vector, or their own one, scaled up.
    unread, read = medjax.attacks.mimic(), medjax.attacks.model_replacement(1.0)
    for optimizer, count in (
        (chain(medjax.attack(unread, 6), MEAN), N - 6),
        (chain(perturb(0.1, key=0), medjax.attack(unread, 6), MEAN), N - 6),
        (chain(medjax.attack(read, 6), MEAN), N),
        (chain(medjax.attack(unread, 6, byzantine=tuple(range(6))), MEAN), N),
    ):
        found = computed(optimizer, None, batch_size=2)
        assert {s[0] for s in found if s[1:] == (2, 50)} == {count}  # activations
    # The examples themselves would be copied, which takes longer than the gradients of a few.
    assert (N, 2, 50) in computed(chain(medjax.attack(unread, 6), MEAN), None)


@pytest.mark.slow
@pytest.mark.parametrize(
    "stages",
    [(), (perturb(0.1, key=0),), (TRACE,)],
    ids=["none", "perturb", "trace"],
)
def test_a_run_does_not_depend_on_whether_what_is_overwritten_was_computed(stages: tuple[Any, ...]):
    data, results = medjax.stack_workers(EXAMPLES, EVEN), []
    for reads_own in (False, True):
        attack = dataclasses.replace(medjax.attacks.mimic(3), reads_own=reads_own)
        optimizer = chain(*stages, medjax.attack(attack, 20), aggregate(rules.median()))
        results.append(final(linear, LINEAR, data, optimizer, batch_size=2))
    for name, start in LINEAR.items():
        np.testing.assert_array_equal(results[0][name], results[1][name])
        assert np.any(results[0][name] != np.asarray(start))


def test_a_choice_of_rules_needs_all_gradients():
    either = optax.GradientTransformation(
        lambda params: optax.EmptyState(),
        lambda u, s, p=None: (jax.lax.cond(True, rules.mean(), rules.majority_vote(), u), s),
    )
    with pytest.raises(ValueError, match=r"the operation cond at .* needs all workers' updates"):
        computed(either, CHUNK, streaming="require")


def local_gradients(params: Any) -> Any:
    """Compute the gradients by their definition, one worker's after another."""

    def gradient(batch: Any) -> Any:
        return jax.grad(lambda p: linear(p, batch)[0].mean())(params)

    return jax.lax.map(gradient, jax.tree.map(lambda x: x[EVEN], EXAMPLES))


@pytest.mark.slow
@pytest.mark.parametrize(
    "optimizer",
    [
        chain(TRACE, perturb(0.1, noise.uniform(), key=0), aggregate(rules.mean(1 + np.arange(N)))),
        chain(perturb(medjax.adaptive_scale(0.1), noise.uniform(), key=0), MEAN),
        chain(optax.clip(0.01), MEAN, optax.clip(0.01), optax.trace(0.9)),
        optax.inject_hyperparams(medjax.noisy_sign_sgd)(0.1, b=0.1, key=0),
    ],
    ids=["trace", "adaptive", "server", "inject"],
)
def test_any_chain_equals_the_loop_by_hand(optimizer: optax.GradientTransformation):
    run = medjax.simulation(linear, optimizer, worker_chunk=CHUNK)
    data = medjax.stack_workers(EXAMPLES, EVEN)
    actual = jax.jit(run.advance)(run.init(LINEAR, 0), data, 3).params

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        updates, state = optimizer.update(local_gradients(params), state, params)
        return optax.apply_updates(params, updates), state

    params, state = LINEAR, optimizer.init(LINEAR)
    for _ in range(3):
        params, state = step(params, state)
    for name, start in LINEAR.items():
        np.testing.assert_allclose(actual[name], params[name], rtol=1e-5, atol=2e-6)
        assert np.any(params[name] != np.asarray(start))


def final(objective: Any, params: Any, data: Any, optimizer: Any, **settings: Any) -> Any:
    run = medjax.simulation(objective, optimizer, **settings)
    return jax.jit(run.advance)(run.init(params, 0), data, 20).params


@pytest.mark.slow
@pytest.mark.parametrize(
    ("optimizer", "batch_size"),
    [
        (medjax.mean_sgd(0.1), 2),
        (medjax.noisy_median_sgd(0.1, 0.1, key=0), None),
        (chain(perturb(0.1, noise.uniform(), key=0), MEAN), 2),
    ],
    ids=["sgd_of_batches", "noisy_median", "noisy_mean_of_batches"],
)
def test_a_run_does_not_depend_on_the_chunks_but_for_rounding(
    optimizer: optax.GradientTransformation, batch_size: int | None
):
    data = medjax.stack_workers(EXAMPLES, PARTS[:9])  # of unequal sizes
    whole, actual = (
        final(linear, LINEAR, data, optimizer, worker_chunk=chunk, batch_size=batch_size)
        for chunk in (9, 4)
    )
    for name in LINEAR:
        np.testing.assert_allclose(actual[name], whole[name], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sign", "noisy_sign", "exact", "mean_of_signs"])
def test_a_run_of_exact_gradients_does_not_depend_on_the_chunks(name: str):
    # f_i(x) = ‖x - a_i‖²/2 with everything a multiple of 1/16, so that no gradient is rounded, and
    # no step of 1/16 or, by the mean of 8 workers' signs, 1/128.
    centres = RNG.integers(-32, 32, (8, 30)).astype(np.float32) / 16
    data = medjax.stack_workers(centres, np.arange(8)[:, None])
    quadratic = lambda x, a: (jnp.sum((x[None] - a) ** 2, axis=-1) / 2, {})  # noqa: E731
    optimizer = {
        "sign": medjax.sign_sgd(1 / 16, zero="random", tie="random", key=0),
        "noisy_sign": medjax.noisy_sign_sgd(1 / 16, 1.0, key=3),
        "exact": medjax.noisy_sign_sgd(1 / 16, 1.0, key=3, exact=True),
        "mean_of_signs": optax.chain(noisy_sign(1.0, key=0), medjax.mean_sgd(1 / 16)),
    }[name]
    whole = final(quadratic, jnp.zeros(30), data, optimizer, worker_chunk=8)
    assert np.any(whole != 0)
    for chunk in (1, 3) if name == "sign" else (3,):
        actual = final(quadratic, jnp.zeros(30), data, optimizer, worker_chunk=chunk)
        np.testing.assert_array_equal(actual, whole)

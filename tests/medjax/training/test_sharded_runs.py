"""A whole run on any mesh: the same noise, the same first steps, an end as good as another."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import medjax
from medjax import sharding

pytestmark = pytest.mark.optimized  # without, programs that differ for users may be the same

N, STEPS = 13, 100  # which no number of devices here divides
MESHES = {"2": (2, 1), "2 x 2": (2, 2), "8": (8, 1)}


def make_mesh(name):
    workers, coordinates = MESHES[name]
    return sharding.make_mesh(workers=workers, coordinates=coordinates)


@functools.cache
def problem():
    """Least squares, each worker with a solution of its own."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, 8, 10)).astype(np.float32)
    solutions = rng.normal(1, 1, size=(N, 10)).astype(np.float32)
    y = np.einsum("nmd,nd->nm", x, solutions)
    data = medjax.WorkerData((jnp.asarray(x), jnp.asarray(y)), jnp.full(N, 8, jnp.int32))

    def objective(params, batch):
        inputs, targets = batch
        return (inputs @ params - targets) ** 2 / 2, {}

    return objective, data


@functools.cache
def training(name):
    objective, data = problem()
    mesh = None if name == "one" else make_mesh(name)

    def train(seed):
        return medjax.simulate(
            objective,
            jnp.zeros(10),
            data,
            medjax.noisy_sign_sgd(0.02, 1.0, key=seed),
            num_steps=STEPS,
            key=seed,
            batch_size=4,
            eval_every=5,
            mesh=mesh,
        )

    return jax.jit(train)


def run(name, seed=0):
    return jax.tree.map(np.asarray, training(name)(seed).metrics)


@pytest.mark.slow
def test_noisy_sign_runs_alike():
    one, other = run("one"), run("2 x 2")
    for metric in ("train_loss", "grad_norm"):
        # Steps 0 to 20.
        np.testing.assert_allclose(other[metric][:5], one[metric][:5], rtol=1e-4)
    ends = [run("one", seed)["train_loss"][-1] for seed in range(4)]
    spread = max(ends) - min(ends)
    assert min(ends) - spread <= other["train_loss"][-1] <= max(ends) + spread
    assert other["train_loss"][-1] < 0.7 * other["train_loss"][0]


@pytest.mark.slow
def test_random_bits_do_not_depend_on_the_mesh():
    # Uniform noise is a multiple of them, to which 0 is added: there is nothing to contract.
    tx = medjax.perturb(2.0, medjax.noise.uniform(), key=3)
    zeros = {"w": jnp.zeros((N, 3, 5)), "b": jnp.zeros((N, 7))}
    state = tx.init(jax.tree.map(lambda x: x[0], zeros))
    plain = jax.jit(tx.update)(zeros, state)[0]
    assert all(jnp.all(x != 0) for x in jax.tree.leaves(plain))

    for name in MESHES:
        spread = sharding.sharded(tx, make_mesh(name))
        draws = jax.jit(lambda zeros, spread=spread: spread.update(zeros, state)[0])(zeros)
        jax.tree.map(np.testing.assert_array_equal, draws, plain)


@pytest.mark.slow
def test_what_workers_keep_is_with_them():
    mesh = sharding.make_mesh(workers=4)
    for tx in (
        medjax.worker_momentum(0.9, 8),
        medjax.error_feedback(medjax.compressors.scaled_sign(), 8),
    ):
        chain = optax.chain(tx, medjax.aggregate(medjax.rules.mean()))
        parts = medjax.simulation(problem()[0], chain, mesh=mesh)
        state = jax.jit(functools.partial(parts.init, key=0))(jnp.zeros(6))
        kept = [x for x in jax.tree.leaves(state.opt_state) if x.shape == (8, 6)]
        assert kept
        for x in kept:
            assert x.sharding.shard_shape(x.shape) == (2, 6)
        gradients = jax.random.normal(jax.random.key(0), (8, 6))
        plain, spread = (f(gradients, tx.init(gradients[0]))[0] for f in
                         (tx.update, sharding.sharded(tx, mesh).update))  # fmt: skip
        np.testing.assert_allclose(spread, plain, rtol=1e-6)


@pytest.mark.slow
def test_cohorts_are_the_same_on_any_mesh():
    # Five of thirteen, of whom the devices have unequal numbers.
    objective, data = problem()

    def train(mesh):
        settings = {"batch_size": 4, "participants": 5, "local_steps": 2, "local_lr": 0.01}
        parts = medjax.simulation(objective, medjax.mean_sgd(1.0), mesh=mesh, **settings)
        return jax.jit(lambda data: parts.advance(parts.init(jnp.zeros(10), 1), data, 6))(data)

    one, other = train(None), train(make_mesh("2 x 2"))
    np.testing.assert_allclose(other.params, one.params, rtol=1e-5)
    assert np.any(one.params != 0)

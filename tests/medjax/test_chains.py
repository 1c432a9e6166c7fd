"""Every name of the library trains in an optax chain, in a scan, on one device as on several."""

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import medjax
from medjax import aggregate, attacks, compressors, mixing, rules, sharding

# f_i(w) = |w - c_i|²/2, all c_i near 3: a step of 1/2 leads half of the way there. Some of the
# last row's numbers are tied or 0 instead.
N, F, NUM_STEPS = 7, 1, 3
RNG = np.random.default_rng(0)
CENTRES = (3 + 0.1 * RNG.normal(size=(N, 3, 11))).astype(np.float32)
CENTRES[:, 2, :5] = RNG.integers(-1, 2, (N, 5))
MEAN = CENTRES.mean(axis=0)
# Leaves of several shapes and precisions.
TREE = {
    "w": CENTRES,
    "none": np.zeros((N, 0), np.float32),
    "c": (3 + 0.1 * RNG.normal(size=N)).astype(jnp.bfloat16),
}
DATA = medjax.WorkerData(
    (RNG.uniform(size=(N, 6, 4, 4, 1)).astype(np.float32), RNG.integers(0, 3, (N, 6))),
    np.full(N, 6),
)
CLASSIFIER = medjax.objectives.classification(lambda w, x: x.reshape(-1, 16) @ w)
TX = optax.sgd(0.5)
# What has no default.
SETTINGS = {
    "num_byzantine": F,
    "num_workers": N,
    "num_classes": 3,
    "rule": rules.median(),
    "tau": 4.0,
    "max_norm": 12.0,
    "fraction": 0.5,
    "target": 1,
    "gradient_bound": 3.0,
    "product_threshold": 100.0,
    "sum_threshold": 20.0,
    "server_gradient": lambda w: w - MEAN,
}
# Devices for the workers and for the coordinates, which divide neither 7 workers nor the leaves.
MESH = (2, 2)
# Of whose results no bit depends on the devices; of the first two by any platform's code.
EXACT = ("majority_vote", "median", "trimmed_mean", "meamed", "phocas")
# A name for each kernel of which accelerators have another.
KERNELS = ("majority_vote", "median", "phocas", "mean", "krum", "geometric_median", "dnc")
KERNELS += ("mix nnm", "attack alie", "attack gaussian")


def built(table: Mapping[str, Callable[..., Any]]) -> dict[str, Any]:
    """All of a table. A new name's settings are given by the table above, or it isn't built."""

    def build(factory: Callable[..., Any]) -> Any:
        needed = [
            name
            for name, p in inspect.signature(factory).parameters.items()
            if p.default is p.empty or name == "fraction"
        ]
        return factory(**{name: SETTINGS[name] for name in needed})

    return {name: build(factory) for name, factory in table.items()}


ALL = built(attacks.ATTACKS)
ON_VECTORS = {name: a for name, a in ALL.items() if isinstance(a, attacks.Attack)}
ON_DATA = {name: a for name, a in ALL.items() if isinstance(a, attacks.DataAttack)}
# Every vector by another weight, so that it shows whose is whose; the attacker's is the least.
MEAN_OF_ALL = aggregate(rules.mean())
OF_EACH = aggregate(rules.mean(np.arange(N, 0, -1)))
CHAINS = {
    **{name: (aggregate(rule, 0),) for name, rule in built(rules.RULES).items()},
    **{f"mix {name}": (medjax.mix(m, 0), MEAN_OF_ALL) for name, m in built(mixing.MIXINGS).items()},
    **{
        f"attack {name}": (medjax.attack(attack, F, 0), OF_EACH)
        for name, attack in ALL.items()
        if name not in ON_DATA
    },
}
SPREAD = tuple(CHAINS)
CHAINS |= {
    **{
        name: (medjax.compress(c, 0), MEAN_OF_ALL)
        for name, c in built(compressors.COMPRESSORS).items()
    },
    "no attackers": (*(medjax.attack(a, 0, 0) for a in ON_VECTORS.values()), MEAN_OF_ALL),
    "nnm(0)": (medjax.mix(mixing.nnm(0)), aggregate(rules.krum(F))),
}


def train(names: Iterable[str], centres: Any, mesh: Any = None) -> dict[str, Any]:
    """Return the parameters after each step of the chains."""

    def one(stages: tuple[optax.GradientTransformation, ...]) -> Any:
        tx = optax.chain(*stages)
        tx = optax.chain(tx if mesh is None else sharding.sharded(tx, mesh), TX)
        tx = optax.with_extra_args_support(tx)

        def step(carry: Any, _: None) -> Any:
            w, state = carry
            gradients = jax.tree.map(lambda x, c: x[None] - c, w, centres)
            updates, state = tx.update(gradients, state, w)
            w = optax.apply_updates(w, updates)
            return (w, state), w

        w = jax.tree.map(lambda c: jnp.zeros(c.shape[1:], c.dtype), centres)
        return jax.lax.scan(step, (w, tx.init(w)), length=NUM_STEPS)[1]

    return {name: one(CHAINS[name]) for name in names}


@functools.cache
def trained() -> dict[str, Any]:
    """The parameters after each step of every chain, on one device."""
    return jax.device_get(jax.jit(functools.partial(train, CHAINS))(CENTRES))


@pytest.mark.slow
@pytest.mark.parametrize("name", CHAINS)
def test_every_name_trains_in_a_chain(name: str):
    steps = trained()[name]
    assert (steps.shape, steps.dtype) == ((NUM_STEPS, *MEAN.shape), np.float32)
    if name == "attack nonfinite":  # of which nothing is left in a mean
        assert np.isnan(steps).all()
        return
    assert np.isfinite(steps).all()
    if name != "attack gaussian":  # which a mean doesn't bear
        assert np.linalg.norm((steps[-1] - MEAN)[:2]) < 0.7 * np.linalg.norm(MEAN[:2])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mean", "no attackers", "nnm(0)"])
def test_the_mean_goes_half_of_the_way_each_time(name: str):
    for t, w in enumerate(trained()[name], start=1):
        np.testing.assert_allclose(w, (1 - 0.5**t) * MEAN, rtol=1e-5, atol=1e-6)


def assert_same(actual: Any, expected: Any, *, exactly: bool, name: str) -> None:
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        # In half precision a rounding of the last bit.
        rtol, atol = (2**-7 if a.dtype == jnp.bfloat16 else 1e-5), 1e-5
        a, e = np.asarray(a, np.float64), np.asarray(e, np.float64)
        if exactly:
            np.testing.assert_array_equal(a, e, err_msg=name)
        else:
            np.testing.assert_allclose(a, e, rtol=rtol, atol=atol, err_msg=name)


@functools.cache
def mesh() -> Any:
    workers, coordinates = MESH
    return sharding.make_mesh(workers=workers, coordinates=coordinates)


@pytest.mark.slow
def test_every_rule_mixing_and_attack_is_as_on_one_device():
    spread = jax.jit(functools.partial(train, SPREAD, mesh=mesh()))(CENTRES)
    for name, actual in jax.device_get(spread).items():
        assert_same(actual, trained()[name], exactly=name in EXACT, name=name)


@pytest.mark.slow
def test_trees_on_accelerators_are_as_on_one_cpu(request: Any):
    expected = jax.device_get(jax.jit(functools.partial(train, KERNELS))(TREE))
    request.getfixturevalue("accelerated")
    spread = jax.jit(functools.partial(train, KERNELS, mesh=mesh()))(TREE)
    for name, actual in jax.device_get(spread).items():
        assert_same(actual, expected[name], exactly=name in EXACT[:2], name=name)


@pytest.mark.slow
def test_every_attack_on_data_changes_what_is_learnt():
    def classify(data: medjax.WorkerData) -> jax.Array:
        tx = optax.chain(aggregate(rules.median()), TX)
        parts = medjax.simulation(CLASSIFIER, tx)
        return parts.advance(parts.init(jnp.zeros((16, 3)), 0), data, NUM_STEPS).params

    @jax.jit
    def learnt(data: medjax.WorkerData) -> Any:
        return classify(data), {name: classify(attack(data, F)) for name, attack in ON_DATA.items()}

    clean, poisoned = learnt(DATA)
    for name, w in poisoned.items():
        assert np.isfinite(w).all(), name
        assert np.any(np.abs(w - clean) > 1e-3), name

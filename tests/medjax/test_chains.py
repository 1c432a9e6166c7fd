"""Every name of the library trains in an optax chain, in a scan: all of them in one program."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import medjax
from medjax import aggregate, attacks, compressors, mixing, rules

# f_i(w) = |w - c_i|²/2, all c_i near 3: a step of 1/2 leads half of the way there.
N, F, NUM_STEPS = 7, 1, 3
RNG = np.random.default_rng(0)
CENTRES = 3 + 0.1 * RNG.normal(size=(N, 4, 3)).astype(np.float32)
MEAN = CENTRES.mean(axis=0)
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
    "gradient_bound": 1.0,
    "product_threshold": 10.0,
    "sum_threshold": 5.0,
    "server_gradient": lambda w: w - MEAN,
}


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


MEDIAN = aggregate(rules.median())
ALL = built(attacks.ATTACKS)
ON_VECTORS = [attack for attack in ALL.values() if isinstance(attack, attacks.Attack)]
ON_DATA = {name: attack for name, attack in ALL.items() if isinstance(attack, attacks.DataAttack)}
CHAINS = {
    **{name: (aggregate(rule, 0),) for name, rule in built(rules.RULES).items()},
    **{name: (medjax.mix(m, 0), MEDIAN) for name, m in built(mixing.MIXINGS).items()},
    **{
        name: (medjax.attack(attack, F, 0), MEDIAN)
        for name, attack in ALL.items()
        if name not in ON_DATA
    },
    **{
        name: (medjax.compress(c, 0), aggregate(rules.mean()))
        for name, c in built(compressors.COMPRESSORS).items()
    },
    "no attackers": (*(medjax.attack(a, 0, 0) for a in ON_VECTORS), aggregate(rules.mean())),
    "nnm(0)": (medjax.mix(mixing.nnm(0)), aggregate(rules.krum(F))),
}


@pytest.fixture(scope="module")
def trained() -> dict[str, np.ndarray]:
    """The parameters after each step of every chain; at the end, of every attack on data."""

    def train(stages: tuple[optax.GradientTransformation, ...], centres: jax.Array) -> Any:
        tx = optax.with_extra_args_support(optax.chain(*stages, TX))

        def step(carry: Any, _: None) -> Any:
            w, state = carry
            updates, state = tx.update(w[None] - centres, state, w)
            return (w + updates, state), w + updates

        w = jnp.zeros(MEAN.shape)
        return jax.lax.scan(step, (w, tx.init(w)), length=NUM_STEPS)[1]

    def classify(data: medjax.WorkerData) -> jax.Array:
        tx = optax.chain(MEDIAN, TX)
        return medjax.simulate(
            CLASSIFIER, jnp.zeros((16, 3)), data, tx, num_steps=NUM_STEPS, key=0
        ).params

    @jax.jit
    def every(centres: jax.Array, data: medjax.WorkerData) -> dict[str, jax.Array]:
        chains = {name: train(stages, centres) for name, stages in CHAINS.items()}
        poisoned = {name: classify(attack(data, F)) for name, attack in ON_DATA.items()}
        return chains | poisoned | {"clean": classify(data)}

    return jax.tree.map(np.asarray, every(CENTRES, DATA))


@pytest.mark.slow
@pytest.mark.promotes
@pytest.mark.parametrize("name", CHAINS)
def test_every_name_trains_in_a_chain(name: str, trained: dict[str, np.ndarray]):
    assert trained[name].shape == (NUM_STEPS, *MEAN.shape)
    assert np.isfinite(trained[name]).all()
    assert np.linalg.norm(trained[name][-1] - MEAN) < 0.7 * np.linalg.norm(MEAN)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mean", "no attackers", "nnm(0)"])
def test_the_mean_goes_half_of_the_way_each_time(name: str, trained: dict[str, np.ndarray]):
    for t, w in enumerate(trained[name], start=1):
        np.testing.assert_allclose(w, (1 - 0.5**t) * MEAN, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ON_DATA)
def test_every_attack_on_data_changes_what_is_learnt(name: str, trained: dict[str, np.ndarray]):
    assert np.isfinite(trained[name]).all()
    assert np.any(np.abs(trained[name] - trained["clean"]) > 1e-3)

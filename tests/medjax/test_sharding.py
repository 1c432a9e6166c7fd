"""What is spread over devices gives what it gives on one."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import medjax
from benchmarks import wire
from medjax import rules, sharding
from medjax._engine import vote_exchange
from medjax.attacks import ATTACKS
from medjax.mixing import MIXINGS
from medjax.rules import RULES

F, N = 1, 7
SETTINGS: dict[str, dict[str, Any]] = {
    "centered_clipping": {"tau": 2.0, "num_steps": 2},
    "centered_clipping_from_last": {"tau": 2.0, "num_steps": 2},
    "byzantine_sgd": {
        **{"num_byzantine": F, "num_workers": N, "gradient_bound": 100.0},
        **{"product_threshold": 1e4, "sum_threshold": 1e4},
    },
    "fltrust": {"server_gradient": lambda params: jax.tree.map(jnp.ones_like, params)},
} | {
    name: {"num_byzantine": F}
    for name in (
        *("trimmed_mean", "meamed", "phocas", "krum", "multi_krum", "mda", "monna", "smea", "caf"),
        *("cge", "bulyan", "dnc", "nnm", "arc"),
    )
}
SETTINGS["clip"] = {"max_norm": 2.0}
DATA_ATTACKS = ("label_flip", "backdoor")  # they come before the training
EXACT = ("majority_vote", "median", "trimmed_mean", "meamed", "phocas")
# Devices for the workers and for the coordinates, which divide neither 7 workers nor the leaves.
MESH = (2, 2)


@functools.cache
def mesh(workers: int, coordinates: int = 1, grid: int = 1) -> Any:
    return sharding.make_mesh(workers=workers, coordinates=coordinates, grid=grid)


def gradients(n: int = N) -> dict[str, Any]:
    """Leaves of several shapes and precisions, with zeros and ties."""
    rng = np.random.default_rng(n)
    w = rng.normal(1, 1, size=(n, 3, 11)).astype(np.float32)
    w[:, 2, :5] = rng.integers(-1, 2, (n, 5))
    return {
        "w": jnp.asarray(w),
        "none": jnp.zeros((n, 0)),
        "c": jnp.asarray(rng.normal(size=n), jnp.bfloat16),
    }


def settings(name: str, factory: Callable[..., Any]) -> Any:
    return factory(**SETTINGS.get(name, {}))


# Every vector by another weight, so that it shows whose is whose.
ALL_OF_THEM = rules.mean(1 + np.arange(N))


def chains() -> dict[str, optax.GradientTransformation]:
    """Every rule, every mixing before a rule, every attack."""
    found = {
        name: medjax.aggregate(settings(name, factory), key=1) for name, factory in RULES.items()
    }
    found |= {
        f"mix {name}": optax.chain(
            medjax.mix(settings(name, factory), key=2), medjax.aggregate(rules.mean())
        )
        for name, factory in MIXINGS.items()
    }
    own = dict.fromkeys(("optimal_ipm", "optimal_alie", "optimal_turn"), rules.median())
    for name, factory in ATTACKS.items():
        given = {"rule": own[name]} if name in own else {}
        if name in DATA_ATTACKS:
            continue
        found[f"attack {name}"] = optax.chain(
            medjax.attack(factory(**given), 2, key=3), medjax.aggregate(ALL_OF_THEM)
        )
    return found


def step(tx: optax.GradientTransformation, g: Any) -> Any:
    return tx.update(g, tx.init(params()), params())[0]


def params() -> Any:
    return jax.tree.map(lambda x: jnp.zeros(x.shape[1:], x.dtype), gradients())


def assert_same(actual: Any, expected: Any, *, exactly: bool, name: str) -> None:
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        a, e = np.asarray(a, np.float64), np.asarray(e, np.float64)
        if exactly:
            np.testing.assert_array_equal(a, e, err_msg=name)
        else:
            # Of leaves in half precision a rounding of the last bit.
            np.testing.assert_allclose(a, e, rtol=2**-7, atol=1e-5, err_msg=name)


@functools.cache
def alone() -> Any:
    return jax.jit(lambda g: {name: step(tx, g) for name, tx in chains().items()})(gradients())


@pytest.mark.slow
@pytest.mark.promotes
@pytest.mark.parametrize("code", ["cpu", "accelerators"])
def test_every_rule_mixing_and_attack_is_as_on_one_device(code: str, request: Any):
    expected = alone()  # by the CPU's code
    if code == "accelerators":
        request.getfixturevalue("accelerated")

    def all_at_once(g: Any) -> Any:
        where = mesh(*MESH)
        return {name: step(sharding.sharded(tx, where), g) for name, tx in chains().items()}

    for name, actual in jax.jit(all_at_once)(gradients()).items():
        exactly = name in (EXACT if code == "cpu" else EXACT[:2])
        assert_same(actual, expected[name], exactly=exactly, name=name)


# Packed by a CPU's code, or by an accelerator's; or summed as small integers.
@pytest.mark.slow
@pytest.mark.parametrize("exchange", ["cpu", "packed", "summed"])
@pytest.mark.parametrize("n", [7, 16])
def test_votes_are_the_same_bit_for_bit(n: int, exchange: str, request: Any, monkeypatch: Any):
    if exchange != "cpu":
        request.getfixturevalue("accelerated")
        worth = 0 if exchange == "packed" else 10**9
        monkeypatch.setattr(vote_exchange, "_BYTES_WORTH_PACKING", worth)
    # Without zeros, with some, with nothing but zeros and NaN.
    rng = np.random.default_rng(n)
    full = rng.choice([-1.5, 2.0], (n, 70)).astype(np.float32)
    some = np.where(rng.random((n, 70)) < 0.1, 0, full)
    odd = np.where(rng.random((n, 70)) < 0.5, np.nan, 0).astype(np.float32)
    votes = [
        rules.majority_vote(),
        rules.majority_vote(tie="random"),
        rules.majority_vote(zero="random", tie="random"),
    ]

    @jax.jit
    def both(x: jax.Array) -> Any:
        chains = [medjax.aggregate(vote, key=5) for vote in votes]
        spread = [sharding.sharded(tx, mesh(7 if n == 7 else 8)) for tx in chains]
        return [[tx.update(x, tx.init(x[0]))[0] for tx in each] for each in (chains, spread)]

    for x in (full, some, odd):
        one, many = both(jnp.asarray(x))
        np.testing.assert_array_equal(many, one)


@pytest.mark.slow
def test_a_broken_worker_breaks_no_sum_of_others():
    x = gradients()["w"].at[3].set(jnp.nan).at[5].set(jnp.inf)
    robust = (rules.trimmed_mean(2), rules.multi_krum(2), rules.geometric_median())

    @jax.jit
    def spread(x: jax.Array) -> Any:
        chains = [sharding.sharded(medjax.aggregate(rule), mesh(8)) for rule in robust]
        return [tx.update(x, tx.init(x[0]))[0] for tx in chains]

    for actual, expected in zip(
        spread(x), jax.jit(lambda x: [r(x) for r in robust])(x), strict=True
    ):
        np.testing.assert_allclose(actual, expected, rtol=1e-5)


@pytest.mark.slow
def test_the_wire_carries_bits():
    seven = {name: wire.per_coordinate(wire.RULES[name](7), 7, 10**6, 7) for name in wire.RULES}
    assert seven["majority_vote"].least <= seven["mean"].least / 30
    assert seven["majority_vote"].most <= seven["mean"].least / 10
    for name, bits in seven.items():
        np.testing.assert_allclose(
            bits.least, wire.closed_form(wire.RULES[name](7), 7, 10**6, 7), rtol=0.01
        )
    # An even number can be tied: a third symbol, unless ties are drawn before they are sent.
    tied, drawn = (rules.majority_vote(tie=tie) for tie in ("zero", "random"))
    eight = [wire.per_coordinate(rule, 8, 10**6, 8).least for rule in (tied, drawn, rules.mean())]
    np.testing.assert_allclose(np.divide(eight, 7 / 8), [3, 2, 64], rtol=0.01)
    # Of several workers on a device, their number; of some that are missing too.
    vote, mean = rules.majority_vote(), rules.mean()
    for n, k in ((12, 4), (10, 4)):
        bits = wire.per_coordinate(vote, n, 10_000, k)
        np.testing.assert_allclose(bits.least, wire.closed_form(vote, n, 10_000, k), rtol=0.05)
        assert bits.most < wire.closed_form(mean, n, 10_000, k) / 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"workers": 9}, "needs 9 devices, there are 8"),
        ({"workers": 4, "grid": 3}, "grid=3, workers=4, coordinates=1 needs 12 devices"),
        ({"coordinates": 0}, "coordinates must be at least 1"),
    ],
)
def test_an_impossible_mesh_is_an_error(arguments: dict[str, int], message: str):
    with pytest.raises(ValueError, match=message):
        sharding.make_mesh(**arguments)

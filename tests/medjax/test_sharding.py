"""What is spread over devices gives what it gives on one."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import medjax
from benchmarks import wire
from medjax import rules, sharding
from medjax._engine import vote_exchange

# What every name of the library gives is compared in test_chains.py.


# Packed by a CPU's code, or by an accelerator's; or summed as small integers.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "exchange"), [(7, "cpu"), (16, "cpu"), (7, "packed"), (16, "packed"), (16, "summed")]
)
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
    votes = [rules.majority_vote(), rules.majority_vote(zero="random", tie="random")]
    votes += [rules.majority_vote(tie="random")] if exchange == "cpu" else []

    mesh = sharding.make_mesh(workers=7 if n == 7 else 8)

    @jax.jit
    def both(x: jax.Array) -> Any:
        chains = [medjax.aggregate(vote, key=5) for vote in votes]
        spread = [sharding.sharded(tx, mesh) for tx in chains]
        return [[tx.update(x, tx.init(x[0]))[0] for tx in each] for each in (chains, spread)]

    for x in (full, some, odd):
        one, many = both(jnp.asarray(x))
        np.testing.assert_array_equal(many, one)


@pytest.mark.slow
def test_a_broken_worker_breaks_no_sum_of_others():
    x = np.random.default_rng(7).normal(1, 1, size=(7, 33)).astype(np.float32)
    x[[3, 5]] = [[np.nan], [np.inf]]
    mesh = sharding.make_mesh(workers=8)
    robust = (rules.trimmed_mean(2), rules.multi_krum(2), rules.geometric_median())

    @jax.jit
    def spread(x: jax.Array) -> Any:
        chains = [sharding.sharded(medjax.aggregate(rule), mesh) for rule in robust]
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

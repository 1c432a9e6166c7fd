"""A rule as a stage of a chain."""

import zlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
import pytest
from optax.experimental import aggregating

from medjax import aggregate, rules

CENTRES = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
START = np.array([0.3, -0.2, 0.1], np.float32)


@pytest.mark.parametrize("position", [0, 1, 2])
def test_aggregate_stands_anywhere_in_a_chain_and_takes_extra_arguments(position: int):
    stages = [optax.scale(-2.0), optax.scale(3.0)]
    stages.insert(position, aggregate(rules.median()))
    tx = optax.chain(*stages)
    out, _ = tx.update(CENTRES, tx.init(START), START, value=1.0, key=2)
    np.testing.assert_allclose(out, -6 * np.median(CENTRES, axis=0), rtol=2e-6, atol=2e-6)
    assert isinstance(aggregate(rules.median()), aggregating.Aggregator)


@pytest.mark.slow
def test_a_rule_that_draws_gets_a_new_key_at_each_step():
    rule, zeros = rules.majority_vote(zero="random"), np.zeros((3, 50), np.float32)
    tx = aggregate(rule, key=4)
    state, outs = tx.init(zeros[0]), []
    for step in range(2):
        out, state = tx.update(zeros, state)
        # The documented scheme: the stage's name, then the step, are folded in.
        key = jax.random.fold_in(jax.random.key(4), zlib.crc32(b"aggregate"))
        np.testing.assert_array_equal(out, rule(zeros, jax.random.fold_in(key, step)))
        outs.append(out)
    assert np.any(outs[0] != outs[1])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: aggregate(rules.median), TypeError, "rule must be built, .* got <function"),
        (lambda: aggregate(rules.majority_vote(tie="random")), ValueError, "give aggregate a key"),
    ],
)
def test_errors(make: Callable[[], Any], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        make()

"""Settings of rules: what a name says of them, and the least and the most that each may be."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax import rules
from medjax.rules import _subsets


def column(*values: float) -> np.ndarray:
    return np.array(values, np.float32)[:, None]


@pytest.mark.parametrize(
    ("rule", "name"),
    [
        (rules.mean(), "mean"),
        (rules.mean([1, 2]), "mean(weights)"),
        (rules.median(), "median"),
        (rules.majority_vote(), "majority_vote"),
        (rules.majority_vote(zero="plus"), "majority_vote(zero=plus, tie=zero)"),
        (rules.majority_vote(tie="random"), "majority_vote(zero=zero, tie=random)"),
        (rules.trimmed_mean(2), "trimmed_mean(num_byzantine=2)"),
        (rules.meamed(0), "meamed(num_byzantine=0)"),
        (rules.phocas(1), "phocas(num_byzantine=1)"),
        (rules.krum(1), "krum(num_byzantine=1)"),
        (rules.krum(1, 3), "krum(num_byzantine=1, num_neighbors=3)"),
        (rules.multi_krum(1), "multi_krum(num_byzantine=1)"),
        (rules.multi_krum(1, 2), "multi_krum(num_byzantine=1, num_selected=2)"),
        (
            rules.multi_krum(1, 2, 3),
            "multi_krum(num_byzantine=1, num_selected=2, num_neighbors=3)",
        ),
        (rules.geometric_median(), "geometric_median(nu=0.1, num_steps=3)"),
        (rules.geometric_median(2, 1, 0.5), "geometric_median(nu=2, num_steps=1, tol=0.5)"),
        (rules.geometric_median(jnp.ones(())), "geometric_median(nu, num_steps=3)"),
        (rules.centered_clipping(0.5), "centered_clipping(tau=0.5, num_steps=1)"),
        (rules.centered_clipping(1.0, 2), "centered_clipping(tau=1, num_steps=2)"),
        (
            rules.centered_clipping(1.0, start=np.ones(2)),
            "centered_clipping(tau=1, num_steps=1, start)",
        ),
        (
            rules.centered_clipping_from_last(3.0),
            "centered_clipping_from_last(tau=3, num_steps=1)",
        ),
        (rules.mda(1), "mda(num_byzantine=1)"),
        (rules.smea(1), "smea(num_byzantine=1)"),
        (rules.monna(1), "monna(num_byzantine=1, reference=0)"),
        (rules.cge(1), "cge(num_byzantine=1)"),
        (rules.caf(1), "caf(num_byzantine=1)"),
        (rules.bulyan(1), "bulyan(num_byzantine=1)"),
        (
            rules.dnc(1),
            "dnc(num_byzantine=1, num_iterations=1, sub_dim=10000, filter_fraction=1)",
        ),
        (rules.signguard(), "signguard(lower=0.1, upper=3, fraction=0.1)"),
        (rules.clipped_clustering(), "clipped_clustering"),
    ],
)
def test_names(rule: rules.Rule | rules.StatefulRule, name: str):
    assert rule.name == name


# A little less of any of these, or of the workers, is an error: see the tests of the rules.
LIMITS: list[tuple[rules.Rule, int]] = [
    (rules.mean([0, 1e-9]), 2),
    (rules.trimmed_mean(0), 1),
    (rules.meamed(1), 3),
    (rules.phocas(1), 3),
    (rules.krum(0), 1),
    (rules.krum(1, 2), 3),
    (rules.krum(0, 1), 2),
    (rules.multi_krum(1, 1), 3),
    (rules.multi_krum(1, 3), 3),
    (rules.geometric_median(1e-6, 1, 0.0), 1),
    (rules.centered_clipping(1e-6, 1), 1),
    (rules.mda(1), 3),
    (rules.smea(0), 1),
    (rules.monna(1, 2), 3),
    (rules.cge(2), 3),
    (rules.caf(0), 1),
    (rules.dnc(0, 1, 1, 1e-6), 1),
    (rules.dnc(1, filter_fraction=2.0), 3),
    (rules.bulyan(0), 3),
    (rules.bulyan(2), 11),
    (rules.signguard(0.0, 1.0, 1e-6), 2),
    (rules.signguard(1.0, 1.0, 1.0), 2),
    (rules.clipped_clustering(), 2),
]


@pytest.mark.parametrize(("rule", "n"), LIMITS, ids=lambda x: getattr(x, "name", str(x)))
def test_what_is_just_valid(rule: rules.Rule, n: int):
    assert jax.eval_shape(rule, jnp.ones((n, 2)), jax.random.key(0)).shape == (2,)


@pytest.mark.parametrize(
    ("rule", "n", "message"),
    [
        (rules.krum(0, 2), 2, "needs 2 neighbours, n = 2 workers have 1"),
        (rules.multi_krum(1, 4), 3, "selects 4 vectors, got only n = 3"),
        (rules.monna(1, 3), 3, "needs worker 3, got only n = 3"),
        (rules.cge(3), 3, "needs f < n, got f = 3 and n = 3"),
        (rules.cge(4), 3, "needs f < n, got f = 4 and n = 3"),
        (rules.dnc(1, filter_fraction=3.0), 3, "drops 3 vectors, got only n = 3"),
        (rules.bulyan(2), 10, r"needs n >= 4f \+ 3, got f = 2 and n = 10"),
        (rules.signguard(), 1, "needs n >= 2, got n = 1"),
        (rules.clipped_clustering(), 1, "needs n >= 2, got n = 1"),
    ],
)
def test_what_is_just_not_valid(rule: rules.Rule, n: int, message: str):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(rule, jnp.ones((n, 2)), jax.random.key(0))


def test_as_many_subsets_as_there_may_be(monkeypatch: pytest.MonkeyPatch):
    x = jnp.ones((5, 2))
    monkeypatch.setattr(_subsets, "MAX_SUBSETS", 10)  # as there are of 5 without 2
    assert jax.eval_shape(rules.mda(2), x).shape == (2,)
    monkeypatch.setattr(_subsets, "MAX_SUBSETS", 9)
    with pytest.raises(ValueError, match="there are 10, and at most 9 are looked at"):
        jax.eval_shape(rules.mda(2), x)


BOUNDS = {"gradient_bound": 1e-6, "product_threshold": 1e-6, "sum_threshold": 1e-6}


def test_least_settings_of_byzantine_sgd():
    rule = rules.byzantine_sgd(0, 1, **BOUNDS)
    params = jnp.ones(2)
    out, _ = jax.eval_shape(rule.update, jnp.ones((1, 2)), rule.init(params), params)
    assert out.shape == (2,)
    for name in BOUNDS:
        with pytest.raises(ValueError, match=f"{name} must be a finite number above 0, got 0"):
            rules.byzantine_sgd(0, 1, **{**BOUNDS, name: 0.0})


@pytest.mark.parametrize("name", ["trimmed_mean", "meamed", "phocas", "mda", "smea", "caf", "cge"])
def test_numbers_of_byzantine_workers(name: str):
    make: Any = rules.RULES[name]
    with pytest.raises(ValueError, match="num_byzantine must be at least 0, got -1"):
        make(-1)


LARGE = np.ones((40, 1), np.float32)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: rules.mda(6)(LARGE), ValueError, "n = 40 with f = 6 there are 3838380, and at mo"),
        (lambda: rules.smea(6)(LARGE), ValueError, r"smea\(num_byzantine=6\) looks at every subse"),
        (lambda: rules.monna(1, 40)(LARGE), ValueError, "needs worker 40, got only n = 40 workers"),
        (lambda: rules.monna(1, -1), ValueError, "reference must be at least 0, got -1"),
        (lambda: rules.cge(40)(LARGE), ValueError, "needs f < n, got f = 40 and n = 40 workers"),
        (lambda: rules.bulyan(10)(LARGE), ValueError, r"n >= 4f \+ 3, got f = 10 and n = 40 worke"),
        (lambda: rules.dnc(10, filter_fraction=4.0)(LARGE, 0), ValueError, "drops 40 vectors, got"),
        (lambda: rules.dnc(1, 0), ValueError, "num_iterations must be at least 1, got 0"),
        (lambda: rules.dnc(1, 1, 0), ValueError, "sub_dim must be at least 1, got 0"),
        (lambda: rules.dnc(1, 1, 1, 0.0), ValueError, "filter_fraction must be a finite number ab"),
        (lambda: jax.jit(lambda c: rules.dnc(1, 1, 1, c)(LARGE, 0))(1.0), TypeError, "filter_frac"),
        (lambda: rules.dnc(1)(LARGE), ValueError, r"dnc\(.*=1\) draws random numbers: give it a k"),
        (lambda: rules.signguard()(LARGE), ValueError, r"fraction=0.1\) draws random numbers: giv"),
        (lambda: rules.signguard(lower=2.0), ValueError, "lower must be at most 1, got 2"),
        (lambda: rules.signguard(upper=0.5), ValueError, "upper must be a finite number at least "),
        (lambda: rules.signguard(fraction=0.0), ValueError, "fraction must be a finite number abo"),
        (lambda: rules.signguard(fraction=1.5), ValueError, "fraction must be at most 1, got 1.5"),
        (lambda: rules.signguard()(LARGE[:1], 0), ValueError, "needs n >= 2, got n = 1 workers"),
        (lambda: rules.clipped_clustering()(LARGE[:1]), ValueError, "needs n >= 2, got n = 1 work"),
        (lambda: rules.geometric_median(0.0), ValueError, "nu must be a finite number above 0, go"),
        (lambda: rules.geometric_median(num_steps=0), ValueError, "num_steps must be at least 1"),
        (lambda: rules.geometric_median(tol=-1.0), ValueError, "tol must be a finite number at le"),
        (lambda: rules.centered_clipping(0.0), ValueError, "tau must be a finite number above 0"),
        (
            lambda: rules.centered_clipping(1.0, start=np.zeros(2))(column(1, 2)),
            ValueError,
            r"start must be of shape \(1,\), got \(2,\)",
        ),
        (lambda: rules.centered_clipping("1"), TypeError, "tau must be a real number, got '1'"),
        (lambda: rules.multi_krum(1, 41)(LARGE), ValueError, "selects 41 vectors, got only n = 40"),
        (lambda: rules.krum(1, 40)(LARGE), ValueError, "needs 40 neighbours, n = 40 workers have "),
        (lambda: rules.krum(1, 0), ValueError, "num_neighbors must be at least 1, got 0"),
        (lambda: rules.multi_krum(1, 0), ValueError, "num_selected must be at least 1, got 0"),
    ],
)
def test_impossible_settings_of_geometric_rules(
    make: Callable[[], Any], error: type[Exception], message: str
):
    with pytest.raises(error, match=message):
        jax.eval_shape(make)


@pytest.mark.parametrize("name", ["krum", "multi_krum", "mda", "monna", "smea", "caf", "dnc"])
def test_half_of_the_workers_must_be_honest(name: str):
    rule = rules.RULES[name](num_byzantine=2)
    message = r"num_byzantine=2.*\) needs 2f < n, got f = 2 and n = 4 workers"
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(rule, np.ones((4, 1), np.float32), 0)
    for value, error in ((-1, ValueError), (1.5, TypeError)):
        with pytest.raises(error, match="num_byzantine must be"):
            rules.RULES[name](num_byzantine=value)

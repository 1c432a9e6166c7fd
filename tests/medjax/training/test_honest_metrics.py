"""Metrics cover the honest workers only, whoever the Byzantine ones are; against NumPy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import medjax
from medjax import attacks, rules
from medjax._engine.participation import draw_participants
from medjax._engine.random import stage_key

# Workers of 1 to 4 examples of 4 numbers.
N, DIM, LR = 7, 4, 0.25
SIZES = [1, 3, 2, 4, 1, 2, 3]
RNG = np.random.default_rng(0)
EXAMPLES = RNG.normal(size=(16, DIM)).astype(np.float32)
PARTS = np.split(RNG.permutation(16), np.cumsum(SIZES)[:-1])
DATA = medjax.stack_workers(EXAMPLES, PARTS)
CENTRES = np.stack([EXAMPLES[part].mean(axis=0, dtype=np.float64) for part in PARTS])
START = np.float32([0.5, -1.0, 0.2, 2.0])
MEAN = [medjax.aggregate(rules.mean()), optax.sgd(LR)]


def quadratic(x: Any, a: Any) -> Any:
    """f_i(x) is the average of ‖x - a‖²/2, so that g_i = x - (the mean of worker i's a)."""
    return jnp.sum((x[None] - a) ** 2, axis=-1) / 2, {"first": a[..., 0]}


def run(optimizer: Any, num_steps: int = 3, data: Any = DATA, **settings: Any) -> Any:
    train = jax.jit(
        lambda data: medjax.simulate(
            quadratic, START, data, optimizer, num_steps=num_steps, eval_every=1, key=4, **settings
        )
    )
    return train(data)


def norms(g: np.ndarray) -> dict[str, float]:
    mean = g.mean(axis=0)
    gap = np.median(g, axis=0) - mean
    return {"grad_norm": np.linalg.norm(mean), "median_mean_gap": np.linalg.norm(gap)}


def by_hand(x: np.ndarray, honest: np.ndarray) -> dict[str, float]:
    own = [EXAMPLES[PARTS[i]].astype(np.float64) for i in honest]
    return {
        "train_loss": np.mean([((x - a) ** 2).sum(axis=1).mean() / 2 for a in own]),
        "train_first": np.mean([a[:, 0].mean() for a in own]),
        **norms(x - CENTRES[honest]),
    }


def assert_metrics(metrics: Any, expected: list[dict[str, float]]) -> None:
    assert set(metrics) == {*expected[0], "nonfinite_workers"}
    for t, values in enumerate(expected):
        for name, value in values.items():
            np.testing.assert_allclose(metrics[name][t], value, rtol=1e-5, err_msg=f"{name} {t}")


def attacked(sent: float, byzantine: np.ndarray, num_steps: int = 3) -> list[dict[str, float]]:
    """The metrics of a run in which the Byzantine workers send a multiple of the honest mean."""
    x, expected = START.astype(np.float64), []
    honest = np.setdiff1d(np.arange(N), byzantine)
    for _ in range(num_steps + 1):
        expected.append(by_hand(x, honest))
        g = (x - CENTRES[honest]).sum(axis=0)
        x = x - LR * (g + len(byzantine) * sent * g / len(honest)) / N
    return expected


def forged(stage: Any) -> np.ndarray:
    """Return the indices of the workers whose vectors a stage changes."""
    before = jnp.asarray(RNG.normal(size=(N, DIM)), jnp.float32)
    after, _ = stage.update(before, stage.init(START))
    return np.flatnonzero((np.asarray(after) != before).any(axis=1))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("who", "byzantine"),
    [("last", [5, 6]), ((3, 0), [0, 3]), (np.array([1, 6]), [1, 6])],
)
def test_known_attackers(who: Any, byzantine: list[int]):
    stage = medjax.attack(attacks.ipm(tau=2.0), 2, byzantine=who)
    np.testing.assert_array_equal(forged(stage), byzantine)
    result = run(optax.chain(stage, *MEAN))
    assert_metrics(result.metrics, attacked(-2.0, np.array(byzantine)))
    assert not result.metrics["nonfinite_workers"].any()


@pytest.mark.slow
def test_drawn_attackers_alone_and_in_a_sweep():
    def stage(seed: Any) -> Any:
        return medjax.attack(attacks.ipm(tau=2.0), 2, byzantine="random", key=seed)

    seeds = np.arange(4)
    drawn = [forged(stage(seed)) for seed in seeds]
    assert len({tuple(byzantine) for byzantine in drawn}) > 1
    swept = jax.vmap(lambda seed: run(optax.chain(stage(seed), *MEAN)).metrics)(seeds)
    for seed, byzantine in zip(seeds, drawn, strict=True):
        assert len(byzantine) == 2
        expected = attacked(-2.0, byzantine)
        assert_metrics({name: values[seed] for name, values in swept.items()}, expected)
    assert_metrics(run(optax.chain(stage(0), *MEAN)).metrics, attacked(-2.0, drawn[0]))


@pytest.mark.slow
@pytest.mark.parametrize("who", [(2, 4), "random"])
def test_non_finite_messages_are_reported_and_not_measured(who: Any):
    stage = medjax.attack(attacks.nonfinite(), 2, byzantine=who, key=3)
    byzantine = forged(stage)
    honest = np.setdiff1d(np.arange(N), byzantine)
    result = run(optax.chain(stage, medjax.aggregate(rules.trimmed_mean(2)), optax.sgd(LR)), 2)
    sent = np.isin(np.arange(N), byzantine)
    # Nothing has been sent before the first step.
    np.testing.assert_array_equal(result.metrics["nonfinite_workers"], [0 * sent, sent, sent])
    # NaN counts as +∞: of the 7 numbers at a coordinate the 2 lowest and the 2 highest are left
    # out, and the latter are those of the Byzantine workers.
    x, expected = START.astype(np.float64), []
    for _ in range(3):
        expected.append(by_hand(x, honest))
        x = x - LR * np.sort(x - CENTRES[honest], axis=0)[2:].mean(axis=0)
    assert_metrics(result.metrics, expected)


@pytest.mark.slow
def test_a_broken_gradient_of_an_honest_worker_is_reported_beside_the_attackers():
    examples = EXAMPLES.copy()
    examples[PARTS[1][0]] = np.nan
    data = medjax.stack_workers(examples, PARTS)
    stage = medjax.attack(attacks.nonfinite(), 1)
    median = medjax.aggregate(rules.median())
    metrics = run(optax.chain(stage, median, optax.sgd(LR)), 1, data).metrics
    np.testing.assert_array_equal(metrics["nonfinite_workers"][0], np.arange(N) == 1)
    np.testing.assert_array_equal(metrics["nonfinite_workers"][1], np.isin(np.arange(N), [1, 6]))


@pytest.mark.slow
def test_several_attacks_leave_out_all_their_workers():
    first = medjax.attack(attacks.ipm(tau=1.0), 1)
    second = medjax.attack(attacks.nonfinite(), 2, byzantine=(0, 6))
    metrics = run(optax.chain(first, second, *MEAN), 0).metrics
    assert_metrics(metrics, [by_hand(START, np.arange(1, 6))])


def test_without_attackers_all_are_honest():
    stage = medjax.attack(attacks.ipm(), 0)
    assert_metrics(run(optax.chain(stage, *MEAN), 0).metrics, [by_hand(START, np.arange(N))])


@pytest.mark.slow
def test_cohorts_leave_out_the_last_workers_and_no_others():
    # Other attackers are places in the cohort, taken by different workers at different steps.
    def metrics(who: Any) -> Any:
        stage = medjax.attack(attacks.ipm(tau=2.0), 1, byzantine=who, key=0)
        return run(optax.chain(stage, *MEAN), 2, participants=4, always=1).metrics

    x, expected = START.astype(np.float64), []
    for t in range(3):
        expected.append(by_hand(x, np.arange(N - 1)))
        cohort = draw_participants(stage_key(4, "simulate"), jnp.int32(t), N, 4, 1)
        g = (x - CENTRES[cohort[:3]]).sum(axis=0)
        x = x - LR * (g - 2 * g / 3) / 4
    assert_metrics(metrics("last"), expected)
    start = {k: v[:1] for k, v in metrics("random").items()}
    assert_metrics(start, [by_hand(START, np.arange(N))])
    # The last two of a cohort, of which only one is always there: the other one differs too.
    two = optax.chain(medjax.attack(attacks.ipm(), 2), *MEAN)
    found = run(two, 1, participants=4, always=1).metrics
    assert_metrics({k: v[:1] for k, v in found.items()}, [by_hand(START, np.arange(N))])


def test_somebody_must_be_honest():
    halves = [medjax.attack(attacks.ipm(), 4, byzantine=range(4))]
    halves += [medjax.attack(attacks.ipm(), 3, byzantine=range(4, N))]
    with pytest.raises(ValueError, match=r"an honest worker, .* by all n = 7 workers"):
        run(optax.chain(*halves, *MEAN), 1)


# Least squares on labels 0, 1, 2.
LABELS = RNG.integers(0, 3, 16).astype(np.int32)


def least_squares(w: Any, batch: Any) -> Any:
    x, y = batch
    return (x @ w - y.astype(x.dtype)) ** 2 / 2, {}


@pytest.mark.slow
@pytest.mark.parametrize("also_attacked", [(), (0,)])
def test_changed_data_are_trained_on_and_not_measured(also_attacked: tuple[int, ...]):
    clean = medjax.stack_workers((EXAMPLES, LABELS), PARTS)
    data = attacks.label_flip(3)(clean, num_byzantine=2)
    assert data.num_byzantine == 2
    stage = medjax.attack(attacks.ipm(tau=1.0), len(also_attacked), byzantine=also_attacked)
    result = medjax.simulate(
        least_squares, START, data, optax.chain(stage, *MEAN), num_steps=3, eval_every=1, key=0
    )

    def local(w: np.ndarray, i: int, labels: np.ndarray) -> tuple[float, np.ndarray]:
        x, y = EXAMPLES[PARTS[i]].astype(np.float64), labels[PARTS[i]]
        return ((x @ w - y) ** 2).mean() / 2, x.T @ (x @ w - y) / len(y)

    honest = [i for i in range(N - 2) if i not in also_attacked]
    w, expected = START.astype(np.float64), []
    for _ in range(4):
        losses, g = zip(*(local(w, i, LABELS) for i in honest), strict=True)
        expected.append({"train_loss": np.mean(losses), **norms(np.stack(g))})
        sent = [*g, *(local(w, i, 2 - LABELS)[1] for i in (5, 6))]
        # An attack on vectors takes those of the poisoned data for honest ones.
        sent += [-np.mean(sent, axis=0) for _ in also_attacked]
        w = w - LR * np.mean(sent, axis=0)
    assert_metrics(result.metrics, expected)

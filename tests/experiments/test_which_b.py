"""The study of b: its problems, and what it makes of a table."""

import numpy as np
import pytest

from experiments import which_b
from experiments.which_b import ADAPTIVE, CHOICES, FIXED, main


@pytest.fixture
def table():
    """Two seeds of every run, whose test accuracies are known."""
    rng = np.random.default_rng(0)
    runs = [
        which_b.run(problem, b, seed=seed, steps=3, dataset="digits")
        for problem in which_b.problems()
        for b in CHOICES
        for seed in (0, 1)
    ]
    accuracy = rng.random((len(runs), 2))  # at steps 0 and 3
    columns = {
        "run": np.repeat(np.arange(len(runs)), 2),
        "step": np.tile([0, 3], len(runs)),
        "train_loss": np.ones(2 * len(runs)),
        "validation_accuracy": rng.random(2 * len(runs)),
        "test_accuracy": accuracy.ravel(),
    }
    return runs, columns, accuracy[:, 1].reshape(-1, len(CHOICES), 2)


def test_problems_span_rules_models_workers_and_heterogeneity():
    problems = which_b.problems()
    assert len(set(problems)) == len(problems) == 24
    assert {p[0] for p in problems} == {"noisy_sign", "noisy_median"}
    assert {p[3] for p in problems} == {0.01, 0.1, 1.0, None}
    run = which_b.run(problems[3], 0.1, seed=4, steps=30, dataset="mnist5k")
    assert (run.partition, run.alpha, run.b, run.seed, run.validation) == ("iid", None, 0.1, 4, 0.1)


def test_regret_is_against_the_best_fixed_b(table):
    runs, columns, final = table
    found = which_b.accuracies(runs, columns)
    means = final.mean(axis=-1)
    for k, problem in enumerate(which_b.problems()):
        row = which_b.regrets(found, problem)
        best = means[k, : len(FIXED)].max()
        np.testing.assert_allclose(row[5:], best - means[k])
        assert float(row[4]) == FIXED[int(np.argmax(means[k, : len(FIXED)]))]


def test_figure_shows_every_problem_and_choice(table):
    runs, columns, final = table
    axes = which_b.figure(which_b.accuracies(runs, columns)).axes
    lines = [line.get_ydata(orig=False) for axis in axes for line in axis.get_lines()]
    drawn = np.concatenate([y for y in lines if len(y) in (len(FIXED), len(ADAPTIVE))])
    np.testing.assert_allclose(np.sort(drawn), np.sort(final.mean(axis=-1).ravel()))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "0"], "--seeds: '0' is not a whole number of at least 1"),
        (["--dataset", "mnits"], "unknown dataset 'mnits': did you mean 'mnist5k'?"),
        (["--frobnicate"], "unrecognized arguments"),
    ],
)
def test_mistakes(arguments, message, error_of, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in error_of(main, *arguments)
    assert not list(tmp_path.iterdir())

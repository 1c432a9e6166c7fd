"""Programs and chunks: every run in exactly one, in rectangles of one shape."""

import numpy as np
import pytest

from medjax.lab.data import load
from medjax.lab.settings.config import configure
from medjax.lab.sweeps import grid
from medjax.lab.sweeps.inputs import Inputs
from medjax.lab.sweeps.plan import (
    estimate_bytes,
    make_chunks,
    make_groups,
    runs_side_by_side,
)
from medjax.lab.task.program import compile_program, many_runs

# What is foreseen is the memory of the programs that users have.
pytestmark = pytest.mark.optimized

DATASETS = {("digits", None): load("digits")}
BASE = {"dataset": ["digits"], "model": ["logistic"]}


def groups_of(**axes):
    runs = grid.expand(BASE | axes)
    return runs, make_groups(runs, DATASETS)


@pytest.mark.slow
def test_a_program_for_each_static_setting():
    runs, groups = groups_of(
        rule=["sign", "noisy_sign"],
        workers=[10, 20],
        b=[0.0, 0.1, "adaptive:0.1", "adaptive:0.2"],
        lr=[0.1, 0.2],
        seed=[0, 1, 2],
    )
    # sign; noisy_sign with a fixed b; with an adaptive one; each with 10 and 20 workers.
    assert sorted(group.runs.shape for group in groups) == [(3, 2)] * 2 + [(3, 4)] * 4
    places = np.concatenate([group.runs.ravel() for group in groups])
    assert sorted(places) == list(range(len(runs)))
    for group in groups:
        for s, seed in enumerate(group.seeds):
            for h, setting in enumerate(group.settings):
                run = runs[group.runs[s, h]]
                assert (run.seed, run.lr, run.b) == (seed, setting.lr, setting.b)
                assert run.rule == setting.rule == group.task.config.rule


def test_momentum_and_theory_share_a_program():
    _, groups = groups_of(b=[0.1, "theory"], lr=[0.1, "theory"], momentum=[0.5, 0.9])
    assert [group.runs.shape for group in groups] == [(1, 8)]


@pytest.mark.parametrize("most", [1, 2, 3, 4, 5, 7, 11, 12, 35, 100])
def test_every_run_is_in_one_chunk(most):
    runs, (group,) = groups_of(b=list(np.linspace(0, 1, 7)), seed=[0, 1, 2, 3, 4])
    chunks = make_chunks(group, most)
    assert len({chunk.new.shape for chunk in chunks}) == 1
    assert all(chunk.new.size <= most for chunk in chunks)
    new = [group.runs[np.ix_(c.seeds, c.settings)][c.new] for c in chunks]
    assert sorted(np.concatenate(new)) == list(range(len(runs)))
    # Little is done twice, to fill up the last of each row: less than a tenth each way.
    assert sum(chunk.new.size for chunk in chunks) <= 1.1**2 * len(runs)


def test_a_grid_too_large_for_memory_is_cut():
    _, (group,) = groups_of(b=list(np.linspace(0, 1, 50)), seed=[0, 1])
    at_most = [runs_side_by_side(group, budget) for budget in (0, 10_000_000, 20_000_000, 10**12)]
    assert at_most[0] == 1
    assert at_most[0] < at_most[1] < at_most[2] <= at_most[3] <= 100
    for most, budget in zip(at_most[1:3], (10_000_000, 20_000_000), strict=True):
        # The data of one seed is counted: here all settings of a seed don't fit together.
        assert estimate_bytes(group, make_chunks(group, most)[0]) <= budget


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"model": "mlp", "rule": "median", "workers": 30},
        {"model": "cnn", "rule": "mean", "batch_size": 8},
    ],
    ids=str,
)
def test_memory_is_foreseen(settings):
    run = configure(dataset="digits", **settings)
    (group,) = make_groups([run], DATASETS)
    (chunk,) = make_chunks(group, 1)
    compiled = compile_program(many_runs(group.task), *Inputs().of(group, chunk))
    assert 0.4 < estimate_bytes(group, chunk) / compiled.num_bytes < 2.5

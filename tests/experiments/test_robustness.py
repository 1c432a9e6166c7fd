"""The study of robustness: its runs, and what it makes of a table."""

import io
import itertools

import numpy as np
import pyarrow.parquet as pq
import pytest
from matplotlib.figure import Figure

from experiments import robustness, robustness_picture
from experiments.robustness import FULL, NNM, QUICK, Study, main
from experiments.robustness_picture import Problem, worst
from medjax.lab.sweeps import pictures
from medjax.lab.sweeps.select import Statistic

SKEWED = Problem(4, "α = 0.1")


@pytest.fixture
def table():
    """Every run of the full study, with two seeds, and test accuracies that are known."""
    study = FULL._replace(seeds=2)
    runs = list(dict.fromkeys(robustness.run(study, *key) for key in robustness._keys(study)))
    rng = np.random.default_rng(0)
    accuracy = dict(zip(runs, rng.random(len(runs)), strict=True))
    columns = {
        "run": np.arange(len(runs)),
        "step": np.full(len(runs), 300),
        "test_accuracy": np.array(list(accuracy.values())),
    }
    return study, robustness.accuracies(study, runs, columns), accuracy


@pytest.mark.slow
def test_runs_of_the_full_study():
    runs = [robustness.run(FULL, *key) for key in robustness._keys(FULL)]
    assert len({run for run in runs if run.seed == 0}) == 546  # programs
    attacked = [run for run in runs if run.attack is not None]
    assert {run.byzantine for run in attacked} == {2, 4}
    for run in runs:
        told = str(run.rule) in ("trimmed_mean", "multi_krum") or str(run.mix) == "nnm"
        assert str(run.rule) != "fltrust" or not str(run.attack).startswith("optimal")
        assert (run.declared_byzantine is not None) == told
        assert run.declared_byzantine in (None, run.byzantine, *((2, 4) * (run.attack is None)))
        assert (run.b is not None) == run.rule.noisy
        assert run.lr == (0.003 if str(run.rule) in ("sign", "noisy_sign") else 0.3)
        assert run.workers == 20
    assert {run.partition for run in runs} == {"iid", "dirichlet", "shards"}
    assert {str(run.mix) for run in runs} == {"None", "nnm"}


def test_the_quick_study_is_of_the_same_names():
    assert set(QUICK.rules) <= set(FULL.rules)
    assert set(QUICK.attacks) <= set(FULL.attacks)
    assert set(QUICK.problems) <= set(FULL.problems)


@pytest.mark.slow
def test_accuracies_are_means_over_seeds(table):
    study, found, accuracy = table
    assert len(found) == len(study.problems) * len(study.rules)
    for (problem, rule), under in found.items():
        assert list(under) == study.attacks_on(rule)
        for attack, value in under.items():
            values = [accuracy[robustness.run(study, problem, rule, attack, s)] for s in (0, 1)]
            assert value.mean == pytest.approx(np.mean(values))
            # s/√2 of two values is half their difference.
            assert value.error == pytest.approx(abs(values[0] - values[1]) / 2)


def test_worst_case():
    under = {name: Statistic(mean, 0.0) for name, mean in (("a", 0.5), ("b", 0.2), ("c", 0.3))}
    assert worst(under) == ("b", Statistic(0.2, 0.0))


def test_claims(table):
    study, found, _ = table
    one = dict.fromkeys(study.attacks, Statistic(0.5, 0.01))
    alie, ipm = "alie:tau=1.5", "ipm:tau=10"
    found = found | {
        (SKEWED, "trimmed_mean"): one | {ipm: Statistic(0.2, 0.01), alie: Statistic(0.4, 0.01)},
        (SKEWED, f"{NNM}trimmed_mean"): one | {alie: Statistic(0.3, 0.02)},
        (SKEWED, "fltrust"): one | {alie: Statistic(0.1, 0.02)},
        (SKEWED, "mean"): one | {ipm: Statistic(0.1, 0.0)},
    }
    told = robustness.check(study, found)
    assert [(claim.ours, claim.holds) for claim in told] == [
        ("0.300 ± 0.020 against 0.200 ± 0.010", True),  # alie and ipm are their worst
        ("0.300 ± 0.020 against 0.400 ± 0.010", False),
        ("0.100 ± 0.020 against 0.200 ± 0.010", False),
        ("0.100 ± 0.000", True),
    ]
    assert all(claim.claim.startswith("α = 0.1, f = 4: ") for claim in told)


def test_only_claims_on_what_there_is(table):
    study, found, _ = table
    some = study.narrowed(["mean", "median"], ["none", "mimic", "ipm:tau=10"], ["alpha=0.1"])
    kept = {key: under for key, under in found.items() if key[1] in some.rules}
    assert [claim.where for claim in robustness.check(some, kept)] == ["Xie et al. (2020)"]
    assert robustness.noise_gains(some, kept) == []


def test_narrowed_to_some_names():
    assert FULL.narrowed(None, None, None) == FULL
    some = QUICK.narrowed(["fltrust"], ["none", "alie:tau=1.5"], ["shards", "alpha=0.1"])
    assert some.rules == ["fltrust"]
    assert set(some.problems) == {SKEWED, Problem(4, "2 shards")}
    assert FULL.narrowed(None, None, ["alpha=0.1"]).problems == [SKEWED, Problem(2, "α = 0.1")]
    assert len(robustness._keys(some)) == 2 * 2 * QUICK.seeds


def test_noise_is_compared_with_none(table):
    study, found, _ = table
    rows = robustness.noise_gains(study, found)
    assert [row[:2] for row in rows] == [
        (str(problem), rule)
        for problem in study.problems
        for rule in ("noisy_median", "noisy_sign")
    ]
    plain, noisy = found[study.problems[0], "median"], found[study.problems[0], "noisy_median"]
    for cell, before, after in (
        (rows[0][2], plain["none"], noisy["none"]),
        (rows[0][3], worst(plain)[1], worst(noisy)[1]),
    ):
        gain, error = after.mean - before.mean, np.hypot(after.error, before.error)
        expected = f"{gain:+.3f} ± {error:.3f}, from {before.mean:.3f} to {after.mean:.3f}"
        assert cell == expected


@pytest.mark.slow
def test_picture_has_the_worst_cases_and_every_attack(table):
    study, found, _ = table
    figure = robustness_picture.figure(found, "a title")
    figure.savefig(io.BytesIO(), format="png", dpi=30)
    panels = {axis.get_title(loc="left"): axis for axis in figure.axes if axis.images}
    assert list(panels) == [
        *("worst case, f = 4", "f = 2", "iid, f = 4", "α = 1, f = 4", "α = 0.1, f = 4"),
        "2 shards, f = 4",
    ]
    written = {text.get_position(): text.get_text() for text in panels["worst case, f = 4"].texts}
    for (column, split), (row, rule) in itertools.product(
        enumerate(("iid", "α = 1", "α = 0.1", "2 shards")), enumerate(study.rules)
    ):
        attack, value = worst(found[Problem(4, split), rule])
        assert written[column, row] == f"{100 * value.mean:.0f}\n{attack.partition(':')[0]}"
    under = [found[SKEWED, rule] for rule in study.rules]
    values = [[row[a].mean if a in row else np.nan for a in study.attacks] for row in under]
    shown = np.ma.filled(panels["α = 0.1, f = 4"].images[0].get_array(), np.nan)
    np.testing.assert_allclose(shown, 100 * np.array(values))
    # The best of each column is outlined.
    outlined = {(p.get_x() + 0.5, p.get_y() + 0.5) for p in panels["f = 2"].patches}
    worsts = [worst(found[Problem(2, "α = 0.1"), rule])[1].mean for rule in study.rules]
    assert outlined == {(0, np.argmax(worsts))}
    assert panels["iid, f = 4"].get_ylim() == (len(study.rules) - 0.5, -0.5)  # the first on top


@pytest.mark.slow
def test_the_command(tmp_path, monkeypatch, capsys):
    study = Study(
        rules=("mean", f"{NNM}trimmed_mean"),
        attacks=("ipm:tau=10", "alie:tau=1.5", "none"),
        problems=[SKEWED],
        settings={"dataset": "digits", "steps": 60},
        seeds=2,
    )
    monkeypatch.setattr(robustness, "QUICK", study)
    monkeypatch.setattr(pictures, "draw", lambda *_: {"curves": Figure((1, 1))})  # of the sweep
    chosen = ("--attacks", "ipm:tau=10", "alie:tau=1.5")
    assert main(["--quick", *chosen, "--out", str(tmp_path / "study")]) in (0, 1)
    printed = capsys.readouterr().out
    assert "α = 0.1, f = 4: test accuracy, mean ± standard error over seeds" in printed
    names = {path.name for path in (tmp_path / "study").iterdir()}
    assert names >= {"robustness.png", "robustness.svg", "claims.md", "claims.parquet"}
    every = pq.read_table(tmp_path / "study/accuracy.parquet").to_pylist()
    assert len(every) == 2 * 2
    by_rule = {
        rule: {row["attack"]: row["test_accuracy"] for row in every if row["rule"] == rule}
        for rule in study.rules
    }
    for row in pq.read_table(tmp_path / "study/worst.parquet").to_pylist():
        assert row["test_accuracy"] == min(by_rule[row["rule"]].values())
        assert row["test_accuracy"] == by_rule[row["rule"]][row["attack"]]
        assert (row["byzantine"], row["split"]) == SKEWED
    # The mean goes uphill; NNM before the trimmed mean takes the attackers out.
    assert by_rule["mean"]["ipm:tau=10"] < 0.2 < 0.5 < by_rule["nnm + trimmed_mean"]["ipm:tau=10"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--quick", "--out", "study"], "already holds other results"),
        (["--steps", "3"], "unrecognized arguments: --steps 3"),
        (["--splits", "alpha=1", "beta"], "unknown split 'beta': valid: iid, alpha=1, alpha=0.1"),
        (["--rules", "krum"], "unknown rule 'krum'"),
    ],
)
def test_mistakes(arguments, message, error_of, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study").mkdir()
    (tmp_path / "study/config.json").write_text("{}")
    assert message in error_of(main, *arguments)

"""Sweeps over attacks: `none` among them, and a setting as good as under the worst of them."""

import dataclasses
import json
import re

import numpy as np
import pyarrow.parquet as pq
import pytest

from medjax.lab.commands import run
from medjax.lab.commands.sweep import main
from medjax.lab.data import load
from medjax.lab.settings import cli
from medjax.lab.settings.config import configure
from medjax.lab.settings.field import plain
from medjax.lab.sweeps import fit, grid, select
from medjax.lab.task import setup, workers
from medjax.lab.task.program import compile_program


def runs_of(*argv):
    parser = cli.Parser("sweep", "")
    grid.add_grid_options(parser)
    _, axes = grid.read_axes(parser, argv)
    return grid.expand(axes)


def measured(runs, validation, test):
    """A table with one measurement of each run."""
    return {
        "run": np.arange(len(runs)),
        "step": np.full(len(runs), 5),
        "train_loss": np.ones(len(runs)),
        "validation_accuracy": np.array(validation),
        "test_accuracy": np.array(test),
    }


def test_none_is_an_attack_like_any_other():
    rules = ("--rule", "mean", "trimmed_mean")
    expected = [
        ("mean", None, None, None),
        ("mean", "alie", 4, None),
        # Told of as many as if there were an attack.
        ("trimmed_mean", None, None, 4),
        ("trimmed_mean", "alie", 4, 4),
    ]
    for flag in ("--byzantine", "--declared-byzantine"):
        runs = runs_of(*rules, "--attack", "none", "alie", "--workers", "20", flag, "4")
        found = [
            (str(run.rule), plain(run.attack), run.byzantine, run.declared_byzantine)
            for run in runs
        ]
        assert found == expected


def test_none_in_a_file_and_of_other_stages(tmp_path):
    (tmp_path / "grid.toml").write_text('mix = ["none", "nnm"]\ncompress = ["none", "sign"]')
    runs = runs_of("--rule", "median", "--grid", str(tmp_path / "grid.toml"))
    assert [(plain(run.compress), plain(run.mix)) for run in runs] == [
        (None, None),
        (None, "nnm"),
        ("sign", None),
        ("sign", "nnm"),
    ]


def test_none_alone_takes_no_attackers(error_of):
    message = error_of(main, "--attack", "none", "--byzantine", "2", "--dataset", "digits")
    assert "--byzantine 2 goes only with --attack" in message


def test_the_setting_is_chosen_by_its_worst_attack():
    runs = runs_of("--rule", "mean", "--attack", "none", "alie", "ipm", "--lr", "0.1", "0.2")
    assert [(plain(run.attack), run.lr) for run in runs] == [
        (attack, lr) for lr in (0.1, 0.2) for attack in (None, "alie", "ipm")
    ]
    # The worst of 0.1 is ipm's 0.3, of 0.2 alie's 0.4; for ipm alone 0.1 would be worse, too, but
    # for the others better.
    validation = [0.9, 0.8, 0.3, 0.6, 0.4, 0.5]
    # The test accuracies would choose 0.1, whose worst is 0.5.
    columns = measured(runs, validation, [0.9, 0.8, 0.5, 0.6, 0.55, 0.45])
    chosen = select.best(select.candidates(runs, columns), columns)
    assert [(plain(c.run.attack), c.run.lr) for c in chosen] == [
        (None, 0.2),
        ("alie", 0.2),
        ("ipm", 0.2),
    ]
    # By test accuracy the worst is another one.
    (worst,) = select.worst_cases(chosen)
    assert (str(worst.run.attack), worst.final["test_accuracy"].mean) == ("ipm", 0.45)


def test_no_attack_is_beside_every_number_of_attackers():
    runs = runs_of(
        *("--rule", "mean", "--attack", "none", "alie", "--byzantine", "1", "2"),
        *("--lr", "0.1", "0.2"),
    )
    assert [(plain(run.attack), run.byzantine, run.lr) for run in runs] == [
        (attack, f, lr)
        for lr in (0.1, 0.2)
        for attack, f in ((None, None), ("alie", 1), ("alie", 2))
    ]
    # With one attacker 0.2 is better in its worst case, none (0.5 to 0.4); with two 0.1, under alie
    # (0.3 to 0.2).
    values = [0.4, 0.6, 0.3, 0.5, 0.7, 0.2]
    columns = measured(runs, values, values)
    chosen = select.best(select.candidates(runs, columns), columns)
    assert {(plain(c.run.attack), c.run.byzantine, c.run.lr) for c in chosen} == {
        (None, None, 0.2),
        ("alie", 1, 0.2),
        (None, None, 0.1),
        ("alie", 2, 0.1),
    }
    worst = select.worst_cases(chosen)
    assert [(plain(c.run.attack), c.run.byzantine, c.run.lr) for c in worst] == [
        (None, None, 0.2),
        ("alie", 2, 0.1),
    ]


def test_without_validation_data_the_training_loss_decides():
    runs = runs_of("--rule", "mean", "--validation", "0", "0.1", "--lr", "0.1", "0.2")
    columns = measured(runs, [0.5 if run.validation else np.nan for run in runs], np.ones(4))
    columns["train_loss"] = np.array([1 / run.lr for run in runs])
    chosen = select.best(select.candidates(runs, columns), columns)
    assert {(candidate.run.validation, candidate.run.lr) for candidate in chosen} == {
        (0.0, 0.2),
        (0.1, 0.2),
    }


def test_rules_and_problems_are_chosen_for_on_their_own():
    runs = runs_of(
        *("--rule", "mean", "median", "--attack", "none", "alie", "--workers", "10", "20"),
        *("--lr", "0.1", "0.2"),
    )
    values = np.random.default_rng(0).random(len(runs))
    columns = measured(runs, values, values[::-1])
    chosen = select.best(select.candidates(runs, columns), columns)
    assert len(chosen) == 2 * 2 * 2
    accuracy = dict(zip(runs, values, strict=True))
    for rule, n in ((rule, n) for rule in ("mean", "median") for n in (10, 20)):
        worst = {
            lr: min(
                v
                for run, v in accuracy.items()
                if (str(run.rule), run.workers, run.lr) == (rule, n, lr)
            )
            for lr in (0.1, 0.2)
        }
        those = {c.run.lr for c in chosen if (str(c.run.rule), c.run.workers) == (rule, n)}
        assert those == {max(worst, key=worst.__getitem__)}


@pytest.mark.slow
def test_data_are_poisoned_seed_by_seed():
    settings = {"dataset": "digits", "partition": "dirichlet", "byzantine": 3}
    run = configure(rule="mean", attack="label_flip+backdoor:target=3", **settings)
    task = setup.prepare(run, load("digits"))
    together = workers.worker_data(task, workers.share_out(task, [0, 1]))
    for seed in (0, 1):
        # Padded like the larger of the two, whose rows beyond the own ones repeat them.
        alone = workers.build(dataclasses.replace(run, seed=seed)).workers
        np.testing.assert_array_equal(together.sizes[seed], alone.sizes)
        for several, one in zip(together.examples, alone.examples, strict=True):
            np.testing.assert_array_equal(several[seed][:, : one.shape[1]], one)
    honest = dataclasses.replace(task.protocol, data_attacks=())
    clean = workers.worker_data(
        dataclasses.replace(task, protocol=honest), workers.share_out(task, [0, 1])
    )
    changed = np.any(np.asarray(clean.examples[1] != together.examples[1]), axis=2)
    assert changed.tolist() == 2 * [[False] * 7 + [True] * 3]


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_sweep_over_attacks(tmp_path, monkeypatch, capsys):
    compiled = []

    def kept(*arguments):
        compiled.append(compile_program(*arguments))
        return compiled[-1]

    monkeypatch.setattr(fit, "compile_program", kept)
    settings = ("--dataset", "digits", "--model", "logistic", "--steps", "10", "--seeds", "2")
    grid = ("--rule", "mean", "median", "--attack", "none", "ipm:tau=100")
    assert main([*settings, *grid, "--out", str(tmp_path / "sweep")]) == 0

    printed = capsys.readouterr().out
    assert "Best by the worst validation accuracy over attacks" in printed
    table = printed.partition("Their worst cases, by test accuracy:")[2]
    columns = pq.read_table(tmp_path / "sweep/results.parquet").to_pydict()
    places = [k for k, step in enumerate(columns["step"]) if step == 10]
    summary = json.loads((tmp_path / "sweep/summary.json").read_text())
    for rule, worst in zip(("mean", "median"), summary["worst"], strict=True):
        means = {
            attack: np.mean(
                [
                    columns["test_accuracy"][k]
                    for k in places
                    if (columns["rule"][k], columns["attack"][k]) == (rule, attack)
                ]
            )
            for attack in (None, "ipm:tau=100")
        }
        attack = min(means, key=means.__getitem__)
        assert (worst["run"]["rule"], worst["run"]["attack"]) == (rule, attack)
        assert worst["final"]["test_accuracy"]["mean"] == pytest.approx(means[attack])
        (row,) = (line for line in table.splitlines() if line.startswith(f"{rule} "))
        assert (attack or "none") in row
        found = [float(number) for number in re.findall(r" (\d\.\d+) +±", row)]
        assert found[1] == pytest.approx(means[attack], abs=6e-4)  # after the validation accuracy

    # The attacked run alone measures the same.
    alone = ("--rule", "median", "--attack", "ipm:tau=100", "--seed", "1", "--validation", "0.1")
    assert run.main([*settings[:-2], *alone, "--out", str(tmp_path / "run")]) == 0
    measured = json.loads((tmp_path / "run/summary.json").read_text())
    (place,) = (
        k
        for k in places
        if (columns["rule"][k], columns["attack"][k], columns["seed"][k])
        == ("median", "ipm:tau=100", 1)
    )
    for name in ("train_loss", "test_loss", "grad_norm", "bits_up", "bits_down"):
        assert columns[name][place] == pytest.approx(measured[name], rel=1e-4)

    # What the two rules have in common is compiled once.
    (mean, mean_attacked), (median, median_attacked) = (
        [c.program for c in compiled[k : k + 2]] for k in (0, 2)
    )
    assert mean.init is median.init
    assert mean.measure is median.measure
    assert mean_attacked.measure is median_attacked.measure
    assert mean.measure is not mean_attacked.measure  # of 10 honest workers, or of 9
    assert len({id(c.program.advance) for c in compiled}) == 4

"""Measurements of runs by command: in turns, on some of the examples, foreseen."""

import json
import re
import signal

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest

from medjax.lab.commands import progress
from medjax.lab.commands.run import main
from medjax.lab.settings.config import configure
from medjax.lab.task import training
from medjax.lab.task.workers import build

QUICK = ["--dataset", "digits", "--model", "logistic"]


@pytest.fixture
def in_many_turns(monkeypatch):
    """Measure one example of each worker in a turn, as if networks were large."""
    monkeypatch.setattr("medjax.training._chunks._NUMBERS_MEASURED", 1)


@pytest.mark.slow
def test_a_measurement_of_many_turns_is_that_of_one(tmp_path, request):
    flags = (*QUICK, "--steps", "2", "--eval-every", "1", "--examples-per-worker", "20")
    assert main([*flags, "--out", str(tmp_path / "one")]) == 0
    request.getfixturevalue("in_many_turns")
    assert main([*flags, "--out", str(tmp_path / "many")]) == 0
    one, many = (
        pq.read_table(tmp_path / x / "metrics.parquet").to_pydict() for x in ("one", "many")
    )
    assert one.keys() == many.keys()
    for name, values in one.items():
        assert many[name] == pytest.approx(values, rel=1e-4), name


@pytest.mark.slow
@pytest.mark.usefixtures("in_many_turns")
def test_a_run_is_heard_and_stopped_while_it_measures(tmp_path, monkeypatch, capsys):
    """The second measurement would take too long: it is given up, and the first is kept."""
    monkeypatch.setattr(training, "_SECONDS_PER_CHUNK", 1e-9)
    monkeypatch.setattr(training, "_SECONDS_AFTER_STOP", 0.0)
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0.0)
    taken, update = [], progress.Reporter.update

    def updated(reporter, news):
        taken.append(news.measuring)
        if news.step == 1 and news.measuring is not None:
            signal.raise_signal(signal.SIGTERM)
        update(reporter, news)

    monkeypatch.setattr(progress.Reporter, "update", updated)
    flags = ("--steps", "3", "--eval-every", "1", "--examples-per-worker", "20")
    assert main([*QUICK, *flags, "--out", str(tmp_path / "run")]) == 130
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert (summary["step"], summary["stopped_early"]) == (0, True)
    whole = taken.index(None)  # the first measurement ends
    assert taken[:whole] == pytest.approx(np.arange(1, whole + 1) / (whole + 1))
    assert len(taken) - whole < 5
    said = capsys.readouterr().out
    assert "measuring, 50%" in said
    assert "stopped after 1 of 3 steps" in said


def test_the_same_examples_are_measured_each_time():
    def built(**settings):
        return build(configure(rule="mean", dataset="digits", model="logistic", **settings))

    one, other = (jax.device_get(built(eval_examples=3).measured) for _ in range(2))
    assert one.examples[0].shape == (10, 3, 8, 8, 1)
    assert one.sizes.tolist() == [3] * 10
    np.testing.assert_array_equal(one.examples[0], other.examples[0])
    every = built(eval_examples=10000)
    assert every.measured is every.workers  # all that there are


@pytest.mark.slow
def test_only_some_examples_are_measured(tmp_path):
    def final(name, *flags):
        assert main([*QUICK, *flags, "--steps", "1", "--out", str(tmp_path / name)]) == 0
        return json.loads((tmp_path / name / "summary.json").read_text())

    some, every = final("some", "--eval-examples", "3"), final("every")
    assert some["train_loss"] != every["train_loss"]
    # Of 10 workers with 3 examples each.
    assert some["train_accuracy"] * 30 == pytest.approx(round(some["train_accuracy"] * 30))
    # They train on all that they have.
    assert some["test_loss"] == every["test_loss"]


@pytest.mark.slow
def test_time_and_memory_are_told_before_the_run(tmp_path, capsys):
    assert main([*QUICK, "--steps", "4", "--eval-every", "2", "--out", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    pattern = r"estimate   0:00:\d\d: 4 steps of [\d.e-]+ s, 3 measurements of [\d.e-]+ s; \d+ MiB"
    assert re.search(pattern, said)
    assert said.index("estimate ") < said.index("train loss")

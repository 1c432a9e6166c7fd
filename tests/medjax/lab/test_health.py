"""A loss that isn't finite, and workers who send NaN or ±∞: noticed, named, and survived."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from medjax.lab.commands import run, sweep
from medjax.lab.storage.keeper import FOLDER
from medjax.lab.sweeps import select
from medjax.lab.task import health

pytestmark = pytest.mark.usefixtures("no_pictures")

QUICK = ("--dataset", "digits", "--model", "logistic", "--eval-every", "10")
NONFINITE = ("--attack", "nonfinite", "--byzantine", "2")
# The logistic model's gradients are bounded, so its loss is infinite only after a step that is.
DIVERGES = ("--rule", "mean", "--lr", "1e38", "--model", "mlp")


def read(folder, name):
    return json.loads((folder / name).read_text())


@pytest.mark.slow
def test_who_sends_nan_is_named(tmp_path, capsys):
    out = tmp_path / "run"
    attacked = (*QUICK, "--rule", "median", *NONFINITE, "--steps", "20", "--out", str(out))
    assert run.main([*attacked]) == 0
    table = pq.read_table(out / "metrics.parquet").to_pydict()
    assert table["nonfinite_workers"] == [0, 2, 2]  # before the first step nothing has been sent
    assert np.isfinite(table["train_loss"]).all()
    assert read(out, "summary.json")["nonfinite_since_step"] == {"8": 10, "9": 10}
    assert read(out, health.NONFINITE) == {"8": 10, "9": 10}
    assert "\nnot finite: what workers 8-9 send at step 10\n" in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_of_finite_numbers_names_nobody(tmp_path):
    out = tmp_path / "run"
    attacked = (*QUICK, "--attack", "ipm", "--byzantine", "2", "--steps", "20")
    assert run.main([*attacked, "--out", str(out)]) == 0
    table = pq.read_table(out / "metrics.parquet").to_pydict()
    assert set(table["nonfinite_workers"]) == {0}
    summary = read(out, "summary.json")
    assert summary["nonfinite_since_step"] == {}
    assert summary["diverged_at_step"] is None
    assert not (out / health.NONFINITE).exists()


@pytest.mark.slow
def test_those_named_before_a_stop_stay_named(tmp_path):
    out = tmp_path / "run"
    attacked = (*QUICK, "--rule", "median", *NONFINITE, "--out", str(out))
    assert run.main([*attacked, "--steps", "20", "--checkpoint-every", "10"]) == 0
    # As if it had been killed at step 10, when worker 3 had been seen too, and 4 not before 20.
    for step in (out / FOLDER).iterdir():
        if step.name == "20":
            step.rename(tmp_path / "20")
    health.write_seen(out, {8: 10, 9: 10, 3: 0, 4: 20})
    assert run.main(["--resume", str(out)]) == 0
    seen = {"8": 10, "9": 10, "3": 0}
    assert read(out, "summary.json")["nonfinite_since_step"] == seen


@pytest.mark.slow
def test_a_loss_that_is_not_finite_is_named_with_its_step(tmp_path, capsys):
    out = tmp_path / "run"
    assert run.main([*QUICK, *DIVERGES, "--steps", "20", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert said.count("diverged: the training loss is nan at step 10\n") == 1
    assert "not finite: what all 10 workers send at step 10\n" in said
    summary = read(out, "summary.json")
    assert summary["diverged_at_step"] == 10
    assert summary["step"] == 20  # it went on
    assert summary["train_loss"] is None


@pytest.mark.slow
def test_the_rest_of_a_sweep_goes_on(tmp_path, capsys):
    out = tmp_path / "sweep"
    mlp = (*QUICK[:2], "--model", "mlp", *QUICK[-2:])
    grid = ("--rule", "mean", "--lr", "0.1", "1e38", "--seeds", "2")
    assert sweep.main([*mlp, *grid, "--steps", "20", "--out", str(out)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "diverged 2 of 4 runs: mean, δ = 1e+38, seed 0 (step 10); mean, δ = 1e+38, seed 1 (step 10)"
    ) in said
    summary = read(out, "summary.json")
    assert summary["diverged_at_step"] == {"2": 10, "3": 10}
    assert summary["best"][0]["run"]["lr"] == 0.1
    table = pq.read_table(out / "results.parquet").to_pydict()
    finite = {r: x for r, x in zip(table["run"], table["train_loss"], strict=True)}
    assert np.isfinite([finite[0], finite[1]]).all()
    assert table["nonfinite_workers"][-1] == 10


def test_the_first_of_a_runs_measurements_counts():
    columns = {
        "run": np.array([0, 0, 1, 1, 1, 2]),
        "step": np.array([0, 5, 0, 5, 9, 0]),
        "train_loss": np.array([1.0, 2.0, 1.0, np.inf, np.nan, np.nan]),
    }
    assert select.diverged(columns) == {1: 5, 2: 0}
    assert health.diverged_at([0, 5, 9], [1.0, np.inf, np.nan]) == 5
    assert health.diverged_at([0, 5], [1.0, 2.0]) is None


@pytest.mark.parametrize(
    ("workers", "words"),
    [
        ([3], "worker 3"),
        ([9, 8], "workers 8-9"),
        ([0, 1, 2, 5, 7, 8], "workers 0-2, 5, 7-8"),
        (list(range(10)), "all 10 workers"),
    ],
)
def test_workers_in_words(workers, words):
    assert health.in_words(workers, 10) == words


@pytest.mark.parametrize("content", [b"", b"[1]", b"\xff", b'{"a": 1}', b'{"1": null}'])
def test_a_file_of_others_is_refused(tmp_path, content):
    (tmp_path / health.NONFINITE).write_bytes(content)
    with pytest.raises(ValueError, match=r"nonfinite\.json' can't be read"):
        health.read_seen(tmp_path, 10)

"""Sweeps by command: tables, files, interrupts, one process at a time."""

import contextlib
import io
import json
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest

from medjax.lab.commands import run
from medjax.lab.commands.sweep import main
from medjax.lab.sweeps import fit, plan

QUICK = ["--dataset", "digits", "--model", "logistic", "--steps", "20", "--eval-every", "5"]
GRID = ["--rule", "sign", "noisy_sign", "--b", "0", "0.01", "0.1", "--lr", "0.01", "0.1"]
METRICS = {
    f"{part}_{name}" for part in ("train", "validation", "test") for name in ("loss", "accuracy")
} | {"grad_norm", "median_mean_gap", "nonfinite_workers"}


def table(folder):
    return pq.read_table(folder / "results.parquet").to_pydict()


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """A finished sweep's folder, how many programs it compiled, and what it printed."""
    folder = tmp_path_factory.mktemp("sweep") / "grid"
    compiled, compile_program = [], fit.compile_program

    def counted(*arguments):
        compiled.append(arguments)
        return compile_program(*arguments)

    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(fit, "compile_program", counted)
        assert main([*QUICK, *GRID, "--seeds", "2", "--out", str(folder)]) == 0
    return folder, len(compiled), printed.getvalue()


@pytest.fixture(scope="module")
def finished(session):
    return session[0]


@pytest.mark.slow
def test_one_compiled_program_for_each_rule_and_all_its_numbers(session):
    _, compiled, printed = session
    assert compiled == 2
    assert "16 runs, 320 steps in all" in printed
    assert "2 programs to compile, 2 chunks of up to 12 runs side by side" in printed
    assert re.search(r"memory +about \d+ MiB at a time", printed)


@pytest.mark.slow
def test_a_row_for_each_run_and_measurement(finished):
    columns = table(finished)
    assert set(columns) >= METRICS | {"run", "step", "rule", "b", "lr", "seed", "workers"}
    assert columns["step"] == [0, 5, 10, 15, 20] * 16
    assert columns["run"] == [run for run in range(16) for _ in range(5)]
    settings = zip(columns["rule"], columns["b"], columns["lr"], columns["seed"], strict=True)
    assert len(set(settings)) == 2 * 2 + 3 * 2 * 2
    assert {b for rule, b in zip(columns["rule"], columns["b"], strict=True) if rule == "sign"} == {
        None
    }


@pytest.mark.slow
def test_folder_explains_itself(finished):
    record = json.loads((finished / "config.json").read_text())
    assert record["runs"] == 16
    assert record["settings"]["steps"] == 20
    assert record["settings"]["validation"] == 0.1
    assert record["axes"]["lr"] == [0.01, 0.1]
    assert record["axes"]["seed"] == [0, 1]
    (session,) = record["sessions"]
    assert session["versions"]["jax"]
    names = {path.name for path in finished.iterdir()}
    assert names >= {"results.parquet", "summary.json", "curves.png", "b.png", "heatmap-lr-b.png"}


@pytest.mark.slow
def test_settings_are_chosen_by_validation_and_averaged_over_seeds(finished):
    summary, columns = json.loads((finished / "summary.json").read_text()), table(finished)
    last = {
        (columns["rule"][k], columns["b"][k], columns["lr"][k], columns["seed"][k]): k
        for k in range(len(columns["run"]))
        if columns["step"][k] == 20
    }
    assert summary["criterion"] == "validation_accuracy"
    for rule in ("sign", "noisy_sign"):
        means = {
            key[:3]: np.mean([columns["validation_accuracy"][last[*key[:3], s]] for s in (0, 1)])
            for key in last
            if key[0] == rule
        }
        (best,) = (c for c in summary["best"] if c["run"]["rule"] == rule)
        assert best["final"]["validation_accuracy"]["mean"] == pytest.approx(max(means.values()))
        chosen = (rule, best["run"]["b"], best["run"]["lr"])
        values = [columns["test_accuracy"][last[*chosen, s]] for s in (0, 1)]
        assert best["final"]["test_accuracy"]["mean"] == pytest.approx(np.mean(values))
        # s/√S with s² = Σ(x - mean)²/(S - 1): half the difference of two.
        error = abs(values[0] - values[1]) / 2
        assert best["final"]["test_accuracy"]["error"] == pytest.approx(error)


@pytest.mark.slow
def test_the_same_as_a_separate_run(finished, tmp_path):
    settings = ["--rule", "noisy_sign", "--b", "0.1", "--lr", "0.01", "--seed", "1"]
    arguments = [*QUICK, *settings, "--validation", "0.1", "--out", str(tmp_path / "run")]
    assert run.main(arguments) == 0
    alone = pq.read_table(tmp_path / "run/metrics.parquet").to_pydict()
    columns = table(finished)
    keys = zip(columns["rule"], columns["b"], columns["lr"], columns["seed"], strict=True)
    rows = [k for k, key in enumerate(keys) if key == ("noisy_sign", 0.1, 0.01, 1)]
    for name in METRICS:
        np.testing.assert_allclose(
            [columns[name][k] for k in rows], alone[name], rtol=1e-4, atol=1e-6, err_msg=name
        )


@pytest.mark.slow
def test_finished_work_is_not_done_again(finished, monkeypatch, capsys):
    before = {path: path.stat().st_mtime_ns for path in finished.glob("parts/*")}
    monkeypatch.setattr(fit, "compile_program", None)
    again = [*QUICK, *GRID, "--seeds", "2", "--out", str(finished)]
    assert main(again) == 0
    assert before == {path: path.stat().st_mtime_ns for path in finished.glob("parts/*")}
    printed = capsys.readouterr().out
    assert "16 runs of them, 0 to do" in printed
    assert "Best by validation accuracy" in printed


@pytest.mark.slow
def test_folder_of_another_grid_is_kept(finished, error_of):
    message = error_of(main, *QUICK, *GRID, "--seeds", "3", "--out", str(finished))
    assert "already holds other results" in message


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_the_default_folder_is_the_same_for_the_same_grid(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seeds in ("1", "1", "2"):
        assert main([*QUICK, "--rule", "mean", "--seeds", seeds]) == 0
    assert len(list((tmp_path / "runs").iterdir())) == 2


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_a_killed_sweep_goes_on_and_no_other_process_beside_it(
    finished, tmp_path, error_of, capsys
):
    # Two programs, so two chunks, each of a second or more with the compiling.
    folder = tmp_path / "sweep"
    grid = [*QUICK, *GRID, "--seeds", "2", "--out", str(folder)]
    command = [sys.executable, "-m", "experiments.sweep", *grid]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while not list(folder.glob("parts/*.parquet")):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGSTOP)
        try:
            message = error_of(main, *grid)
        finally:
            process.kill()
    assert "another process is at work" in message
    assert not (folder / "results.parquet").exists()
    (first,) = folder.glob("parts/*.parquet")
    written, runs = first.stat().st_mtime_ns, len(set(pq.read_table(first)["run"].to_pylist()))

    assert main(grid) == 0
    assert f"{runs} runs of them, {16 - runs} to do" in capsys.readouterr().out
    assert first.stat().st_mtime_ns == written
    resumed, whole = (pq.read_table(x / "results.parquet") for x in (folder, finished))
    assert resumed.equals(whole)
    assert len(json.loads((folder / "config.json").read_text())["sessions"]) == 2


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_runs_one_at_a_time_are_those_side_by_side(finished, tmp_path, monkeypatch, capsys):
    # A chunk of one is another program, without the maps over seeds and settings.
    grid = ["--rule", "noisy_sign", "--b", "0.1", "--lr", "0.01", "0.1", "--seeds", "2"]
    monkeypatch.setattr(plan, "_CACHED_NUMBERS", 1)
    assert main([*QUICK, *grid, "--out", str(tmp_path / "alone")]) == 0
    assert "4 chunks of up to 1 run side by side" in capsys.readouterr().out
    together, alone = table(finished), table(tmp_path / "alone")
    settings = zip(together["rule"], together["b"], strict=True)
    rows = [k for k, each in enumerate(settings) if each == ("noisy_sign", 0.1)]
    together = {name: [values[k] for k in rows] for name, values in together.items()}
    assert together["lr"] == alone["lr"]
    assert together["seed"] == alone["seed"]
    assert len(rows) == 4 * 5
    for name in METRICS:
        np.testing.assert_allclose(alone[name], together[name], rtol=1e-4, atol=1e-6, err_msg=name)

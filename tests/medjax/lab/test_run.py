"""Runs by command: output, files, errors, Ctrl-C."""

import contextlib
import io
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from medjax.lab import plots
from medjax.lab.commands.run import main
from medjax.lab.settings.rules import RULE_TABLE

QUICK = ["--dataset", "digits", "--model", "logistic"]
METRICS = {
    "train_loss",
    "train_accuracy",
    "test_loss",
    "test_accuracy",
    "grad_norm",
    "median_mean_gap",
    "nonfinite_workers",
}


def run(out: Path, *arguments: str) -> dict[str, float]:
    assert main([*QUICK, *arguments, "--out", str(out)]) == 0
    return json.loads((out / "summary.json").read_text())


def table(out: Path) -> dict[str, list[float]]:
    return pq.read_table(out / "metrics.parquet").to_pydict()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run's folder, and what was printed."""
    out, printed = tmp_path_factory.mktemp("finished") / "run", io.StringIO()
    with contextlib.redirect_stdout(printed):
        run(out, "--steps", "25", "--eval-every", "10", "--batch-size", "8")
    return out, printed.getvalue()


@pytest.mark.slow
def test_folder_holds_what_was_measured(finished):
    out, printed = finished
    summary, config = (json.loads((out / f"{x}.json").read_text()) for x in ("summary", "config"))
    assert {path.name for path in out.iterdir()} == {
        "config.json",
        "metrics.parquet",
        "summary.json",
        "curves.png",
    }
    columns = table(out)
    assert columns["step"] == [0, 10, 20, 25]
    assert set(columns) == METRICS | {"step", "bits_up", "bits_down"}
    assert all(summary[name] == columns[name][-1] for name in METRICS)
    assert summary["num_params"] == 64 * 10 + 10
    assert summary["steps_per_second"] > 0
    assert summary["stopped_early"] is False
    assert summary["diverged_at_step"] is None
    assert config["config"]["rule"] == "noisy_sign"
    assert config["config"]["b"] == 0.01
    assert config["config"]["alpha"] is None
    assert config["folder"] == str(out)
    assert config["versions"]["jax"]
    assert config["device"]["platform"] == "cpu"
    assert (out / "curves.png").read_bytes()[:4] == b"\x89PNG"
    assert "noisy_sign: step size 0.003, normal noise, b = 0.01" in printed
    assert re.search(r"^ +25 .* steps/s$", printed, re.MULTILINE)
    assert "25 steps in" in printed


@pytest.mark.slow
def test_first_measurement_is_of_the_untrained_model(finished):
    # Ten balanced classes: an untrained model's loss is about ln 10 = 2.303.
    assert table(finished[0])["train_loss"][0] == pytest.approx(np.log(10), rel=0.2)


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_the_seed_alone_decides_and_not_how_often_is_measured(finished, tmp_path):
    settings = ("--steps", "25", "--eval-every", "25", "--batch-size", "8")
    run(tmp_path / "same", *settings)
    run(tmp_path / "other", *settings, "--seed", "1")
    first, same, other = map(table, (finished[0], tmp_path / "same", tmp_path / "other"))
    assert all(first[name][-1] == same[name][-1] for name in METRICS)
    for name in METRICS - {"nonfinite_workers"}:
        assert (first[name][0], first[name][-1]) != (other[name][0], other[name][-1])
        assert first[name][-1] != other[name][-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        "--partition dirichlet --alpha 0.05 --batch-size 4 --noise student_t --df 3 --b adaptive",
        "--partition shards --shards-per-worker 3 --noise laplace --b adaptive:0.5 --tie random",
        "--classes-per-worker 2 --workers 5 --rule trimmed_mean --declared-byzantine 2",
        "--model cnn --batch-size 2 --partition iid --workers 1 --lr 1e-3",
    ],
)
@pytest.mark.usefixtures("no_pictures")
def test_settings_are_taken(arguments, tmp_path):
    summary = run(tmp_path / "run", *arguments.split(), "--steps", "4")
    assert summary["step"] == 4
    assert all(np.isfinite(summary[name]) for name in METRICS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--rule noisy_sing", "unknown rule 'noisy_sing': did you mean 'noisy_sign'?"),
        ("--dataset mnits5k", "unknown dataset 'mnits5k': did you mean 'mnist5k'?"),
        ("--model mpl", "did you mean 'mlp'?"),
        ("--partition dirichelt", "did you mean 'dirichlet'?"),
        ("--noise gauss", "unknown noise 'gauss'"),
        ("--workers 0", "--workers: '0' is not a whole number of at least 1"),
        ("--workers -3", "--workers: '-3' is not a whole number of at least 1"),
        ("--workers abc", "--workers: 'abc' is not a whole number of at least 1"),
        ("--workers 2.5", "'2.5' is not a whole number"),
        ("--workers 99999999999", "below 2^31"),
        ("--b -1", "--b: '-1' is not a finite number of at least 0"),
        ("--b nan", "--b: 'nan' is not a finite number of at least 0"),
        ("--b inf", "'inf' is not a finite number"),
        ("--b adaptive:-1", "'-1' is not a finite number"),
        ("--b 1 --rule sign", "--b 1.0 goes only with a noisy rule, such as noisy_sign"),
        ("--b auto --rule noisy_median", "--b auto goes only with --rule noisy_sign"),
        ("--b theory --rule noisy_mean", "--b theory goes only with --rule noisy_median"),
        ("--momentum 1", "'1' is not a finite number of at least 0 and below 1"),
        ("--lr 0", "'0' is not a finite number above 0"),
        ("--steps -1", "'-1' is not a whole number of at least 0"),
        ("--batch-size all", "'all' is not a whole number of at least 1, nor 'full'"),
        ("--batch-size 0", "'0' is not a whole number of at least 1, nor 'full'"),
        ("--eval-every 0", "--eval-every: '0'"),
        ("--seed -1", "--seed: '-1'"),
        ("--df 2 --noise student_t", "'2' is not a finite number above 2"),
        ("--df 3", "--df 3.0 goes only with --noise student_t"),
        ("--alpha 1", "--alpha 1.0 goes only with --partition dirichlet"),
        ("--classes-per-worker 11", "11 classes per worker are more than the 10 classes"),
        ("--classes-per-worker 1 --workers 5", "cover at most 5 of the 10 classes"),
        ("--workers 1440", "examples, too few for the 144 workers that share it"),
        ("--workers 2000 --partition iid", "2000 workers need at least as many examples"),
        ("--workers 2000 --partition iid", "--copies K, more than 1, gives each example to K"),
        ("--batch-size 1000", "batch size 1000 is more than the"),
        ("--rule trimmed_mean --declared-byzantine 5", "needs 2f < n, got f = 5 and n = 10"),
        (
            "--declared-byzantine 1",
            "--declared-byzantine 1 goes only with --rule trimmed_mean, mea",
        ),
        ("--dataset idx:nowhere", "nowhere"),
        ("--dataset idx:", "write idx:DIR"),
        ("--work 3", "unrecognized arguments: --work 3"),
        ("--frobnicate", "unrecognized arguments: --frobnicate"),
        ("--lr", "--lr: expected one argument"),
    ],
)
def test_mistake_gets_one_clear_line(arguments, message, error_of, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in error_of(main, *QUICK, *arguments.split())
    assert not list(tmp_path.iterdir()), "a mistake leaves nothing behind"


def test_corrupt_idx_file_gets_one_clear_line(error_of, tmp_path):
    for part in ("train", "t10k"):
        for kind in ("images-idx3", "labels-idx1"):
            (tmp_path / f"{part}-{kind}-ubyte").write_bytes(b"\0\0\x08\x03 not IDX")
    message = error_of(main, "--dataset", f"idx:{tmp_path}")
    assert "train-images-idx3-ubyte" in message


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_an_empty_folder_is_taken_and_that_of_another_run_is_kept(error_of, tmp_path):
    (tmp_path / "run").mkdir()
    summary = run(tmp_path / "run", "--steps", "0", "--batch-size", "8")
    assert (summary["step"], summary["steps_per_second"]) == (0, None)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    message = error_of(main, *QUICK, "--out", str(tmp_path / "run"))
    assert "already holds a run" in message
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}


def test_folder_with_other_things_is_refused(error_of, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    assert "isn't empty" in error_of(main, *QUICK, "--out", str(tmp_path))


def test_folder_that_cannot_be_written(error_of, tmp_path):
    (tmp_path / "file").write_text("")
    message = error_of(main, *QUICK, "--out", str(tmp_path / "file" / "run"))
    assert "can't be written: Not a directory" in message
    message = error_of(main, *QUICK, "--out", "/proc/no/such/place")
    assert "can't be written: " in message


@pytest.mark.slow
def test_interrupt_ends_cleanly_and_keeps_what_was_measured(tmp_path):
    command = [sys.executable, "-m", "experiments.run", *QUICK, "--steps", "100000000"]
    command += ["--eval-every", "1000", "--out", str(tmp_path / "run")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            if re.match(r" +2000 ", line):
                process.send_signal(signal.SIGINT)
                break
        rest, errors = process.stdout.read(), process.stderr.read()
    assert process.returncode == 130
    assert errors == ""
    assert "stopped after" in rest
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    table = pq.read_table(tmp_path / "run/metrics.parquet").to_pydict()
    assert summary["stopped_early"] is True
    assert summary["step"] == table["step"][-1] >= 2000
    assert (tmp_path / "run/curves.png").exists()


@pytest.mark.slow
def test_second_interrupt_before_the_first_measurement_leaves_nothing(
    tmp_path, capsys, monkeypatch
):
    def compile_forever(*_, **__):
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)
        yield

    monkeypatch.setattr("medjax.lab.commands.run.train", compile_forever)
    assert main([*QUICK, "--out", str(tmp_path / "run")]) == 130
    assert capsys.readouterr().err == "stopped before the first measurement\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_interrupts_while_the_results_are_written_are_not_heard(tmp_path, monkeypatch):
    draw = plots.run_figure

    def interrupted(curves):
        for _ in range(3):
            signal.raise_signal(signal.SIGINT)
        return draw(curves)

    monkeypatch.setattr(plots, "run_figure", interrupted)
    assert run(tmp_path / "run", "--steps", "2", "--batch-size", "8")["step"] == 2
    assert (tmp_path / "run/curves.png").exists()


def test_help_is_complete_and_grouped(capsys):
    with pytest.raises(SystemExit) as exit_info:
        main(["--help"])
    assert exit_info.value.code == 0
    text = capsys.readouterr().out
    for group in ("algorithm:", "workers and data:", "training:", "output:"):
        assert f"\n{group}\n" in text
    flags = "workers rule b noise lr steps batch-size dataset model partition"
    for flag in f"{flags} classes-per-worker alpha seed out".split():
        assert f"--{flag} " in text
    for name in RULE_TABLE:
        assert name in text

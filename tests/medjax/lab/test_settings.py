"""What the settings of `python -m experiments.run` do, against what they say."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from medjax.lab.commands.run import main
from medjax.lab.data import load
from medjax.lab.machine import memory
from medjax.lab.settings.config import as_record, configure, from_record
from medjax.lab.task.interpret import hyperparameters, step_size
from medjax.lab.task.setup import prepare
from medjax.lab.task.workers import share_out

pytestmark = pytest.mark.usefixtures("no_pictures")

QUICK = ["--dataset", "digits", "--model", "logistic"]


def run(out, *arguments):
    assert main([*QUICK, *arguments, "--out", str(out)]) == 0


def columns_of(out):
    return pq.read_table(out / "metrics.parquet").to_pydict()


@pytest.mark.slow
def test_validation_part_is_measured_and_not_trained_on(tmp_path):
    run(tmp_path / "run", "--validation", "0.25", "--steps", "3")
    record = json.loads((tmp_path / "run/config.json").read_text())
    data = record["data"]
    # A quarter of every class, rounded: of 1442 examples, about 360.
    assert data["train_examples"] + data["validation_examples"] == 1442
    assert data["validation_examples"] == pytest.approx(360, abs=5)
    assert {"validation_loss", "validation_accuracy"} <= set(columns_of(tmp_path / "run"))


@pytest.mark.slow
def test_momentum_is_the_servers(tmp_path):
    # A mean with momentum M and a constant gradient g moves by (1 - M^k)/(1 - M) g in step k: with
    # steps so small that the gradient doesn't change, the loss falls by 1 + 1.5 + 1.75 = 4.25 of
    # what one plain step does in three steps, against 3 without momentum.
    settings = ("--rule", "mean", "--lr", "1e-3", "--steps", "3", "--eval-every", "3")
    falls = []
    for k, momentum in enumerate(("0", "0.5")):
        run(tmp_path / str(k), *settings, "--momentum", momentum)
        losses = columns_of(tmp_path / str(k))["train_loss"]
        falls.append(losses[0] - losses[-1])
    assert falls[1] / falls[0] == pytest.approx(4.25 / 3, rel=0.01)


@pytest.mark.slow
def test_step_size_schedule(tmp_path):
    # The same: a half and then a whole step before step 2, then a quarter, from step 4 on a tenth.
    settings = ("--rule", "mean", "--lr", "1e-3", "--steps", "6", "--eval-every", "1")
    run(tmp_path / "run", *settings, "--lr-schedule", "warmup:2,2:4,4:10")
    losses = np.array(columns_of(tmp_path / "run")["train_loss"])
    falls = -np.diff(losses) / (losses[1] - losses[2])
    assert falls == pytest.approx([0.5, 1, 0.25, 0.25, 0.1, 0.1], rel=0.02)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    # Of 8 steps.
    [
        ("2:2,4:10", [1, 1, 0.5, 0.5, 0.1, 0.1, 0.1, 0.1]),
        ("0:4", [0.25] * 8),
        ("warmup:1", [1] * 8),
        ("warmup:4", [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]),
        ("warmup:4,2:2,6:8", [0.25, 0.5, 0.375, 0.5, 0.5, 0.5, 0.125, 0.125]),
        ("warmup:16", np.arange(1, 9) / 16),
        ("cosine", (1 + np.cos(np.pi * np.arange(8) / 8)) / 2),
        ("warmup:4,cosine", [0.25, 0.5, 0.75, 1, 1, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5]),
        ("warmup:16,cosine", np.arange(1, 9) / 16),
    ],
)
def test_schedules(schedule, expected):
    config = configure(rule="mean", steps=8, lr_schedule=schedule)
    sizes = [float(step_size(config, 3.0)(t)) for t in range(8)]
    assert sizes == pytest.approx(3 * np.array(expected), rel=1e-5)


@pytest.mark.slow
def test_examples_per_worker(tmp_path):
    run(tmp_path / "run", "--examples-per-worker", "20", "--steps", "1", "--workers", "5",
        "--classes-per-worker", "2")  # fmt: skip
    data = json.loads((tmp_path / "run/config.json").read_text())["data"]
    assert data["smallest_worker"] == data["largest_worker"] == 20


def test_copies(tmp_path, error_of):
    # digits have 1442 training examples: dealt out three times, 2000 workers have two each.
    settings = ("--workers", "2000", "--partition", "iid", "--batch-size", "full")
    assert "2000" in error_of(main, *QUICK, *settings, "--out", str(tmp_path / "run"))
    config = configure(rule="mean", dataset="digits", workers=2000, partition="iid", copies=3,
                       batch_size="full")  # fmt: skip
    task = prepare(config, load("digits"))
    shared = share_out(task, [0])
    owners = np.zeros(len(task.train[1]), int)
    for rows, size in zip(shared.examples[0], shared.sizes[0], strict=True):
        np.add.at(owners, rows[:size], 1)
    assert (owners == 3).all()
    assert shared.sizes.min() == 2


def test_the_honest_workers_may_share_out_all_of_the_data():
    given = {"rule": "mean", "dataset": "digits", "workers": 7, "partition": "iid"}
    config = configure(**given, attack="mimic", byzantine=3, byzantine_data="copied")
    task = prepare(config, load("digits"))
    shared = share_out(task, [0])
    rows = [set(x[:n]) for x, n in zip(shared.examples[0], shared.sizes[0], strict=True)]
    assert set().union(*rows[:4]) == set(range(len(task.train[1])))
    assert all(rows[4 + i] == rows[i] for i in range(3))
    with pytest.raises(ValueError, match=r"^--byzantine-data copied goes only with --attack and"):
        configure(**given, byzantine_data="copied")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("free", "message"),
    [
        (1 << 16, "the data of 10 workers, 147 examples each, takes "),
        (1 << 20, "a step, or a measurement, takes "),  # known once the plan is printed
    ],
)
def test_what_does_not_fit_the_memory_gets_one_line(free, message, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(memory, "free_bytes", lambda: free)
    settings = ("--dataset", "digits", "--rule", "mean", "--steps", "1")
    with pytest.raises(SystemExit) as exit_info:
        main([*settings, "--out", str(tmp_path / "run")])
    assert exit_info.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: " + message)
    assert "that there are: fewer --workers" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("rule", "b", "lr"),
    [
        # T = 100 and d = 650: b = (Td)^(1/4), δ = 1/√(Td); and b = (Td)^(1/6), δ = (Td)^(-2/3).
        ("noisy_sign", 65000**0.25, 65000**-0.5),
        ("noisy_median", 65000 ** (1 / 6), 65000 ** (-2 / 3)),
    ],
)
def test_b_by_theory(rule, b, lr):
    values = hyperparameters(configure(rule=rule, b="theory", steps=100), 650)
    assert (values.b, values.lr) == pytest.approx((b, lr), rel=1e-6)


@pytest.mark.slow
def test_what_theory_chooses_is_told_and_trained_with(tmp_path, capsys):
    b, lr = 1950**0.25, 1950**-0.5
    run(tmp_path / "theory", "--b", "theory", "--steps", "3")
    assert f"step size {lr:g}, normal noise, b = theory ({b:g})" in capsys.readouterr().out
    run(tmp_path / "same", "--b", str(b), "--lr", str(lr), "--steps", "3")
    assert columns_of(tmp_path / "theory") == columns_of(tmp_path / "same")


def test_b_auto_is_the_studys():
    auto, same = (configure(b=b) for b in ("auto", "adaptive:0.1"))
    assert auto == same
    assert as_record(auto)["b"] == "adaptive:0.1"


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"rule": "noisy_median", "b": "theory", "noise": "student_t", "df": 3},
        {"b": "adaptive", "worker_momentum": "undamped:0.9", "lr_schedule": "warmup:3,2:1.5,9:4"},
        {
            "rule": "krum:num_neighbors=2",
            "attack": "alie:tau=1+ipm",
            "mix": "clip:max_norm=2",
        },
        {
            "rule": "mean",
            "compress": "qsgd:levels=4",
            "error_feedback": "yes",
            "server": "adam:b1=0.8",
        },
        {"local_steps": 3, "local_lr": 1e-7, "lr_schedule": "warmup:3,cosine", "batch_size": 4},
    ],
)
def test_settings_are_the_same_read_back_from_a_file(settings):
    config = configure(**settings)
    assert from_record(json.loads(json.dumps(as_record(config)))) == config

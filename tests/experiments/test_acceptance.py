"""The paper's point on real MNIST, through the command line."""

import json
from statistics import median

import pyarrow.parquet as pq
import pytest

from medjax.lab.commands.run import main
from medjax.lab.commands.sweep import main as sweep

pytestmark = pytest.mark.optimized

SETTINGS = (
    "--workers 10 --classes-per-worker 1 --batch-size full --dataset mnist5k --steps 400 "
    "--eval-every 400"
)


def summary(tmp_path, arguments):
    out = tmp_path / arguments.replace(" ", "")
    assert main([*SETTINGS.split(), *arguments.split(), "--out", str(out)]) == 0
    return json.loads((out / "summary.json").read_text())


@pytest.mark.slow
def test_sign_stalls(tmp_path):
    result = summary(tmp_path, "--rule sign --lr 0.01")
    assert result["num_params"] == 101_770
    assert result["test_accuracy"] < 0.30
    assert result["grad_norm"] > 50


@pytest.mark.slow
def test_noisy_sign_trains(tmp_path):
    # At so large a step the gradient norm jumps about near the end: single seeds ended with 0.4 to
    # 12, and which one ends where changes with any rounding. So the median of twelve seeds; a
    # median of five passed on one version of JAX and not on the next.
    arguments = "--rule noisy_sign --b 1e-2 --lr 0.01 --validation 0 --seeds 12"
    out = tmp_path / "sweep"
    assert sweep([*SETTINGS.split(), *arguments.split(), "--out", str(out)]) == 0
    columns = pq.read_table(out / "results.parquet").to_pydict()
    last = [k for k, step in enumerate(columns["step"]) if step == 400]
    assert len(last) == 12
    assert median(columns["test_accuracy"][k] for k in last) > 0.88
    assert median(columns["grad_norm"][k] for k in last) < 3


@pytest.mark.slow
def test_noisy_sign_trains_quietly_with_the_default_step(tmp_path):
    result = summary(tmp_path, "--rule noisy_sign --steps 1000")
    assert result["test_accuracy"] > 0.88
    assert result["grad_norm"] < 3


@pytest.mark.slow
def test_mean_trains(tmp_path):
    assert summary(tmp_path, "--rule mean --lr 0.5")["test_accuracy"] > 0.85

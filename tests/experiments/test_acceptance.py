"""The paper's point on real MNIST, through the command line."""

import json

import pytest

from experiments.run import main

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
@pytest.mark.parametrize("seed", ["0", "1"])
def test_noisy_sign_trains(seed, tmp_path):
    # At so large a constant step the gradient norm jumps about to the end: with b = 0.01 single
    # seeds ended with 0.4 to 12. The step that falls to 0 brings it to rest, near the minimum if b
    # is large enough: seeds 0, 1 and 2 ended with 0.38, 0.34 and 0.33, at 0.90 to 0.91.
    arguments = "--rule noisy_sign --b 3e-2 --lr 0.01 --lr-schedule cosine --seed"
    result = summary(tmp_path, f"{arguments} {seed}")
    assert result["test_accuracy"] > 0.88
    assert result["grad_norm"] < 1


@pytest.mark.slow
def test_noisy_sign_trains_quietly_with_the_default_step(tmp_path):
    result = summary(tmp_path, "--rule noisy_sign --steps 1000")
    assert result["test_accuracy"] > 0.88
    assert result["grad_norm"] < 3


@pytest.mark.slow
def test_mean_trains(tmp_path):
    assert summary(tmp_path, "--rule mean --lr 0.5")["test_accuracy"] > 0.85

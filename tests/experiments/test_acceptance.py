"""The paper's point on real MNIST, through the command line."""

import json

import pytest

from experiments.run import main

SETTINGS = "--workers 10 --classes-per-worker 1 --batch-size full --steps 400 --dataset mnist5k"


def summary(tmp_path, arguments):
    assert main([*SETTINGS.split(), *arguments.split(), "--out", str(tmp_path / "run")]) == 0
    return json.loads((tmp_path / "run/summary.json").read_text())


@pytest.mark.slow
def test_sign_stalls(tmp_path):
    result = summary(tmp_path, "--rule sign --lr 0.01")
    assert result["num_params"] == 101_770
    assert result["test_accuracy"] < 0.30
    assert result["grad_norm"] > 50


@pytest.mark.slow
def test_noisy_sign_trains(tmp_path):
    result = summary(tmp_path, "--rule noisy_sign --b 1e-2 --lr 0.01")
    assert result["test_accuracy"] > 0.88
    assert result["grad_norm"] < 3


@pytest.mark.slow
def test_mean_trains(tmp_path):
    assert summary(tmp_path, "--rule mean --lr 0.5")["test_accuracy"] > 0.85

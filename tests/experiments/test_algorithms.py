"""The study of algorithms: its runs, what it chooses, and what it makes of curves."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from experiments import algorithms, algorithms_study
from experiments.algorithms import main, reached, within
from experiments.algorithms_study import FAMILIES, FULL, QUICK, Size, candidates, entries
from medjax.algorithms import ALGORITHMS
from medjax.lab.plots import Curves

SIZE = Size(20, 4, 2, 2, 1000, num_params=10)


def curve(accuracy, bits):
    columns = {
        "step": np.arange(len(accuracy)) * 5,
        "test_accuracy": np.array(accuracy),
        "bits_up": np.array(bits) * 150.0,  # 20 workers, 10 parameters
        "bits_down": np.array(bits) * 50.0,
    }
    return Curves("", columns)


def test_the_bits_are_those_of_a_worker_for_each_parameter():
    found = within(curve([0.1, 0.2, 0.9], [0, 900, 1100]), SIZE, "bits")
    np.testing.assert_array_equal(found.columns["bits"], [0, 900])
    np.testing.assert_array_equal(found.columns["step"], [0, 5])
    assert len(within(curve([0.1, 0.2, 0.9], [0, 900, 1100]), SIZE, "steps").columns["bits"]) == 3


def test_what_is_reached():
    curves = [within(curve(x, [0, 10, 20, 30]), SIZE, "steps") for x in ([0.1, 0.9, 0.8, 0.7],)]
    assert reached(curves) == ([0.7], [5.0], [10.0])
    never = reached([within(curve([0.1, 0.2], [0, 10]), SIZE, "steps")])
    assert never.accuracy == [0.2]
    assert np.isnan([*never.rounds, *never.bits]).all()


def test_every_algorithm_is_there_with_equally_many_batches():
    runs = {name: candidates(entry, FULL, "mnist5k") for name, entry in entries().items()}
    found = {run.algorithm.name for (run, *_) in runs.values() if run.algorithm is not None}
    assert found == set(ALGORITHMS)
    for name, several in runs.items():
        steps = 5 if entries()[name].walks else 1
        assert {run.steps * steps for run in several} == {FULL.batches}
        (choices,) = entries()[name].choices.items()
        assert tuple(getattr(run, choices[0]) for run in several) == choices[1]
    assert all(len(candidates(entry, QUICK, "mnist5k")) == 1 for entry in entries().values())


@pytest.mark.slow
def test_the_best_on_validation_data_is_trained_with_other_seeds(tmp_path, monkeypatch):
    few = {name: FAMILIES["delays and privacy"][name] for name in ("SGD", "FedAvg")}
    rates = (1e-4, 0.3)
    few = {k: e._replace(choices=dict.fromkeys(e.choices, rates)) for k, e in few.items()}
    monkeypatch.setattr(algorithms_study, "FAMILIES", {"two": few})
    monkeypatch.setattr(algorithms, "FAMILIES", {"two": few})
    monkeypatch.setattr(algorithms, "FULL", SIZE)
    assert main(["--dataset", "digits", "--out", str(tmp_path / "out")]) == 0
    table = pq.read_table(tmp_path / "out/steps.parquet").to_pylist()
    assert [row["algorithm"] for row in table] == ["SGD", "FedAvg"]
    assert [row["step_size"] for row in table] == [0.3, 0.3]
    runs = pq.read_table(tmp_path / "out/training/runs.parquet").to_pylist()
    assert sorted(row["seed"] for row in runs) == [1, 1, 2, 2]
    assert {row["local_lr"] for row in runs} == {None, 0.3}
    bits = pq.read_table(tmp_path / "out/bits.parquet").to_pylist()
    assert bits[0]["accuracy"] <= table[0]["accuracy"] + 0.1
    for name in ("steps", "bits", "two"):
        assert (tmp_path / f"out/{name}.png").stat().st_size > 10_000


def test_mistakes(error_of):
    assert "unknown family 'sings': did you mean 'signs'?" in error_of(main, "--only", "sings")
    assert "dataset 'text' is of text" in error_of(main, "--dataset", "text")

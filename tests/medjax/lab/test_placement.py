"""Several devices: the figures of one, and data lie where the programs take them.

Between calls nothing moves, on one device or many.
"""

import json

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from medjax import sharding
from medjax.lab.commands import run, sweep
from medjax.lab.sweeps import execute, pictures

QUICK = ("--dataset", "digits", "--model", "logistic", "--workers", "10", "--batch-size", "8")
QUICK += ("--steps", "4", "--eval-every", "2", "--rule", "noisy_sign")
GRID = ("--b", "1", "10", "--seeds", "2")


def leaves(tree):
    return jax.tree.leaves(tree, is_leaf=lambda x: x is None)


@pytest.fixture
def calls(monkeypatch):
    """The arguments of all calls, each made while only numbers of steps and turns are copied."""
    made = []

    def guarded(name, function):
        wanted, _ = function.input_shardings

        def call(*arguments):
            counts = {"advance": 1, "measure": 2}.get(name, 0)
            for k in range(len(arguments) - counts, len(arguments)):
                placed = jax.device_put(arguments[k], wanted[k])
                arguments = (*arguments[:k], placed, *arguments[k + 1 :])
            for x, where in zip(leaves(arguments), leaves(wanted), strict=True):
                # None if there is none, or if the program doesn't use it.
                assert where is None or x.sharding.is_equivalent_to(where, x.ndim)
            made.append((name, arguments))
            with jax.transfer_guard("disallow"):
                return function(*arguments)

        return call

    def watched(train):
        def watch(compiled, *inputs, **settings):
            program = compiled.program
            named = {name: guarded(name, f) for name, f in program._asdict().items()}
            return train(compiled._replace(program=program._replace(**named)), *inputs, **settings)

        return watch

    monkeypatch.setattr(run, "train", watched(run.train))
    monkeypatch.setattr(execute, "train", watched(execute.train))
    return made


def assert_close(folder, expected):
    """Check the figures of two folders; one is that of one device."""
    name = "metrics.parquet" if (folder / "metrics.parquet").exists() else "results.parquet"
    found, expected = (pq.read_table(x / name).to_pydict() for x in (folder, expected))
    assert found.keys() == expected.keys()
    for metric, values in expected.items():
        if np.array(values).dtype.kind in "if" and metric != "median_mean_gap":
            np.testing.assert_allclose(found[metric], values, rtol=1e-4, err_msg=metric)


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_a_run_is_the_same_on_any_mesh_and_nothing_moves(calls, tmp_path):
    attacked = ("--attack", "label_flip", "--byzantine", "2")
    # 10 workers don't divide by 4.
    for name, flags in {"one": (), "mesh": ("--mesh", "workers=4,coordinates=2")}.items():
        calls.clear()
        assert run.main([*QUICK, *attacked, *flags, "--out", str(tmp_path / name)]) == 0
        assert {name for name, _ in calls} == {"init", "advance", "begin", "measure"}
    assert_close(tmp_path / "mesh", tmp_path / "one")
    mesh = json.loads((tmp_path / "mesh" / "config.json").read_text())["mesh"]
    assert mesh == {"grid": 1, "workers": 4, "coordinates": 2}


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """The folder of the runs of a sweep on one device."""
    folder = tmp_path_factory.mktemp("one") / "sweep"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "draw", lambda *_: {})
        assert sweep.main([*QUICK, *GRID, "--out", str(folder)]) == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "workers"),
    [
        # Each device has the runs of some settings, with all seeds' data.
        (("--devices", "2"), PartitionSpec()),
        # 10 workers don't divide by 3.
        (("--mesh", "grid=2,workers=3"), PartitionSpec(None, "workers")),
    ],
    ids=str,
)
@pytest.mark.usefixtures("no_pictures")
def test_a_sweep_is_the_same_on_any_mesh_and_nothing_moves(flags, workers, one, calls, tmp_path):
    assert sweep.main([*QUICK, *GRID, *flags, "--out", str(tmp_path / "sweep")]) == 0
    assert_spread(calls, workers)
    assert_close(tmp_path / "sweep", one)


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_seeds_are_spread_where_there_are_more_of_them(calls, tmp_path):
    # Each device has the runs of a seed. 10 workers don't divide by 4.
    flags = ("--mesh", "grid=2,workers=4", "--seeds", "2")
    assert sweep.main([*QUICK, *flags, "--out", str(tmp_path / "sweep")]) == 0
    assert_spread(calls, PartitionSpec("grid", "workers"))


def assert_spread(calls, workers):
    (_, measured), *_ = [call for call in calls if call[0] == "measure"]
    x = measured[2].examples[0]
    # A device has its part alone, from the beginning.
    assert x.sharding.is_equivalent_to(NamedSharding(x.sharding.mesh, workers), x.ndim)
    parts = x.sharding.mesh.shape[sharding.WORKERS]
    assert x.shape[1] == -(-10 // parts) * parts
    assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(measured[3]))
    assert np.isfinite(np.asarray(x)).all()

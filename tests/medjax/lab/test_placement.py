"""Data lie where the programs take them: between calls nothing moves, on one device or many."""

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from medjax import sharding
from medjax.lab.commands import run, sweep
from medjax.lab.sweeps import execute

QUICK = ("--dataset", "digits", "--model", "logistic", "--workers", "10", "--batch-size", "8")
QUICK += ("--steps", "2", "--eval-every", "1")


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


@pytest.mark.slow
@pytest.mark.promotes
@pytest.mark.parametrize(
    "flags",
    [(), ("--mesh", "workers=2,coordinates=2", "--attack", "label_flip")],
    ids=" ".join,
)
def test_nothing_moves_in_a_run(flags, calls, tmp_path, no_picture):
    flags = (*flags, "--byzantine", "2") if "--attack" in flags else flags
    assert run.main([*QUICK, *flags, "--out", str(tmp_path / "run")]) == 0
    assert {name for name, _ in calls} == {"init", "advance", "begin", "measure"}


@pytest.mark.slow
@pytest.mark.promotes
@pytest.mark.parametrize(
    ("flags", "workers"),
    [
        # Each device has the runs of some settings, with all seeds' data.
        (("--devices", "2", "--b", "1", "2"), PartitionSpec()),
        # 10 workers divide by neither 3 nor 4. In the last, each device has the runs of a seed.
        (("--mesh", "grid=2,workers=3", "--b", "1", "2"), PartitionSpec(None, "workers")),
        (("--mesh", "grid=2,workers=4", "--seeds", "2"), PartitionSpec("grid", "workers")),
    ],
    ids=str,
)
@pytest.mark.usefixtures("no_sweep_pictures")
def test_nothing_moves_in_a_sweep(flags, workers, calls, tmp_path):
    assert sweep.main([*QUICK, *flags, "--out", str(tmp_path / "sweep")]) == 0
    (_, measured), *_ = [call for call in calls if call[0] == "measure"]
    x = measured[2].examples[0]
    # A device has its part alone, from the beginning.
    assert x.sharding.is_equivalent_to(NamedSharding(x.sharding.mesh, workers), x.ndim)
    parts = x.sharding.mesh.shape[sharding.WORKERS]
    assert x.shape[1] == -(-10 // parts) * parts
    assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(measured[3]))
    assert np.isfinite(np.asarray(x)).all()

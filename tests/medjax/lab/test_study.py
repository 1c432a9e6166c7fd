"""Runs and sweeps from Python: results as tables, kept and continued."""

import itertools

import pytest

from medjax import lab
from medjax.lab.commands import run as run_command
from medjax.lab.sweeps import fit
from medjax.lab.task import program

pytestmark = pytest.mark.usefixtures("no_pictures")

QUICK = {"dataset": "digits", "model": "logistic", "steps": 4, "eval_every": 2}


@pytest.fixture
def compilations(monkeypatch):
    """Counts the programs that runs and sweeps compile."""
    counted = []
    compile_program = program.compile_program

    def count(*args, **kwargs):
        counted.append(args)
        return compile_program(*args, **kwargs)

    monkeypatch.setattr(run_command, "compile_program", count)
    monkeypatch.setattr(fit, "compile_program", count)
    return counted


@pytest.mark.slow
def test_run_is_kept(tmp_path, monkeypatch, compilations, capsys):
    monkeypatch.chdir(tmp_path)
    first = lab.run(QUICK | {"rule": "mean"})
    again = lab.run(QUICK | {"rule": "mean"})
    assert capsys.readouterr().out == ""
    assert len(compilations) == 1
    assert first.table.equals(again.table)
    assert first.folder == again.folder
    assert first.table["step"].to_pylist() == [0, 2, 4]
    assert first.summary["train_loss"] == first.table["train_loss"].to_pylist()[-1]
    assert (first.folder / "config.json").is_file()
    assert lab.run(QUICK | {"rule": "mean", "seed": 1}).folder != first.folder


@pytest.mark.slow
def test_interrupted_run_is_continued(tmp_path, monkeypatch):
    whole = lab.run(QUICK, out=tmp_path / "whole")
    train = run_command.train

    def stopping(*args, stop, **kwargs):
        for progress in train(*args, stop=stop, **kwargs):
            stop.requested = stop.requested or progress.step >= 2
            yield progress

    with monkeypatch.context() as patch:
        patch.setattr(run_command, "train", stopping)
        with pytest.raises(KeyboardInterrupt):
            lab.run(QUICK, out=tmp_path / "stopped")
    assert lab.run(QUICK, out=tmp_path / "stopped").table.equals(whole.table)


@pytest.mark.slow
def test_sweep_is_every_combination_and_kept(tmp_path, compilations):
    axes = {"rule": ["mean", "sign"], "seed": range(2)}
    result = lab.sweep(QUICK, axes, out=tmp_path / "grid")
    rows = result.table.select(["rule", "seed", "step"]).to_pylist()
    expected = itertools.product(["mean", "sign"], range(2), [0, 2, 4])
    assert [tuple(row.values()) for row in rows] == list(expected)
    assert {best["run"]["rule"] for best in result.summary["best"]} == {"mean", "sign"}
    alone = lab.run(QUICK | {"rule": "sign", "seed": 1, "validation": 0.1}, out=tmp_path / "one")
    last = result.table["train_loss"].to_pylist()[-1]
    assert last == pytest.approx(alone.summary["train_loss"], rel=1e-5)
    del compilations[:]
    assert lab.sweep(QUICK, axes, out=tmp_path / "grid").table.equals(result.table)
    assert not compilations


@pytest.mark.slow
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lab.run({"ruel": "mean"}), "unknown setting 'ruel': did you mean 'rule'?"),
        (lambda: lab.run({"rule": "maen"}), "--rule: unknown rule 'maen': did you mean 'mean'?"),
        (lambda: lab.run({"rule": "mean", "b": 1}), "--b 1.0 goes only with a noisy rule"),
        (lambda: lab.run({"rule": "sign"}, out="run"), "'run' holds a run of other settings"),
        (lambda: lab.sweep({"b": 1}, {"b": [0]}), "b is both a setting of all runs and an axis"),
        (lambda: lab.sweep({}, {"b": []}), "axis b needs at least one value"),
        (lambda: lab.sweep({}, {"rule": "sign"}), "axis rule must be a list of values, got 'sign'"),
    ],
)
def test_mistake(call, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if "holds" in message:
        lab.run(QUICK | {"rule": "mean"}, out="run")
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        call()

"""Refusals by the system get one line, from any command that writes."""

import errno
from contextlib import contextmanager

import pytest

from experiments import robustness, which_b
from medjax.lab.commands import run

RUN = ("--dataset", "digits", "--model", "logistic", "--steps", "1", "--eval-every", "1")


@pytest.mark.slow
@pytest.mark.parametrize("study", [robustness, which_b])
@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (OSError(errno.EROFS, "Read-only file system"), 1, "error: study: Read-only file system\n"),
        (KeyboardInterrupt(), 130, "stopped; the same command goes on where this was\n"),
    ],
)
def test_a_study(study, error, code, message, monkeypatch, capsys):
    @contextmanager
    def run_grid(*_):
        raise error
        yield

    monkeypatch.setattr(study, "run_grid", run_grid)
    assert study.main(["--out", "study"]) == code
    assert capsys.readouterr().err == message


def test_a_run_that_cannot_begin_leaves_nothing(tmp_path, full_disk, capsys):
    full_disk()
    assert run.main([*RUN, "--out", str(tmp_path / "run")]) == 1
    assert capsys.readouterr().err == f"error: {tmp_path / 'run'}: No space left on device\n"
    assert not list(tmp_path.iterdir())

"""What the system refuses gets one line, where it happens to any command that writes."""

import errno
import os
from contextlib import contextmanager

import pytest

from experiments import compare, results, robustness, run, which_b

RUN = ("--dataset", "digits", "--model", "logistic", "--steps", "1", "--eval-every", "1")


@pytest.fixture
def full(monkeypatch):
    """From its call on, no file can be written."""

    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return lambda: monkeypatch.setattr(os, "fsync", refuse)


def test_a_picture(tmp_path, full, capsys):
    assert run.main([*RUN, "--out", str(tmp_path / "run")]) == 0
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"old")
    full()
    capsys.readouterr()
    assert compare.main([str(tmp_path / "run"), "--out", str(picture)]) == 1
    assert capsys.readouterr().err == f"error: {picture}: No space left on device\n"
    assert picture.read_bytes() == b"old"
    assert {x.name for x in tmp_path.iterdir()} == {"run", "picture.png"}


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


def test_a_run_that_cannot_begin_leaves_nothing(tmp_path, full, capsys):
    full()
    assert run.main([*RUN, "--out", str(tmp_path / "run")]) == 1
    assert capsys.readouterr().err == f"error: {tmp_path / 'run'}: No space left on device\n"
    assert not list(tmp_path.iterdir())


def test_a_table_that_cannot_be_written_is_still_the_old_one(tmp_path, full):
    results.write_table(tmp_path / "a.parquet", {"x": [1]})
    before = (tmp_path / "a.parquet").read_bytes()
    full()
    with pytest.raises(OSError, match="No space left"):
        results.write_table(tmp_path / "a.parquet", {"x": [2]})
    assert (tmp_path / "a.parquet").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1

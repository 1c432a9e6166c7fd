"""One process at a time in a folder, and nothing left of one that was killed."""

import os
import subprocess
import sys

import pytest

from medjax.lab.commands import run
from medjax.lab.storage.locks import alone_in
from medjax.lab.task.training import Progress

RUN = ("--dataset", "digits", "--model", "logistic", "--steps", "2", "--eval-every", "1")
HOLDER = """
import sys
from pathlib import Path
from medjax.lab.storage.locks import alone_in
with alone_in(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_second_is_refused_until_the_first_is_gone(tmp_path):
    folder = tmp_path / "run"
    with alone_in(folder):
        with (
            pytest.raises(ValueError, match="another process is at work"),
            alone_in(folder),
        ):
            raise AssertionError
        assert (folder / ".lock").exists()
    assert not folder.exists()  # nothing was written
    with alone_in(folder):
        (folder / "something").touch()
    assert [x.name for x in folder.iterdir()] == ["something"]


@pytest.mark.slow
def test_the_lock_goes_with_the_process(tmp_path):
    process = subprocess.Popen(
        (sys.executable, "-c", HOLDER, str(tmp_path)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match="another process"), alone_in(tmp_path):
            raise AssertionError
        process.kill()
    assert (tmp_path / ".lock").exists()
    with alone_in(tmp_path):
        pass


def test_a_lock_that_its_holder_has_just_removed_is_not_the_lock(tmp_path, monkeypatch):
    opened, waiting = os.open, [1]

    def slow(path, *arguments):
        descriptor = opened(path, *arguments)
        if waiting and str(path).endswith(".lock"):  # the other one ends between open and flock
            waiting.clear()
            os.unlink(path)
        return descriptor

    monkeypatch.setattr(os, "open", slow)
    with alone_in(tmp_path):
        assert (tmp_path / ".lock").exists()
        with pytest.raises(ValueError, match="another process"), alone_in(tmp_path):
            raise AssertionError


def test_what_a_killed_process_was_writing_is_removed(tmp_path):
    for name in (".a.json.17.tmp", ".b.tmp", "c.17.tmp"):
        (tmp_path / name).touch()
    with alone_in(tmp_path):
        pass
    assert {x.name for x in tmp_path.iterdir()} == {".b.tmp", "c.17.tmp"}  # not ours


@pytest.mark.slow
@pytest.mark.parametrize("flags", [(), ("--checkpoint-every", "1")])
@pytest.mark.usefixtures("no_pictures")
def test_a_run_in_progress_is_not_overwritten(flags, tmp_path, monkeypatch, error_of):
    command = (*RUN, *flags, "--out", str(tmp_path / "run"))
    said, added_to = [], Progress.added_to

    def meanwhile(self, rows):  # a second process, at every measurement
        with monkeypatch.context() as patch:
            patch.setattr(run, "_run", None)
            said.append(error_of(run.main, *command))
        return added_to(self, rows)

    monkeypatch.setattr(Progress, "added_to", meanwhile)
    assert run.main([*command]) == 0
    assert "another process is at work" in said[0]  # before there is a table
    assert all("already holds a run" in line for line in said[1:])
    assert len(said) == 3

"""Commands where neither a home nor a locale is set."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "out", "err"),
    [
        # Greek letters are printed, and repeated, in UTF-8 all the same.
        (
            ["experiments.list", "--kind", "noises"],
            0,
            "f(x) ∝ (1 + x²/(df - 2))^(-(df + 1)/2)",
            "",
        ),
        (["experiments.run", "--rule", "ξ"], 2, "", "error: argument --rule: unknown rule 'ξ'"),
        # The data need no home.
        (
            ["experiments.run", "--dataset", "digits", "--workers", "3"],
            2,
            "",
            "error: 3 workers with 1 classes each cover at most 3 of the 10 classes",
        ),
    ],
)
def test_bare_environment(arguments, code, out, err, tmp_path):
    bare = {"PYTHONPATH": str(ROOT), "LC_ALL": "C"}
    done = subprocess.run(
        [sys.executable, "-m", *arguments], env=bare, cwd=tmp_path, capture_output=True
    )
    assert done.returncode == code
    assert out in done.stdout.decode()
    assert done.stderr.decode().startswith(err)
    assert done.stderr.count(b"\n") == bool(err)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_letters_that_the_output_has_not_are_replaced():
    # As in a pipe on Windows, and with the C locale and Python's UTF-8 mode off.
    environment = {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "cp1252"}
    command = [sys.executable, "-m", "experiments.list", "--kind", "noises"]
    done = subprocess.run(command, env=environment, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"F(x) = ?(x)." in done.stdout  # Φ

"""The console command, where it is installed without what it needs."""

import subprocess
import sys
from pathlib import Path

import pytest

import medjax

CONSOLE = Path(medjax.__file__).parent / "lab/console.py"
WITHOUT = """
import runpy, sys
sys.modules[sys.argv[1]] = None  # makes importing it fail
sys.exit(runpy.run_path(sys.argv[2])["main"](sys.argv[3:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("package", ["pyarrow", "matplotlib"])
def test_library_alone_names_the_extra_that_a_command_needs(package):
    command = [sys.executable, "-c", WITHOUT, package, str(CONSOLE), "run", "--steps", "2"]
    done = subprocess.run(command, capture_output=True, text=True)
    error = f'error: medjax run needs {package}: pip install "medjax[lab]"\n'
    assert (done.returncode, done.stdout, done.stderr) == (2, "", error)


def test_library_alone_has_the_list_of_the_commands():
    command = [sys.executable, "-c", WITHOUT, "pyarrow", str(CONSOLE), "--help"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0
    assert "train one model by one algorithm" in done.stdout


@pytest.mark.slow
def test_nobody_waits_for_matplotlib_but_for_a_picture(output_of):
    assert output_of("import sys, medjax.lab; print('matplotlib' in sys.modules)") == "False\n"

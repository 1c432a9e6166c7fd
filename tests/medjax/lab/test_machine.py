"""Commands on several devices: what can't be, in one line. Figures are in test_placement.py."""

import os

import jax
import pytest

from medjax.lab.commands import run, sweep
from medjax.lab.machine import memory

pytestmark = pytest.mark.usefixtures("no_pictures")

QUICK = ("--dataset", "digits", "--model", "logistic", "--workers", "10", "--batch-size", "8")
QUICK += ("--steps", "20", "--eval-every", "10")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--devices 0", "'0' is not a whole number of at least 1, nor 'auto'"),
        ("--devices 99", "99 devices are asked for, there are 8"),
        ("--mesh rows=2", "unknown axis 'rows': valid: workers, coordinates, grid"),
        ("--mesh workers=2,workers=2", "workers is there twice"),
        ("--mesh workers=0", "'0' is not a whole number of at least 1"),
        ("--mesh workers", "'' is not a whole number of at least 1"),
        ("--mesh workers=4 --devices 2", "--mesh workers=4 needs 4 devices, --devices gives 2"),
    ],
)
def test_mistakes_get_one_line(flags, message, error_of, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(jax.devices()) == 8  # before they are counted, there may be more
    for command in (run.main, sweep.main):
        assert message in error_of(command, *QUICK, "--rule", "mean", *flags.split())
        assert not list(tmp_path.iterdir())


def test_a_single_run_has_no_grid(error_of):
    message = "--mesh grid=2 is for sweeps"
    assert message in error_of(run.main, *QUICK, "--rule", "mean", "--mesh", "grid=2")


@pytest.mark.slow
def test_a_sweep_goes_on_with_as_many_devices(error_of, tmp_path):
    grid = (*QUICK, "--rule", "mean", "--lr", "0.1", "0.2", "--out", str(tmp_path / "sweep"))
    assert sweep.main([*grid, "--devices", "2"]) == 0
    assert "was begun with grid=2 devices, and goes on with as many, got 1" in error_of(
        sweep.main, *grid
    )


def test_memory_of_a_system_that_can_not_be_asked_is_assumed(monkeypatch):
    def refuse(*_, **__):
        raise FileNotFoundError

    monkeypatch.setattr("pathlib.Path.read_text", refuse)  # no /proc
    assert memory._available_host_bytes() == os.sysconf("SC_PAGE_SIZE") * os.sysconf(
        "SC_PHYS_PAGES"
    )
    monkeypatch.delattr("os.sysconf")
    assert memory._available_host_bytes() == 8 * 2**30

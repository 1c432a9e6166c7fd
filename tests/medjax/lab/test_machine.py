"""Commands on several devices: the same figures, and what can't be in one line."""

import json
import os

import numpy as np
import pyarrow.parquet as pq
import pytest

from medjax.lab.commands import run, sweep
from medjax.lab.machine import memory

pytestmark = pytest.mark.usefixtures("no_picture", "no_sweep_pictures")

QUICK = ("--dataset", "digits", "--model", "logistic", "--workers", "10", "--batch-size", "8")
QUICK += ("--steps", "20", "--eval-every", "10")


def table(folder):
    columns = pq.read_table(folder).to_pydict()
    return {name: np.array(values) for name, values in columns.items() if name != "median_mean_gap"}


def assert_close(actual, expected):
    assert actual.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(actual[name], values, rtol=1e-4, err_msg=name)


@pytest.mark.slow
@pytest.mark.promotes
def test_a_run_is_the_same_on_any_mesh(tmp_path):
    # 10 workers don't divide by 4.
    for name, flags in {
        "one": (),
        "mesh": ("--mesh", "workers=4,coordinates=2"),
    }.items():
        out = tmp_path / name
        assert run.main([*QUICK, "--rule", "noisy_sign", *flags, "--out", str(out)]) == 0
    one = table(tmp_path / "one" / "metrics.parquet")
    assert_close(table(tmp_path / "mesh" / "metrics.parquet"), one)
    mesh = json.loads((tmp_path / "mesh" / "config.json").read_text())["mesh"]
    assert mesh == {"grid": 1, "workers": 4, "coordinates": 2}


@pytest.mark.slow
@pytest.mark.promotes
def test_a_sweep_is_the_same_on_any_mesh(tmp_path):
    grid = ("--rule", "noisy_sign", "--b", "0.1", "1", "10", "--seeds", "2")
    for name, flags in {
        "one": (),
        "mesh": ("--mesh", "grid=2,workers=2"),
    }.items():
        assert sweep.main([*QUICK, *grid, *flags, "--out", str(tmp_path / name)]) == 0
    one = table(tmp_path / "one" / "results.parquet")
    assert len(one["step"]) == 6 * 3
    numbers = [name for name, values in one.items() if values.dtype.kind in "if"]
    other = table(tmp_path / "mesh" / "results.parquet")
    assert_close({k: other[k] for k in numbers}, {k: one[k] for k in numbers})


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
    for command in (run.main, sweep.main):
        assert message in error_of(command, *QUICK, "--rule", "mean", *flags.split())
        assert not list(tmp_path.iterdir())


def test_a_single_run_has_no_grid(error_of):
    message = "--mesh grid=2 is for sweeps"
    assert message in error_of(run.main, *QUICK, "--rule", "mean", "--mesh", "grid=2")


@pytest.mark.slow
@pytest.mark.promotes
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

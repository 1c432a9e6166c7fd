"""Kills, full disks and read-only ones: what `python -m benchmarks.trust` does, less often."""

import pytest

from benchmarks import disks, kills

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("kill", "times"), [(kills.runs, 20), (kills.sweeps, 12)])
def test_what_is_killed_goes_on_bit_for_bit(kill, times):
    assert kill(times) == (times, times)


@pytest.mark.parametrize("refuse", [disks.full, disks.read_only])
def test_a_disk_that_refuses_costs_one_line_and_no_results(refuse):
    assert refuse(6) == (6, 6)

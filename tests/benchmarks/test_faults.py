"""Kills, full disks and read-only ones, in the numbers that `python -m benchmarks.trust` has."""

import pytest

from benchmarks import disks, kills

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kill", [kills.runs, kills.sweeps])
def test_what_is_killed_goes_on_bit_for_bit(kill):
    assert kill(20) == (20, 20)


@pytest.mark.parametrize("refuse", [disks.full, disks.read_only])
def test_a_disk_that_refuses_costs_one_line_and_no_results(refuse):
    assert refuse(12) == (12, 12)

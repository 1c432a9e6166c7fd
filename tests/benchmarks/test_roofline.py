"""The plan's closed forms, worked by hand for a machine of round numbers."""

import math
from dataclasses import replace

import pytest

from benchmarks import plan, roofline, wire
from benchmarks.machines import MACHINES, Machine
from benchmarks.roofline import Times, Work

TOY = Machine("toy", 4, 1200.0, 100.0, 400.0, 1e3, 8.0, None, "made up")
WORK = Work(n=8, d=10, batch_size=2, features=3)
# On each of the 4 devices w = 2 workers. For all rules:
#   compute  2 workers · 6 · 2 examples · 10 parameters = 240 FLOPs, at 1200/s: 0.2 s
#   memory   2 · 2 · 2 · 3 numbers of the batches, 6 · 10 of the parameters: 84, at 100/s: 0.84 s
# and beyond that
BY_HAND = {
    # 3/4 of 64 bits for each of 10 coordinates are 60 bytes, at 8/s.
    "mean": Times(0.2, 0.84, 7.5),
    # 2 gradients written and read: 40 numbers. 2 bits up (of 0, 1 or 2 ayes), 2 back (8 may be
    # tied), 3/4 of them: 3.75 bytes.
    "sign": Times(0.2, 1.24, 0.46875),
    # 80 numbers: as many again from the others. 2 · 32 bits up, 32 back: 90 bytes.
    "median": Times(0.2, 1.64, 11.25),
    # 100 numbers: the weighted sum reads once more. 2 · 8² · 10/4 FLOPs for the Gram matrix and
    # 2 · 2 · 10 for the sum, at 100/s: 3.6 s. 64 bits up, 64 for the mean of the chosen, and
    # 64 · 8²/10 = 409.6 for the Gram matrix: 3/4 of 5376 bits are 504 bytes.
    "krum": Times(3.8, 1.84, 63.0),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_times_on_four_devices(name):
    assert roofline.times(name, WORK, TOY, 4) == pytest.approx(BY_HAND[name])


@pytest.mark.parametrize(
    ("name", "compute", "numbers"),
    [
        # 8 workers: 960 FLOPs; 2 · 8 · 2 · 3 + 60 numbers.
        ("mean", 0.8, 156),
        ("noisy_mean", 0.8, 156 + 160),  # noise is of single gradients
        ("sign", 0.8, 156 + 160),
        ("median", 0.8, 156 + 160),
        ("krum", 0.8 + (2 * 64 * 10 + 160) / 100, 156 + 240),
    ],
)
def test_times_on_one_device(name, compute, numbers):
    times = roofline.times(name, WORK, TOY, 1)
    assert times == pytest.approx((compute, numbers / 100, 0))


def test_workers_that_do_not_divide_are_those_of_the_fullest_device():
    # 9 workers on 4 devices: 3 on one of them.
    assert roofline.times("mean", replace(WORK, n=9), TOY, 4).compute == pytest.approx(0.3)


def test_own_flops():
    # 2 workers · 60 · 10 parameters, at 1200/s.
    assert roofline.times("mean", replace(WORK, flops=60), TOY, 4).compute == pytest.approx(1.0)


def test_step_is_the_longer_of_the_first_two_and_then_the_wire():
    assert Times(2.0, 3.0, 4.0).step == 7
    assert Times(3.0, 2.0, 1.0).step == 4
    assert [Times(*t).longest for t in ((3, 2, 1), (1, 3, 2), (1, 2, 3))] == [
        *("compute", "memory", "wire")
    ]


def test_all_to_all_on_a_torus():
    # 4×4 with links of 10 bytes/s, 40 for all four. Of 16 devices' B bytes half go to the other
    # half, half of those in each direction: 4·B, through 2 · 4 links: 80 bytes/s. So B at 20/s.
    torus = replace(TOY, devices=16, link=40.0, longest=4)
    assert torus.all_to_all == 20
    work = replace(WORK, n=16)
    # Up 15/16 of 32 bits at 20 bytes/s, back the same at 40, 10 coordinates: 37.5 bytes each.
    assert roofline.times("median", work, torus, 16).wire == pytest.approx(37.5 / 20 + 37.5 / 40)
    # Short axes: the links are the limit.
    assert replace(torus, devices=4, longest=2).all_to_all == 40


def test_a_pod_has_the_bisection_that_google_says():
    # 1.6 TB/s for a pod of v5e: a quarter of 256 · B bytes takes as long as B at `all_to_all`.
    pod = MACHINES["v5e"]
    assert 256 / 4 * pod.all_to_all == pytest.approx(1.6e12)


def test_where_the_wire_dominates():
    # The mean: 0.75·d against 0.24 + 0.06·d of memory and 0.02·d of compute.
    low, high = roofline.wire_dominates("mean", WORK, TOY) or (0, 0)
    assert (low, high) == (pytest.approx(0.24 / 0.69), math.inf)
    # The vote: 0.046875·d against 0.24 + 0.1·d.
    assert roofline.wire_dominates("sign", WORK, TOY) is None
    # Krum with links ten times as fast: 4.8 + 0.15·d against 0.38·d and 0.24 + 0.16·d.
    ends = roofline.wire_dominates("krum", WORK, replace(TOY, link=80.0))
    assert ends == pytest.approx((0, 4.8 / 0.23))


@pytest.mark.parametrize("name", BY_HAND)
@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
def test_where_the_wire_dominates_is_where_it_takes_longest(name, machine):
    work = Work(n=1024, d=1, batch_size=32)
    low, high = roofline.wire_dominates(name, work, machine) or (math.inf, 0)
    for d in (10, 1000, 5000, 20_000, 30_000, 100_000, 10_000_000):
        times = roofline.times(name, replace(work, d=d), machine, machine.devices)
        assert (times.longest == "wire") == (low < d < high)


def test_examples_that_outweigh_the_wire():
    # 0.75 s for each parameter are 900 FLOPs: those of 150 examples.
    assert roofline.examples_that_outweigh("mean", WORK, TOY) == pytest.approx(150)
    # Twice the FLOPs for each example, half of them.
    costly = replace(WORK, flops=24)
    assert roofline.examples_that_outweigh("mean", costly, TOY) == pytest.approx(75)


def test_bytes_held():
    # 8 workers' batches, 48 numbers, and parameters and update, 20; for the median 80 of gradients.
    assert roofline.bytes_held("mean", WORK, 1) == 4 * 68
    assert roofline.bytes_held("sign", WORK, 1) == 4 * 68
    assert roofline.bytes_held("median", WORK, 1) == 4 * 148
    # Of 2 workers 12; 20 numbers of gradients, and as many of the others'.
    assert roofline.bytes_held("median", WORK, 4) == 4 * (12 + 20 + 40)


@pytest.mark.parametrize("name", wire.RULES)
def test_closed_form_is_the_sum_of_its_parts(name):
    rule = wire.RULES[name](9)
    parts = wire.exchange(rule, 9, 1000, 4)
    assert sum(parts) == wire.closed_form(rule, 9, 1000, 4)
    assert (parts.scattered == 0) == (name == "mean")


def test_rules_without_a_closed_form():
    with pytest.raises(ValueError, match=r"exchanges; valid: rules without a memory"):
        roofline.rule_of("nnm+median", 10)


@pytest.mark.parametrize(
    ("ends", "text"),
    [
        (None, "none"),
        ((0.0, math.inf), "any"),
        ((1233.2, math.inf), "from 1,234"),
        ((0.0, 5519.8), "to 5,519"),
        ((20.5, 1000.5), "21 to 1,000"),
    ],
)
def test_between(ends, text):
    assert plan.between(ends) == text

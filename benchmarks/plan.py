"""The plan for machines that we don't have, as tables: see `roofline`."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from benchmarks import report, roofline
from benchmarks.machines import MACHINES
from benchmarks.roofline import Work

PLANNED = (
    "Planned by the makers' peak rates, not measured: a bound from below. It leaves out the start\n"
    "of kernels and collectives (microseconds each), and the arithmetic of noise and of selection."
)
HEADINGS = (
    *("rule", "compute, ms", "memory, ms", "wire, ms", "longest", "step, ms", "speed-up"),
    *("wire longest at d", "examples"),
)
NOTE = (
    "speed-up: over one of the devices; — where its memory couldn't hold the gradients.\n"
    "examples: so many on a device, w·B, and the gradients' FLOPs take as long as the wire."
)


def figures(rules: Sequence[str], work: Work, machine: str) -> list[dict[str, Any]]:
    """What is planned for each rule, in numbers; null for what doesn't fit, or is nowhere."""
    planned, rows = MACHINES[machine], []
    for name in rules:
        spread = roofline.times(name, work, planned, planned.devices)
        alone = roofline.times(name, work, planned, 1)
        fits = [
            roofline.bytes_held(name, work, k) <= planned.capacity for k in (1, planned.devices)
        ]
        rows.append(
            {
                "rule": name,
                **{f"{key}_ms": 1e3 * value for key, value in spread._asdict().items()},
                "longest": spread.longest,
                "step_ms": 1e3 * spread.step if fits[1] else math.nan,
                "speed_up": alone.step / spread.step if all(fits) else math.nan,
                "wire_longest_between": roofline.wire_dominates(name, work, planned),
                "examples": roofline.examples_that_outweigh(name, work, planned),
            }
        )
    return rows


def show(rules: Sequence[str], work: Work, machines: Sequence[str]) -> dict[str, Any]:
    """Print the tables; gives what is in them."""
    record = {}
    print(f"{work.n} workers, d = {work.d:,}, batches of {work.batch_size}")
    print(PLANNED + "\n")
    for name in machines:
        machine = MACHINES[name]
        print(f"{machine.name}: {_rates(name)}")
        print(f"({machine.source})")
        rows = figures(rules, work, name)
        report.print_table(HEADINGS, map(_cells, rows))
        record[name] = {"machine": asdict(machine), "rules": rows}
    print(NOTE)
    return record


def _rates(name: str) -> str:
    machine = MACHINES[name]
    text = (
        f"{machine.peak / 1e12:.4g} TFLOP/s ({machine.full / 1e12:.3g} in full precision), "
        f"{machine.memory / 1e12:.3g} TB/s, link {machine.link / 1e9:.3g} GB/s"
    )
    if machine.all_to_all < machine.link:
        text += f" ({machine.all_to_all / 1e9:.3g} all to all)"
    return text


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        row["rule"],
        *(f"{row[f'{key}_ms']:.3g}" for key in ("compute", "memory", "wire")),
        row["longest"],
        report.NOT_MEASURED if math.isnan(row["step_ms"]) else f"{row['step_ms']:.3g}",
        report.ratio(None if math.isnan(row["speed_up"]) else row["speed_up"]),
        between(row["wire_longest_between"]),
        f"{row['examples']:,.0f}",
    ]


def between(ends: tuple[float, float] | None) -> str:
    """In words, for which d."""
    if ends is None:
        return "none"
    low, high = ends
    if high == math.inf:
        return f"from {math.ceil(low):,}" if low > 1 else "any"
    return f"to {math.floor(high):,}" if low <= 1 else f"{math.ceil(low):,} to {math.floor(high):,}"

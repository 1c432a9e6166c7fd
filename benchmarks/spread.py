"""Time of a step by the number of devices: the rows of a table, and its picture."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from benchmarks._point import Measurement
from medjax.lab import plots

Kind = Literal["strong", "weak"]
SHARED = (
    "All devices share this machine's cores: the figures show what spreading the workers costs, "
    "not what it gains."
)
_SHARED = "all devices share the same cores: overhead, not speed-up"


@dataclass(frozen=True)
class Row:
    """A rule with n workers on k devices; NaN where it failed.

    Attributes:
        ms: milliseconds for a step.
        relative: the multiple of the time on one device, of the same n (strong) or n/k (weak).
        per_worker: the same for the time of each worker: `relative`, or `relative`/k (weak). Rules
            that compare all workers with all, as Krum does, do more for each where there are more.
        compile_s: seconds to compile.
        difference: `workload.difference` from one device with the same n.
    """

    rule: str
    devices: int
    workers: int
    ms: float
    relative: float
    per_worker: float
    compile_s: float
    difference: float


def rows(
    kind: Kind,
    rules: Sequence[str],
    workers: Mapping[int, int],
    measured: Mapping[tuple[str, int, int], Measurement],
) -> list[Row]:
    """Return the table from the measurements by (rule, n, k)."""
    table = []
    for rule in rules:
        alone = measured[rule, workers[1], 1].ms
        for k, n in sorted(workers.items()):
            m = measured[rule, n, k]
            relative = m.ms / alone
            per_worker = relative if kind == "strong" else relative / k
            table.append(Row(rule, k, n, m.ms, relative, per_worker, m.compile_s, m.difference))
    return table


def picture(tables: Mapping[Kind, Sequence[Row]], title: str) -> Figure:
    """Draw times as multiples of one device's: a panel for each table, a line for each rule.

    The dashed line is proportional to the number of workers: on shared cores, no overhead.
    """
    figure, axes = plots.new_figure(1, len(tables), f"{title}\n{_SHARED}")
    for axis, (kind, table) in zip(axes, tables.items(), strict=True):
        devices = sorted({row.devices for row in table})
        for i, rule in enumerate(dict.fromkeys(row.rule for row in table)):
            line = [row for row in table if row.rule == rule]
            axis.plot(
                [row.devices for row in line],
                [row.relative for row in line],
                "o-",
                markersize=4,
                color=plots.COLOURS[i % len(plots.COLOURS)],
                label=rule,
            )
        same = [1 if kind == "strong" else k for k in devices]
        axis.plot(
            devices, same, "--", linewidth=1, color="0.5", label="proportional to n", zorder=1
        )
        at_one = next(row.workers for row in table if row.devices == 1)
        axis.set_title(
            f"strong: {at_one} workers in all" if kind == "strong" else f"weak: {at_one} on each",
            fontsize=10,
        )
        axis.set_xscale("log", base=2)
        axis.set_yscale("log", base=2)
        for side in (axis.xaxis, axis.yaxis):
            side.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
            side.set_minor_locator(NullLocator())
        axis.set_xticks(devices)
        top = max([row.relative for row in table if not math.isnan(row.relative)] + same)
        low = min([row.relative for row in table if not math.isnan(row.relative)] + same)
        axis.set_ylim(min(0.5, low / 1.2), max(2.0, 1.2 * top))
        axis.set_xlabel("devices")
        axis.set_ylabel("time of a step, × one device")
    plots.legend_below(figure, *axes[0].get_legend_handles_labels())
    return figure

"""A grid as one program against its runs one by one: their loops alone, and as processes.

The loops alone are timed in turns within this process: 32 runs with a program compiled for one run,
which is what 32 processes do between compiling and writing, against the chunks of the sweep. As
processes, `medjax.lab.sweep` is timed once, and `medjax.lab.commands.run` for a few of the runs.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import report
from medjax.lab.data import load
from medjax.lab.machine.memory import free_bytes
from medjax.lab.settings import cli
from medjax.lab.settings.config import RunConfig
from medjax.lab.storage import results
from medjax.lab.sweep import grid
from medjax.lab.sweep.execute import execute, unfinished
from medjax.lab.sweep.plan import Group, make_groups, runs_side_by_side
from medjax.lab.task import communication
from medjax.lab.task.program import compile_program, one_run
from medjax.lab.task.training import Stop, train
from medjax.lab.task.workers import build

AXES = {"b": (0.0, 1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1), "seed": (0, 1, 2, 3)}
_STEPS = 300


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = cli.Parser("python -m benchmarks.sweep", __doc__ or "")
    parser.add_argument(
        "--workers", metavar="N", type=cli.integer(1), default=10, help="(default: 10)"
    )
    parser.add_argument(
        "--steps", metavar="T", type=cli.integer(1), default=_STEPS, help=f"(default: {_STEPS})"
    )
    parser.add_argument(
        "--batch-size",
        metavar="N|full",
        type=cli.integer_or("full", 1),
        default="full",
        help="(default: full)",
    )
    parser.add_argument("--dataset", metavar="NAME", default="mnist5k", help="(default: mnist5k)")
    parser.add_argument(
        "--processes",
        metavar="K",
        type=cli.integer(1),
        default=4,
        help="of the runs, so many are timed as processes (default: 4)",
    )
    report.add_common_options(parser)
    arguments = parser.parse_args(argv)
    common = {k: getattr(arguments, k) for k in ("workers", "steps", "batch_size", "dataset")}
    try:
        runs = grid.expand(AXES | {name: (value,) for name, value in common.items()})
        groups = make_groups(runs, {arguments.dataset: load(arguments.dataset)})
    except (ValueError, OSError, ImportError) as error:
        parser.error(str(error))
    alone = one_by_one(runs)
    loops: dict[str, list[float]] = {"one by one": [], "sweep": []}
    for _ in range(arguments.repeats):
        loops["one by one"].append(alone())
        loops["sweep"].append(together(groups))
    medians = {name: statistics.median(times) for name, times in loops.items()}
    with tempfile.TemporaryDirectory() as folder:
        processes = time_processes(runs, common, arguments.processes, Path(folder))

    record = report.provenance()
    print(
        f"{len(runs)} runs of {arguments.steps} steps: "
        f"8 values of b, 4 seeds, {arguments.workers} workers"
    )
    report.print_machine(record)
    ratio = {
        "loops alone": medians["sweep"] / medians["one by one"],
        "as processes": processes["sweep"] / processes["one by one"],
    }
    rows = [
        ["loops alone", *(f"{medians[k]:.1f}" for k in medians)],
        ["as processes", *(f"{processes[k]:.1f}" for k in medians)],
    ]
    for row in rows:
        row.append(f"{ratio[row[0]]:.2f}")
        row.append(f"{1 / ratio[row[0]]:.1f}×")
    report.print_table(("", "one by one, s", "sweep, s", "ratio", "faster"), rows)
    print(f"The {len(runs)} processes' time is that of {arguments.processes}, scaled up.")
    if arguments.json is not None:
        figures = {"loops": loops, "processes": processes, "ratio": ratio}
        settings = {k: v for k, v in vars(arguments).items() if k != "json"}
        results.write_json(arguments.json, record | {"settings": settings, "figures": figures})
    return 0


def one_by_one(runs: Sequence[RunConfig]) -> Callable[[], float]:
    """The seconds that the runs take in turn, by the program of a single one, once it is there."""
    setups = [build(run) for run in runs]
    program = one_run(setups[0].task)
    first = setups[0]
    held_out = jax.tree.map(jnp.asarray, first.task.held_out)
    compiled = compile_program(program, first.values, first.workers, held_out)

    def measure() -> float:
        start = time.perf_counter()
        for run, setup in zip(runs, setups, strict=True):
            inputs = (setup.values, setup.workers, held_out)
            for _ in train(
                compiled,
                *inputs,
                steps=run.steps,
                eval_every=run.eval_every,
                bits=communication.per_step(setup.task, setup.values.b),
                stop=Stop(),
            ):
                pass
        return time.perf_counter() - start

    return measure


def together(groups: Sequence[Group]) -> float:
    """The seconds that the sweep takes, its files included, compiling left out."""
    most = [runs_side_by_side(group, free_bytes()) for group in groups]
    start, compiling = time.perf_counter(), 0.0
    with tempfile.TemporaryDirectory() as folder:
        for progress in execute(Path(folder), unfinished(Path(folder), groups, most), Stop()):
            compiling += 0.0 if progress.compiled is None else progress.compiled.seconds
    return time.perf_counter() - start - compiling


def time_processes(
    runs: Sequence[RunConfig], common: Mapping[str, Any], count: int, folder: Path
) -> dict[str, float]:
    """The seconds that the sweep's process takes, and those of the runs, from some of them."""
    same = [word for name, value in common.items() for word in (_flag(name), str(value))]
    axes = [word for name, values in AXES.items() for word in (_flag(name), *map(str, values))]
    whole = _process("sweep", [*same, *axes], folder / "sweep")
    sample = runs[:: -(-len(runs) // count)]
    taken = [
        _process(
            "run",
            [
                *same,
                "--validation",
                str(run.validation),
                "--b",
                str(run.b),
                "--seed",
                str(run.seed),
            ],
            folder / f"run-{k}",
        )
        for k, run in enumerate(sample)
    ]
    return {"one by one": len(runs) * statistics.mean(taken), "sweep": whole}


def _process(module: str, arguments: Sequence[str], out: Path) -> float:
    print(f"a process: experiments.{module}", file=sys.stderr)
    command = [sys.executable, "-m", f"experiments.{module}", *arguments, "--out", str(out)]
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


if __name__ == "__main__":
    sys.exit(main())

"""Time of a grid as one program, and of its runs one by one: loops alone, and as processes.

The loops alone are timed in turns within this process: all runs with a program compiled for one
run, which is what their processes do between compiling and writing, and the chunks of the sweep. As
processes, `experiments.sweep` is timed once, and `experiments.run` for a few of the runs.
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
from medjax.lab.settings.config import Settings
from medjax.lab.storage import results
from medjax.lab.sweeps import grid
from medjax.lab.sweeps.execute import execute, unfinished
from medjax.lab.sweeps.plan import Group, make_groups, runs_side_by_side
from medjax.lab.task import communication
from medjax.lab.task.program import compile_program, one_run
from medjax.lab.task.training import Stop, train
from medjax.lab.task.workers import build

AXES = {"b": (0.0, 1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1), "seed": (0, 1, 2, 3)}
_STEPS = 300


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
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
        groups = make_groups(runs, {(arguments.dataset, None): load(arguments.dataset)})
    except (ValueError, OSError, ImportError) as error:
        parser.error(str(error))
    time_one_by_one = prepare_one_by_one(runs)
    loops: dict[str, list[float]] = {"one by one": [], "sweep": []}
    for _ in range(arguments.repeats):
        loops["one by one"].append(time_one_by_one())
        loops["sweep"].append(time_sweep(groups))
    medians = {name: statistics.median(times) for name, times in loops.items()}
    with tempfile.TemporaryDirectory() as folder:
        processes = time_processes(runs, common, arguments.processes, Path(folder))

    record = report.provenance()
    print(
        f"{len(runs)} runs of {arguments.steps} steps: "
        f"{len(AXES['b'])} values of b, {len(AXES['seed'])} seeds, {arguments.workers} workers"
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


def prepare_one_by_one(runs: Sequence[Settings]) -> Callable[[], float]:
    """Compile the program of one run; return a timer of all runs by it, one after the other."""
    setups = [build(run) for run in runs]
    program = one_run(setups[0].task)
    first = setups[0]
    held_out = jax.tree.map(jnp.asarray, first.task.held_out)
    compiled = compile_program(program, first.values, first.workers, first.measured, held_out)

    def measure() -> float:
        start = time.perf_counter()
        for run, setup in zip(runs, setups, strict=True):
            inputs = (setup.values, setup.workers, setup.measured, held_out)
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


def time_sweep(groups: Sequence[Group]) -> float:
    """Time the sweep in seconds, with its files and without compiling."""
    chunk_sizes = [runs_side_by_side(group, free_bytes()) for group in groups]
    start, compiling = time.perf_counter(), 0.0
    with tempfile.TemporaryDirectory() as folder:
        for progress in execute(
            Path(folder), unfinished(Path(folder), groups, chunk_sizes), Stop()
        ):
            compiling += 0.0 if progress.compiled is None else progress.compiled.seconds
    return time.perf_counter() - start - compiling


def time_processes(
    runs: Sequence[Settings], common: Mapping[str, Any], count: int, folder: Path
) -> dict[str, float]:
    """Time the process of the sweep, and estimate those of all runs from some of them."""
    shared = [word for name, value in common.items() for word in (_flag(name), str(value))]
    axes = [word for name, values in AXES.items() for word in (_flag(name), *map(str, values))]
    whole = _process("sweep", [*shared, *axes], folder / "sweep")
    sample = runs[:: -(-len(runs) // count)]
    taken = [
        _process(
            "run",
            [
                *shared,
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

"""Train one model by one algorithm: `medjax run --workers 100 --rule noisy_sign`."""

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from rich.console import Console

from medjax import sharding
from medjax.compressors import Bits
from medjax.lab import plots
from medjax.lab.commands.progress import Reporter
from medjax.lab.machine import devices as machine
from medjax.lab.machine import memory, processes
from medjax.lab.settings import cli
from medjax.lab.settings.config import RunConfig
from medjax.lab.settings.options import add_options, add_out
from medjax.lab.storage import checkpoints, results, watching
from medjax.lab.storage.keeper import FOLDER, Keeper
from medjax.lab.storage.locks import alone_in
from medjax.lab.task import communication, health
from medjax.lab.task.program import compile_program, one_run
from medjax.lab.task.training import Clock, Stop, stop_on_signal, train
from medjax.lab.task.workers import Setup, build

_DESCRIPTION = """\
Train one model on the heterogeneous data of n workers, all simulated in one program.

The run's folder gets config.json (every setting, versions, device, commit), metrics.parquet (a row
for each measurement), summary.json (the last of them, and the speed) and curves.png. Ctrl-C ends
the run and keeps what was measured."""

_LESS_MEMORY = (
    "fewer --workers or --examples-per-worker, a smaller --batch-size, --worker-chunk or --model "
    "takes less"
)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns 0, or 130 if stopped. A mistake in the settings exits with 2."""
    parser = cli.Parser("medjax run", _DESCRIPTION)
    add_options(parser)
    machine.add_machine(parser)
    processes.add_processes(parser)
    checkpoints.add_checkpoints(parser)
    watching.add_watching(parser)
    add_out(parser)
    try:
        arguments = parser.parse_args(argv)
        config = checkpoints.settings(parser, argv, arguments)
        processes.start(arguments)
        with memory.exhaustion(_LESS_MEMORY), processes.together():
            return _prepare_and_run(arguments, config)
    except (ValueError, OSError, ImportError) as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        print("stopped before the run began", file=sys.stderr)
        return cli.STOPPED


def _prepare_and_run(arguments: argparse.Namespace, config: RunConfig) -> int:
    mesh = machine.make_mesh(arguments, default="workers")
    first, out = processes.is_first(), Path(config.out) if config.out else None
    console = Console(highlight=False, quiet=not first)

    def prepare() -> Setup:
        if first and not arguments.resume:
            results.check_folder(out, config)  # before anything slow
        with console.status("loading the data, building the model"):
            return build(config, mesh)

    def claim() -> Path | None:
        if not first:
            return None
        folder = out or results.new_folder(_stem(config))
        held.enter_context(alone_in(folder))
        if not arguments.resume:
            record = {"config": config, "data": setup.sizes, "num_params": setup.task.num_params}
            record |= {"checkpoint_every": arguments.checkpoint_every}
            record |= results.provenance() | machine.described(mesh)
            results.claim_folder(folder, record)
        return folder

    settings = vars(config) | machine.described(mesh) | {"jax": jax.__version__}
    processes.check_same({k: v for k, v in settings.items() if k != "out"})
    setup = processes.all_ready(prepare)
    folder = out
    with ExitStack() as held:
        try:
            folder = processes.all_ready(claim)
            kept, every = folder and folder / FOLDER, arguments.checkpoint_every
            with stop_on_signal() as stop, checkpoints.keeping(kept, every) as keeper:
                if arguments.resume and folder is not None:
                    results.add_session(folder, machine.described(mesh))
                watchers = watching.chosen(arguments)
                _run(console, config, setup, folder, stop, mesh, keeper, watchers)
        except OSError as error:
            place = folder or results.DEFAULT_PARENT
            return processes.fail(f"{place}: {error.strerror or error}")
    return cli.STOPPED if stop.requested else 0


def _run(
    console: Console,
    config: RunConfig,
    setup: Setup,
    folder: Path | None,
    stop: Stop,
    mesh: Mesh | None,
    keeper: Keeper | None,
    watchers: Mapping[str, str],
) -> None:
    """Run, and write what is measured; without a folder, which only one process has, only run."""
    start, columns = checkpoints.begun(keeper, folder, config)
    seen = health.read_seen(folder, start.step) if folder is not None and start is not None else {}
    clock = Clock()
    bits = communication.per_step(setup.task, setup.values.b)
    watched = watching.watch(folder, watchers, config, columns)
    with Reporter(console, config, setup, folder) as reporter, ExitStack() as stack:
        try:
            shared = jax.tree.map(jnp.asarray, (setup.values, setup.task.held_out))
            values, held_out = sharding.place_everywhere(shared, mesh)  # no call moves them again
            inputs = (values, setup.workers, held_out)
            compiled = compile_program(one_run(setup.task), *inputs, mesh=mesh)
            try:
                needs = (compiled.num_bytes, setup.workers, mesh, _LESS_MEMORY)
                processes.all_ready(lambda: memory.check_program(*needs))
                add_row = processes.all_ready(lambda: stack.enter_context(watched))
            except ValueError:
                _give_up(folder)
                raise
            for progress in train(
                compiled,
                *inputs,
                steps=config.steps,
                eval_every=config.eval_every,
                bits=bits,
                stop=stop,
                start=start,
            ):
                clock = progress.clock
                reporter.update(progress)
                columns = progress.added_to(columns)
                if progress.metrics is not None and progress.nonfinite is not None:
                    new = health.newly_seen(seen, progress.step, progress.nonfinite)
                    seen |= new
                    if new:
                        reporter.nonfinite(list(new), progress.step)
                    # Every time: whatever happens next, what was measured is kept.
                    if folder is not None:
                        results.write_table(folder / checkpoints.METRICS, columns)
                    if folder is not None and new:
                        health.write_seen(folder, seen)
                    add_row({name: values[-1] for name, values in columns.items()})
                if keeper is not None:
                    keeper.update(progress.step, progress.state, columns, now=progress.last)
        except KeyboardInterrupt:  # a second Ctrl-C
            pass
    stop.finishing = True
    if folder is None:
        return
    if not columns:
        _give_up(folder)
        print("stopped before the first measurement", file=sys.stderr)
    else:
        curves = plots.Curves(plots.describe(dataclasses.asdict(config)), columns)
        results.write_figure(folder / "curves.png", plots.run_figure(curves))
        # The last: where it is, all is.
        summary = _summary(columns, clock, setup, bits, stop, seen)
        results.write_json(folder / checkpoints.SUMMARY, summary)
        reporter.finish(columns, clock)


def _give_up(folder: Path | None) -> None:
    """Leave no folder of a run of which nothing was measured, now or before it was resumed."""
    if folder is not None and not (folder / checkpoints.METRICS).exists():
        watching.remove(folder)
        (folder / results.CONFIG).unlink()  # and the folder is removed with its lock


def _summary(
    columns: dict[str, list[float]],
    clock: Clock,
    setup: Setup,
    bits: Bits,
    stop: Stop,
    seen: health.FirstSeen,
) -> dict[str, Any]:
    """The last measurement, the speed, and how the run ended."""
    return {
        **{name: values[-1] for name, values in columns.items()},
        "steps_per_second": clock.steps_per_second,
        "num_params": setup.task.num_params,
        **{f"bits_{name}_per_step": int(each) for name, each in bits._asdict().items()},
        "compile_seconds": clock.compile_seconds,
        "train_seconds": clock.train_seconds,
        "stopped_early": stop.requested,
        "diverged_at_step": health.diverged_at(columns["step"], columns["train_loss"]),
        "nonfinite_since_step": seen,
    }


def _stem(config: RunConfig) -> str:
    dataset = config.dataset.partition(":")[0]
    return f"{config.rule}-{dataset}-n{config.workers}-seed{config.seed}"

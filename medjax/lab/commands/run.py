"""Train one model by one algorithm: `medjax run --workers 100 --rule noisy_sign`."""

import argparse
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
from medjax.lab.machine import devices, memory, processes
from medjax.lab.settings import cli, wording
from medjax.lab.settings.config import Settings, as_record, digests
from medjax.lab.settings.flags import add_out, add_settings
from medjax.lab.storage import checkpoints, results, watching
from medjax.lab.storage.keeper import FOLDER, Keeper
from medjax.lab.storage.locks import alone_in
from medjax.lab.task import communication, health, privacy
from medjax.lab.task.program import compile_program, one_run
from medjax.lab.task.setup import explained
from medjax.lab.task.training import Clock, Stop, rehearse, stop_on_signal, train
from medjax.lab.task.workers import Setup, build

_DESCRIPTION = """\
Train one model on the heterogeneous data of n workers, all simulated in one program.

The run's folder gets config.json (every setting, versions, device, commit), metrics.parquet (a row
for each measurement), summary.json (the last of them, and the speed) and curves.png. Ctrl-C ends
the run and keeps what was measured."""

LESS_MEMORY = (
    "fewer --workers or --examples-per-worker, a smaller --batch-size, --worker-chunk or --model "
    "takes less"
)
"""The advice to a run that doesn't fit the memory."""


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out the command; return 0, or 130 if stopped. A mistake exits with 2."""
    parser = make_parser()
    try:
        arguments = parser.parse_args(argv)
        config = checkpoints.settings(parser, argv, arguments)
        processes.start(arguments)
        with memory.exhaustion(LESS_MEMORY), processes.together():
            stopped = execute(arguments, config, Console(highlight=False))[1]
    except results.Refused as error:
        return processes.fail(str(error))
    except (ValueError, OSError, ImportError) as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        print("stopped before the run began", file=sys.stderr)
        return cli.STOPPED
    return cli.STOPPED if stopped else 0


def make_parser() -> cli.Parser:
    """Make the command's parser."""
    parser = cli.Parser("medjax run", _DESCRIPTION)
    add_settings(parser)
    devices.add_machine(parser)
    processes.add_processes(parser)
    checkpoints.add_checkpoints(parser)
    watching.add_watching(parser)
    add_out(parser)
    return parser


def execute(
    arguments: argparse.Namespace, config: Settings, console: Console
) -> tuple[Path | None, bool]:
    """Run, writing to a folder.

    Args:
        arguments: the command's, for all but the settings.
        config: the settings.
        console: for what is told meanwhile.

    Returns:
        The folder, which only one of several processes has, and whether the run was stopped.

    Raises:
        ValueError: if the settings don't fit each other, the data or the memory.
        Refused: if the system refuses to write.
    """
    mesh = devices.make_mesh(arguments, default="workers")
    first, out = processes.is_first(), Path(arguments.out) if arguments.out else None
    console.quiet = console.quiet or not first

    def prepare() -> Setup:
        if first and not arguments.resume:
            results.check_folder(out, as_record(config))  # before anything slow
        with console.status("loading the data, building the model"):
            return build(config, mesh)

    def claim() -> Path | None:
        if not first:
            return None
        folder = out or results.new_folder(_stem(config))
        held.enter_context(alone_in(folder))
        if not arguments.resume:
            record = {"config": as_record(config), "own_code": digests([config])}
            record |= {"data": setup.sizes, "num_params": setup.task.num_params}
            record |= {"checkpoint_every": arguments.checkpoint_every}
            record |= results.provenance() | devices.described(mesh)
            results.claim_folder(folder, record)
        return folder

    versions = {"jax": jax.__version__, "own_code": digests([config])}
    processes.check_same(as_record(config) | devices.described(mesh) | versions)
    setup = processes.all_ready(prepare)
    folder = out
    with ExitStack() as held:
        try:
            folder = processes.all_ready(claim)
            kept, every = folder and folder / FOLDER, arguments.checkpoint_every
            with stop_on_signal() as stop, checkpoints.keeping(kept, every) as keeper:
                watchers = watching.chosen(arguments)
                _run(console, config, setup, folder, stop, mesh, keeper, watchers)
        except OSError as error:
            place = folder or results.DEFAULT_PARENT
            raise results.Refused(f"{place}: {error.strerror or error}") from error
    return folder, stop.requested


def _run(
    console: Console,
    config: Settings,
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
    if folder is not None and start is not None:
        results.add_session(folder, devices.described(mesh))
    clock, done = Clock(), 0 if start is None else start.step
    bits = communication.per_step(setup.task, setup.values.b)
    watched = watching.watch(folder, watchers, config, columns)
    with Reporter(console, config, setup, folder) as reporter, ExitStack() as stack:
        try:
            shared = jax.tree.map(jnp.asarray, (setup.values, setup.task.held_out))
            values, held_out = sharding.place_everywhere(shared, mesh)  # no call moves them again
            inputs = (values, setup.workers, setup.measured, held_out)
            try:
                with explained(config):
                    compiled = compile_program(one_run(setup.task), *inputs, mesh=mesh)
                needs = (compiled.num_bytes, setup.workers, mesh, LESS_MEMORY)
                processes.all_ready(lambda: memory.check_program(*needs))
                add_row = processes.all_ready(lambda: stack.enter_context(watched))
            except ValueError:
                _give_up(folder)
                raise
            reporter.estimate(compiled, rehearse(compiled, *inputs), config.steps - done)
            for progress in train(
                compiled,
                *inputs,
                steps=config.steps,
                eval_every=config.eval_every,
                bits=bits,
                stop=stop,
                start=start,
            ):
                clock, done = progress.clock, progress.step
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
                if keeper is not None and progress.measuring is None:
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
        curves = plots.Curves(wording.describe(vars(config)), columns)
        results.write_figure(folder / "curves.png", plots.run_figure(curves))
        # The last: where it is, all is.
        summary = _summary(columns, clock, setup, bits, stop, seen)
        results.write_json(folder / checkpoints.SUMMARY, summary)
        reporter.finish(columns, clock, done)


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
        **_privacy(setup, int(columns["step"][-1])),
        "compile_seconds": clock.compile_seconds,
        "train_seconds": clock.train_seconds,
        "stopped_early": stop.requested,
        "diverged_at_step": health.diverged_at(columns["step"], columns["train_loss"]),
        "nonfinite_since_step": seen,
    }


def _privacy(setup: Setup, num_steps: int) -> dict[str, float | None]:
    found = privacy.of_run(setup.task.config, num_steps)
    return {} if found is None else {"epsilon": found.epsilon, "delta": found.delta}


def _stem(config: Settings) -> str:
    """Return a name for a run's folder."""
    dataset = config.dataset
    # The kind of idx:DIR, and the function of one's own, which may be in C:\\...
    dataset = dataset.partition(":")[0] if isinstance(dataset, str) else dataset.name
    dataset = wording.for_files(dataset)
    method = wording.for_files(wording.method(vars(config)))
    return f"{method}-{dataset}-n{config.workers}-seed{config.seed}"

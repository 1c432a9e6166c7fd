"""`medjax sweep --rule sign noisy_sign --b 0 0.001 0.01 --seeds 5`: a whole grid."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jax.sharding import Mesh
from rich.console import Console

from medjax.lab.machine import devices
from medjax.lab.settings import cli, wording
from medjax.lab.settings.config import Settings
from medjax.lab.settings.flags import add_out
from medjax.lab.storage import checkpoints, results, watching
from medjax.lab.sweeps import grid, report, select, store
from medjax.lab.sweeps.cluster import connect
from medjax.lab.sweeps.cluster.workers import Cluster
from medjax.lab.sweeps.outcome import outcome, title
from medjax.lab.sweeps.session import run_grid
from medjax.lab.tables import show as show_table
from medjax.lab.task.training import stop_on_signal

_DESCRIPTION = """\
Train with every combination of the settings' values. What differs only in numbers (step size, b,
momentum, seed) is one compiled program, its runs side by side.

A part of the training data is held out to choose the best setting of each rule; the test data are
only reported on. The folder gets results.parquet (a row for each run and measurement), config.json,
summary.json and pictures. Whatever ends a sweep, the same command goes on where it was."""

_MOST_ROWS = 40


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out the command; return 0, or 130 if stopped. A mistake exits with 2."""
    parser = make_parser()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    try:
        arguments, axes = grid.read_axes(parser, argv)
        runs = grid.expand(axes, yes=arguments.yes)
        on_cluster = arguments.ray is not None
        if on_cluster:
            connect.check_alone(arguments)
        mesh = None if on_cluster else devices.make_mesh(arguments, default="grid")
    except ValueError as error:
        parser.error(str(error))
    folder = Path(arguments.out) if arguments.out else default_folder(runs)

    def work() -> int:
        every, watchers = arguments.checkpoint_every, watching.chosen(arguments)
        if not on_cluster:
            execute(folder, runs, console, mesh, every, watchers)
            return 0
        with connect.joined(arguments.ray, console.print) as cluster:
            execute(folder, runs, console, watchers=watchers, cluster=cluster)
        return 0

    return cli.carry_out(parser, folder, work)


def make_parser() -> cli.Parser:
    """Make the command's parser."""
    parser = cli.Parser("medjax sweep", _DESCRIPTION)
    grid.add_grid_options(parser)
    devices.add_machine(parser)
    checkpoints.add_checkpoint_every(parser)
    connect.add_ray(parser)
    watching.add_watching(parser)
    add_out(parser)
    return parser


def execute(
    folder: Path,
    runs: Sequence[Settings],
    console: Console,
    mesh: Mesh | None = None,
    checkpoint_every: int | None = None,
    watchers: Mapping[str, str] | None = None,
    cluster: Cluster | None = None,
) -> None:
    """Run what isn't finished of a grid, and write what comes of it.

    Raises:
        ValueError: as `run_grid` does.
        KeyboardInterrupt: if stopped.
    """
    with (
        stop_on_signal() as stop,
        run_grid(console, folder, runs, stop, mesh, checkpoint_every, watchers, cluster) as columns,
    ):
        stop.finishing = True
        show(console, folder, runs, columns)


def show(console: Console, folder: Path, runs: Sequence[Settings], columns: select.Columns) -> None:
    """Print the tables; write the summary and the pictures."""
    from medjax.lab.sweeps import pictures  # see medjax.lab.plots

    told = outcome(runs, columns)
    if 1 < len(told.found) <= _MOST_ROWS:
        show_table(console, report.table(told.found, told.names, told.measured))
    best = f"\nBest by {told.chosen_by}, mean ± standard error over seeds:"
    console.print(best, soft_wrap=True)
    show_table(console, report.table(told.chosen, told.names, told.measured))
    ended = select.diverged(columns)
    if ended:
        console.print(f"\n{report.diverged(runs, ended, [*told.names, 'seed'])}", soft_wrap=True)
    summary = {"criterion": told.criterion, "best": recorded(told.chosen)}
    summary["settings"] = recorded(told.found)
    summary["diverged_at_step"] = ended
    if told.worst:
        summary["worst"] = recorded(told.worst)
        console.print("\nTheir worst cases, by test accuracy:", soft_wrap=True)
        show_table(console, report.table(told.worst, told.names, told.measured))
    results.write_json(folder / "summary.json", summary)
    for name, figure in pictures.draw(runs, columns, title(runs)).items():
        results.write_figure(folder / f"{name}.png", figure)
    console.print(f"\nresults in {folder}", soft_wrap=True, markup=False)


def recorded(candidates: Sequence[select.Candidate]) -> list[dict[str, Any]]:
    """Return candidates as files hold them."""
    return [candidate.as_record() for candidate in candidates]


def default_folder(runs: Sequence[Settings]) -> Path:
    """Return a folder under runs/, the same for the same grid."""
    rules = "-".join(dict.fromkeys(wording.for_files(wording.method(vars(run))) for run in runs))
    return results.DEFAULT_PARENT / f"sweep-{rules[:60]}-{store.fingerprint(runs)}"

"""A sweep on the console: its plan, its progress, and the tables at its end."""

import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn
from rich.progress import Progress as Bar
from rich.table import Table

from medjax.lab import tables
from medjax.lab.machine import memory
from medjax.lab.settings import wording
from medjax.lab.settings.config import SETTINGS, Settings
from medjax.lab.sweeps.execute import Progress
from medjax.lab.sweeps.fit import Work
from medjax.lab.sweeps.plan import estimate_bytes
from medjax.lab.sweeps.select import Candidate

_SECONDS_BETWEEN_LINES = 15.0
_MOST_DIVERGED = 5  # that are named
# Settings that tell programs apart.
_TOLD = ("algorithm", "rule", "mix", "attack", "byzantine", "workers")
_TOLD += ("dataset", "partition", "alpha", "model")


def plan(
    runs: Sequence[Settings], num_programs: int, work: Sequence[Work], free_bytes: int
) -> list[str]:
    """Return lines that say what a session is about to do.

    Args:
        runs: the grid.
        num_programs: how many programs it is.
        work: what isn't finished.
        free_bytes: the memory that a device has for it.
    """
    steps = sum(run.steps for run in runs)
    lines = [f"grid       {_count(len(runs), 'run')}, {steps:,} steps in all"]
    chunks = [(item.group, chunk) for item in work for chunk in item.chunks.values()]
    todo = sum(int(chunk.new.sum()) for _, chunk in chunks)
    if todo < len(runs):
        lines.append(f"finished   {_count(len(runs) - todo, 'run')} of them, {todo} to do")
    most = max((chunk.new.size for _, chunk in chunks), default=0)
    lines.append(
        f"programs   {_count(num_programs, 'program')} to compile, "
        f"{_count(len(chunks), 'chunk')} of up to {_count(most, 'run')} side by side"
    )
    needed = max((estimate_bytes(group, chunk) for group, chunk in chunks), default=0)
    free = memory.in_words(free_bytes)
    lines.append(f"memory     about {memory.in_words(needed)} at a time, of {free}")
    return lines


class Reporter:
    """Shows the progress: a bar on a terminal, elsewhere a line now and then."""

    def __init__(self, console: Console, work: Sequence[Work]) -> None:
        self._console = console
        self._work = {item.program: item for item in work}
        runs = {item.program: _num_runs(item) for item in work}
        self._total = sum(item.group.task.config.steps * runs[item.program] for item in work)
        self._runs = sum(runs.values())
        self._done = self._finished = 0
        self._begun = self._last_line = time.monotonic()
        self._bar = Bar(
            TextColumn("{task.fields[runs]}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[pace]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=self._total, pace="compiling", runs="")

    def __enter__(self) -> "Reporter":
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def update(self, progress: Progress) -> None:
        """Show the latest news."""
        self._total -= progress.kept
        self._done += progress.run_steps
        self._finished += progress.finished
        runs = f"{self._finished}/{self._runs} runs"
        self._bar.update(
            self._task, completed=self._done, total=self._total, pace=self._pace(), runs=runs
        )
        if progress.note:
            self._console.print(progress.note, soft_wrap=True, markup=False)
        if progress.compiled is not None:
            self._console.print(self._program(progress), soft_wrap=True, markup=False)
        due = time.monotonic() - self._last_line > _SECONDS_BETWEEN_LINES
        if self._done and due and not self._console.is_terminal:
            self._last_line = time.monotonic()
            self._console.print(f"{runs}, {self._pace()}", soft_wrap=True, markup=False)

    def _pace(self) -> str:
        if not self._done:
            return ""
        seconds = time.monotonic() - self._begun
        left = timedelta(seconds=round(seconds * (self._total - self._done) / self._done))
        return f"{wording.pace(self._done / seconds)}, {left} left"

    def _program(self, progress: Progress) -> str:
        item = self._work[progress.program]
        config, compiled = item.group.task.config, progress.compiled
        assert compiled is not None
        most = progress.runs_side_by_side
        other = most if most != item.runs_side_by_side else None
        return (
            f"program {progress.program + 1}: {wording.named(vars(config), _TOLD)}: "
            f"{_count(_num_runs(item), 'run')}; compiled in {compiled.seconds:.1f} s, "
            f"{memory.in_words(compiled.num_bytes)}"
            + (f"; up to {_count(other, 'run')} side by side" if other else "")
        )


def table(found: Sequence[Candidate], names: Sequence[str], columns: Sequence[str]) -> Table:
    """Make a row for each candidate: the settings that vary, and the last measurements."""
    words = {n: [setting_text(n, getattr(c.run, n)) for c in found] for n in names}
    numbers = {n.replace("_", " "): [str(c.final[n]) for c in found] for n in columns}
    return tables.text_table(words, numbers)


def diverged(runs: Sequence[Settings], ended: Mapping[int, int], names: Sequence[str]) -> str:
    """Name the runs whose losses were NaN or infinite, of many the first, and since which step."""
    told = [
        f"{wording.named(vars(runs[run]), names)} (step {step})"
        for run, step in list(ended.items())[:_MOST_DIVERGED]
    ]
    more = len(ended) - len(told)
    return (
        f"diverged   {len(ended):,} of {_count(len(runs), 'run')}: {'; '.join(told)}"
        + f"; and {more} more, in summary.json" * (more > 0)
    )


def setting_text(name: str, value: object) -> str:
    """Write a setting's value in a table."""
    if value is None:
        return "-" if SETTINGS[name].applies else "none"
    return wording.short(value)


def _num_runs(work: Work) -> int:
    return sum(int(chunk.new.sum()) for chunk in work.chunks.values())


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"

"""Plan, progress and summary of a run on the console."""

import math
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table

from medjax.lab import tables
from medjax.lab.machine import memory
from medjax.lab.settings import wording
from medjax.lab.settings.config import Settings, resolve
from medjax.lab.settings.values import THEORY, Schedule
from medjax.lab.task import health, privacy
from medjax.lab.task.privacy import Privacy
from medjax.lab.task.program import Compiled
from medjax.lab.task.training import Clock, Rehearsal
from medjax.lab.task.training import Progress as RunProgress
from medjax.lab.task.workers import Setup

# metric, heading, format
_SHOWN = (
    ("train_loss", "train loss", "10.4f"),
    ("train_accuracy", "train acc", "9.3f"),
    ("test_accuracy", "test acc", "8.3f"),
    ("grad_norm", "‖mean grad‖", "11.4g"),
    ("median_mean_gap", "‖median-mean‖", "13.4g"),
)
_SECONDS_BETWEEN_LINES = 15.0
_STAGES = (
    *("participation", "local_steps", "local_lr", "local_optimizer", "worker_momentum", "weights"),
    *("compress", "error_feedback", "attack", "byzantine", "mix", "server"),
)
_LABELS = {"images": "classes", "characters": "different characters"}
_WORDS = {"zero": "0", "plus": "+1", "random": "±1 at random"}


class Reporter:
    """Prints the plan, a line for each measurement, and on a terminal a progress bar."""

    def __init__(
        self, console: Console, config: Settings, setup: Setup, folder: Path | None
    ) -> None:
        self._console = console
        self._config = config
        self._folder = folder
        self._headed = self._diverged = False
        self._bar = Progress(
            TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[pace]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=config.steps, pace="compiling")
        self._last_line = time.monotonic()
        for line in plan(config, setup):
            self._print(line)
        self._print(f"results    {folder}")

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

    def estimate(self, compiled: Compiled, rehearsal: Rehearsal, steps: int) -> None:
        """Tell how long the run is going to take, and how much memory."""
        measurements = 1 + math.ceil(steps / self._config.eval_every)
        seconds = steps * rehearsal.step + measurements * rehearsal.measurement
        self._print(f"compiled in {compiled.seconds:.1f} s")
        self._print(
            f"estimate   {_duration(seconds)}: {steps} steps of {_seconds(rehearsal.step)}, "
            f"{measurements} measurements of {_seconds(rehearsal.measurement)}; "
            f"{memory.in_words(compiled.num_bytes)} of memory\n"
        )

    def update(self, progress: RunProgress) -> None:
        """Show where the run is; a line of its own for a measurement."""
        pace = _pace(progress.clock, self._config.steps - progress.step, self._config.eval_every)
        if progress.measuring is not None:
            pace = f"measuring, {progress.measuring:.0%}" + (pace and f"; {pace}")
        self._bar.update(self._task, completed=progress.step, pace=pace)
        if progress.metrics is None:
            self._now_and_then(f"{progress.step:8d}  {pace}")
            return
        if not self._headed:
            self._headed = True
            self._print("    step  " + "  ".join(heading for _, heading, _ in _SHOWN))
        values = "  ".join(f"{float(progress.metrics[name]):{form}}" for name, _, form in _SHOWN)
        self._print(f"{progress.step:8d}  {values}  {pace}")
        self._last_line = time.monotonic()
        loss = float(progress.metrics["train_loss"])
        if not self._diverged and not math.isfinite(loss):
            self._diverged = True
            self._print(f"diverged: the training loss is {loss:g} at step {progress.step}")

    def _now_and_then(self, line: str) -> None:
        """Print a line where there is no bar, if there has been none for long."""
        due = time.monotonic() - self._last_line > _SECONDS_BETWEEN_LINES
        if due and not self._console.is_terminal:
            self._last_line = time.monotonic()
            self._print(line)

    def nonfinite(self, workers: Sequence[int], step: int) -> None:
        """Name workers who send NaN or ±∞ for the first time."""
        who = health.in_words(workers, self._config.workers)
        self._print(f"not finite: what {who} send{'s' * (len(workers) == 1)} at step {step}")

    def finish(self, columns: dict[str, list[float]], clock: Clock, done: int) -> None:
        """The short table at the end, after so many steps."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in ("", "start", "end"):
            table.add_column(heading, justify="right" if heading else "left")
        for name, values in columns.items():
            if name != "step":
                table.add_row(name, f"{values[0]:.4g}", f"{values[-1]:.4g}")
        rate = clock.steps_per_second
        table.add_row("steps_per_second", "", f"{rate:.4g}" if rate else "-")
        self._print("")
        tables.show(self._console, table)
        total = self._config.steps
        how = f"{done} steps" if done == total else f"stopped after {done} of {total} steps"
        self._print(f"\n{how} in {clock.train_seconds:.1f} s; results in {self._folder}")

    def _print(self, line: str) -> None:
        self._console.print(line, soft_wrap=True, markup=False)


def plan(config: Settings, setup: Setup) -> list[str]:
    """Describe the run before it begins."""
    data, values = setup.sizes, setup.values
    small, large = data["smallest_worker"], data["largest_worker"]
    each = f"{small}" if small == large else f"{small} to {large}"
    settings = {
        **{"classes_per_worker": "classes", "shards_per_worker": "shards", "alpha": "α"},
        **{"similarity": "γ", "exponent": "exponent"},
    }
    split = [f"{w} = {v}" for k, w in settings.items() if (v := getattr(config, k)) is not None]
    noise = "no noise"
    if config.b is not None:
        df = "" if config.df is None else f", {config.df:g} degrees of freedom"
        by_theory = f" ({values.b:g})" if config.b == THEORY else ""
        noise = f"{config.noise} noise, b = {config.b}{by_theory}{df}"
    details = [f"step size {values.lr:g}", noise]
    if config.lr_schedule != Schedule():
        details[0] += f" by schedule {config.lr_schedule}"
    if config.momentum is not None:
        details.append(f"momentum {config.momentum:g}")
    if config.topology is not None:
        details.append(_graph(setup))
    if config.declared_byzantine is not None:
        details.append(f"f = {config.declared_byzantine}")
    if config.zero is not None and config.tie is not None:
        details.append(f"a zero votes {_WORDS[config.zero]}, a tie gives {_WORDS[config.tie]}")
    usual = resolve({"algorithm": config.algorithm, "rule": config.rule})
    stages = [name for name in _STAGES if getattr(config, name) != getattr(usual, name)]
    protocol = wording.named(vars(config), stages)
    secret = privacy.of_run(config, config.steps)
    validation = ""
    if config.validation:
        validation = f"{data['validation_examples']} validation, "
    batch = "full batch" if config.batch_size == "full" else f"batches of {config.batch_size}"
    return [
        f"algorithm  {wording.method(vars(config))}: {', '.join(details)}",
        *([f"protocol   {protocol}"] if protocol else []),
        *([f"privacy    {_told(secret)}"] if secret is not None else []),
        f"workers    {config.workers}, {each} examples each, of {config.dataset} "
        f"({data['train_examples']} training, {validation}{data['test_examples']} test, "
        f"{data['num_classes']} {_LABELS[data['inputs']]}), {config.partition}"
        + (f" ({', '.join(split)})" if split else "")
        + (f", dealt out {config.copies} times" if config.copies > 1 else ""),
        f"model      {config.model}, {setup.task.num_params:,} parameters",
        f"training   {config.steps} steps, {batch}, measured every {config.eval_every}"
        + ("" if config.eval_examples == "all" else f" on {config.eval_examples} of each worker's")
        + f", seed {config.seed}",
    ]


def _graph(setup: Setup) -> str:
    graph = setup.task.protocol.topology
    assert graph is not None
    return f"topology {graph.name}, spectral gap {graph.spectral_gap:.3g}"


def _told(found: Privacy) -> str:
    epsilon = f"no ε: {found.reason}" if found.epsilon is None else f"ε = {found.epsilon:.4g}"
    return f"{epsilon}, at δ = {found.delta:g}"


def _pace(clock: Clock, steps_left: int, eval_every: int) -> str:
    rate = clock.steps_per_second
    if rate is None:
        return ""
    left = _duration(clock.seconds_left(steps_left, eval_every))
    return f"{wording.pace(rate):>14}" + (f", {left} left" if steps_left else "")


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _seconds(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"

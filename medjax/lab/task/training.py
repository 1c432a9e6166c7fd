"""Driving a simulation from the host: chunks of steps, measurements in turns, a clean stop."""

import math
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import numpy as np

import medjax
from medjax._engine.stacked import PyTree
from medjax.compressors import Bits
from medjax.lab.machine import processes
from medjax.lab.storage.keeper import Start, restored
from medjax.lab.task.interpret import Hyperparameters
from medjax.lab.task.program import NONFINITE, Compiled

# The longest that the host leaves the device alone: how often progress moves and Ctrl-C is heard.
_SECONDS_PER_CHUNK = 0.3
# A run that is stopped is measured once more, unless that takes longer.
_SECONDS_AFTER_STOP = 8.0


@dataclass
class Stop:
    """A request to stop; `finishing` once the results are being written."""

    requested: bool = False
    finishing: bool = False


@contextmanager
def stop_on_signal() -> Iterator[Stop]:
    """Turn the first SIGINT or SIGTERM into a request to stop; a second one ends at once.

    Once the results are being written, which is soon done, none is heard.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():  # Python lets no other do this
        yield stop
        return

    def request(number: int, frame: Any) -> None:
        again, stop.requested = stop.requested, stop.requested or not stop.finishing
        if again and not stop.finishing:
            raise KeyboardInterrupt

    previous = {s: signal.signal(s, request) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@dataclass
class Clock:
    """The time that a run has taken so far.

    Attributes:
        compile_seconds: for compiling.
        train_seconds: for the steps alone, `steps_timed` of them.
        seconds_per_measurement: what the last took, or will take; None before it has begun.
    """

    compile_seconds: float = 0.0
    train_seconds: float = 0.0
    steps_timed: int = 0
    seconds_per_measurement: float | None = None

    @property
    def steps_per_second(self) -> float | None:
        """The speed of the training steps alone; None before the first chunk."""
        return self.steps_timed / self.train_seconds if self.train_seconds else None

    def seconds_left(self, steps: int, eval_every: int) -> float:
        """For more steps like those so far, and the measurements between them."""
        rate, each = self.steps_per_second, self.seconds_per_measurement or 0.0
        return (steps / rate if rate else 0.0) + each * math.ceil(steps / eval_every)


@dataclass
class Progress:
    """The state of a run after a chunk of steps, with a measurement if one has just ended.

    `measuring` is the share of a measurement under way that is done, and `nonfinite` tells of each
    worker whether it sends NaN or ±∞; `last` says whether this is where the run ends, on which its
    processes have agreed. The state is the next chunk's to overwrite: who keeps it makes a copy.
    """

    step: int
    clock: Clock
    state: PyTree
    metrics: dict[str, np.ndarray] | None = None
    nonfinite: np.ndarray | None = None
    measuring: float | None = None
    last: bool = False

    def added_to(self, rows: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
        """Return the columns with the measurement added, if there has just been one.

        A single run's are Python's numbers.
        """
        if self.metrics is None:
            return dict(rows)
        measured = {name: x if x.ndim else float(x) for name, x in self.metrics.items()}
        row = {"step": self.step, **measured}
        return {name: [*rows.get(name, []), value] for name, value in row.items()}


class Rehearsal(NamedTuple):
    """The seconds that a step takes, and a measurement."""

    step: float
    measurement: float


def rehearse(
    compiled: Compiled,
    values: Hyperparameters,
    workers: medjax.WorkerData,
    measured: medjax.WorkerData,
    held_out: Any,
) -> Rehearsal:
    """Time a step and a turn of a measurement, whose results nobody keeps."""
    program = compiled.program
    state = program.init(values)
    step = math.inf
    for _ in range(2):  # the first call takes longer
        begin = time.perf_counter()
        state = jax.block_until_ready(program.advance(state, values, workers, np.int32(1)))
        step = time.perf_counter() - begin
        if step > _SECONDS_PER_CHUNK:
            break
    totals = program.begin(state, measured, held_out)
    begin = time.perf_counter()
    *_, left = program.measure(totals, state, measured, held_out, np.int32(0), np.int32(1))
    turns = 1 + int(np.ravel(left)[0])
    return Rehearsal(step, turns * (time.perf_counter() - begin))


def train(
    compiled: Compiled,
    values: Hyperparameters,
    workers: medjax.WorkerData,
    measured: medjax.WorkerData,
    held_out: Any,
    *,
    steps: int,
    eval_every: int,
    bits: Bits,
    stop: Stop,
    start: Start | None = None,
) -> Iterator[Progress]:
    """Run and measure in turns, until the last step or until `stop` is requested.

    The first measurement is before the first step, or, of a run that goes on from a checkpoint, the
    first after that. The last is at the step where the run ends, unless the run is stopped and
    measuring takes long. If the program is that of several runs, then all of them run side by side,
    and metrics are arrays. To what the program measures are added `bits_up` and `bits_down`, those
    sent until then if each step takes so many.
    """
    program, clock = compiled.program, Clock(compiled.seconds)
    state = program.init(values)

    def measure() -> Iterator[Progress]:
        """Measure; the metrics come with the last, unless stopped."""
        begun = time.perf_counter()
        totals = program.begin(state, measured, held_out)
        done, count = 0, 1
        while True:
            inputs = (state, measured, held_out, np.int32(done), np.int32(count))
            totals, *found = program.measure(totals, *inputs)
            # All in one go: a GPU would be waited for as many times as there are metrics.
            metrics, left = jax.device_get(found)
            done, left = done + count, int(np.ravel(left)[0])
            if not left and done == 1:
                clock.seconds_per_measurement = time.perf_counter() - begun
                break
            # Agreed, so that the processes of a run take equally many turns.
            seconds, stopped = processes.agreed(time.perf_counter() - begun, stop.requested)
            each = seconds / done
            clock.seconds_per_measurement = each * (done + left)
            if not left:
                break
            if stopped and each * left > _SECONDS_AFTER_STOP:
                stop.requested = True
                return
            count = min(left, max(1, int(_SECONDS_PER_CHUNK / each)))
            yield Progress(step, clock, state, measuring=done / (done + left))
        nonfinite = metrics[NONFINITE]
        metrics = metrics | {NONFINITE: nonfinite.sum(axis=-1)}
        for name, sent in bits._asdict().items():
            metrics[f"bits_{name}"] = np.full(
                metrics["train_loss"].shape, step * np.asarray(sent, float)
            )
        yield Progress(step, clock, state, metrics, nonfinite)

    step, due = 0, True
    if start is not None:
        step, state = start.step, restored(state, start)
        # A run that was stopped at a measurement may lack it.
        due = (step % eval_every == 0 or step == steps) and step not in start.rows["step"]
    measured_at, ending = step - step % eval_every, False
    if due:
        found = False
        for progress in measure():
            found = progress.metrics is not None
            yield progress
        ending = not found  # no step before the measurement that is due
    while step < steps and not ending:
        rate = clock.steps_per_second or 1 / _SECONDS_PER_CHUNK
        next_measurement = min(measured_at + eval_every, steps)
        length = min(max(1, int(rate * _SECONDS_PER_CHUNK)), next_measurement - step)
        begin = time.perf_counter()
        state = jax.block_until_ready(program.advance(state, values, workers, np.int32(length)))
        # Agreed, so that the processes of a run have the same clock: they do equal chunks.
        seconds, ending = processes.agreed(time.perf_counter() - begin, stop.requested)
        if ending:  # else a signal that comes just now must not be forgotten
            stop.requested = True
        clock.train_seconds += seconds
        clock.steps_timed += length
        step += length
        last = ending or step == steps
        if step < next_measurement and not ending:
            yield Progress(step, clock, state)
            continue
        measured_at, found = step, False
        if not ending or (clock.seconds_per_measurement or 0) <= _SECONDS_AFTER_STOP:
            for progress in measure():
                found = progress.metrics is not None
                yield replace(progress, last=last and found)
        if not found:  # the state may be kept
            ending = True
            yield Progress(step, clock, state, last=True)

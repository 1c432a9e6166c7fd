"""Driving a simulation from the host: chunks of steps, measurements, and a clean stop."""

import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

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
    """The time that a run has taken so far."""

    compile_seconds: float = 0.0
    train_seconds: float = 0.0
    steps_timed: int = 0
    begun: float = field(default_factory=time.perf_counter)

    @property
    def steps_per_second(self) -> float | None:
        """The speed of the training steps alone; None before the first chunk."""
        return self.steps_timed / self.train_seconds if self.train_seconds else None

    def seconds_left(self, steps: int) -> float:
        """For more steps like those so far, the measurements between them included."""
        return (time.perf_counter() - self.begun) * steps / self.steps_timed


@dataclass
class Progress:
    """The state of a run after a chunk of steps, with a measurement if there has just been one.

    `nonfinite` tells of each worker whether it sends NaN or ±∞, and `last` whether this is where
    the run ends, on which its processes have agreed. The state is the next chunk's to
    overwrite: who keeps it makes a copy.
    """

    step: int
    clock: Clock
    state: PyTree
    metrics: dict[str, np.ndarray] | None = None
    nonfinite: np.ndarray | None = None
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


def train(
    compiled: Compiled,
    values: Hyperparameters,
    workers: medjax.WorkerData,
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
    first after that. The last is always at the step where the run ends. If the program is that of
    several runs, then all of them run side by side, and metrics are arrays. To what the program
    measures are added `bits_up` and `bits_down`, those sent until then if each step takes so many.
    """
    program, clock = compiled.program, Clock(compiled.seconds)
    state = program.init(values)

    def measure() -> Progress:
        # All in one go: a GPU would be waited for as many times as there are metrics.
        found = dict(jax.device_get(program.evaluate(state, workers, held_out)))
        nonfinite = found[NONFINITE]
        found[NONFINITE] = nonfinite.sum(axis=-1)
        for name, each in bits._asdict().items():
            found[f"bits_{name}"] = np.full(
                found["train_loss"].shape, step * np.asarray(each, float)
            )
        return Progress(step, clock, state, found, nonfinite)

    step = measured = 0
    if start is None:
        yield measure()
    else:
        step, state = start.step, restored(state, start)
        measured = step - step % eval_every
    ending = False
    while step < steps and not ending:
        rate = clock.steps_per_second or 1 / _SECONDS_PER_CHUNK
        next_measurement = min(measured + eval_every, steps)
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
        if step == next_measurement or ending:
            measured = step
            yield replace(measure(), last=ending or step == steps)
        else:
            yield Progress(step, clock, state)

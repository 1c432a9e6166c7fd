"""Driving a simulation from the host: chunks of steps, measurements, and a clean stop."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from experiments.config import RunConfig
from experiments.setup import Setup

# The longest that the host leaves the device alone: how often progress moves and Ctrl-C is heard.
_SECONDS_PER_CHUNK = 0.3


@dataclass
class Stop:
    """Whether the user has asked for the end, and whether what was measured is being written."""

    requested: bool = False
    finishing: bool = False


@contextmanager
def stop_on_signal() -> Iterator[Stop]:
    """Turn the first SIGINT or SIGTERM into a request to stop; a second one ends at once.

    Once the results are being written, which is soon done, none is heard.
    """
    stop = Stop()

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
    """What a run has taken so far."""

    compile_seconds: float = 0.0
    train_seconds: float = 0.0
    steps_timed: int = 0
    begun: float = field(default_factory=time.perf_counter)

    @property
    def steps_per_second(self) -> float | None:
        """Of the training steps alone; None before the first chunk."""
        return self.steps_timed / self.train_seconds if self.train_seconds else None

    def seconds_left(self, steps: int) -> float:
        """For more steps like those so far, the measurements between them included."""
        return (time.perf_counter() - self.begun) * steps / self.steps_timed


@dataclass
class Progress:
    """Where a run is: a measurement if there has just been one, else only the step."""

    step: int
    clock: Clock
    metrics: dict[str, float] | None = field(default=None)


def train(config: RunConfig, setup: Setup, stop: Stop) -> Iterator[Progress]:
    """Compile, then run and measure in turns, until the last step or until `stop` is requested.

    The last measurement is always at the step where the run ends.
    """
    clock, start = Clock(), time.perf_counter()
    state = jax.jit(setup.simulation.init)(setup.params, setup.key)
    # One program for chunks of every length; it takes over the old state's memory.
    advance = jax.jit(setup.simulation.advance, donate_argnums=0)
    advance = advance.lower(state, setup.workers, jnp.int32(0)).compile()
    evaluate = jax.jit(setup.simulation.evaluate)
    evaluate = evaluate.lower(setup.params, setup.workers, setup.test_data).compile()
    clock.compile_seconds = time.perf_counter() - start
    clock.begun = time.perf_counter()

    def measure() -> Progress:
        metrics = evaluate(state.params, setup.workers, setup.test_data)
        return Progress(step, clock, {name: float(value) for name, value in metrics.items()})

    step = measured = 0
    yield measure()
    ending = False
    while step < config.steps and not ending:
        rate = clock.steps_per_second or 1 / _SECONDS_PER_CHUNK
        next_measurement = min(measured + config.eval_every, config.steps)
        length = min(max(1, int(rate * _SECONDS_PER_CHUNK)), next_measurement - step)
        begin = time.perf_counter()
        state = jax.block_until_ready(advance(state, setup.workers, jnp.int32(length)))
        clock.train_seconds += time.perf_counter() - begin
        clock.steps_timed += length
        step += length
        ending = stop.requested
        if step == next_measurement or ending:
            measured = step
            yield measure()
        else:
            yield Progress(step, clock)

"""Timing of candidates in turns within one process, by the median of the turns."""

import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

Run = Callable[[int], object]
"""A function that does its work a given number of times, and returns when all is done."""

Prepare = Callable[[], Run]
"""A function that makes a run: its time is the time to compile."""

Name = TypeVar("Name", bound=Hashable)

_SLOW = 5.0  # seconds; a call that takes longer is made only once


@dataclass(frozen=True)
class Figure:
    """Figures of one candidate.

    Attributes:
        ms: milliseconds for one call or step, the median of the turns.
        compile_s: seconds to compile.
        calls: the number of calls in a turn, which takes their average.
        turns: the number of turns.
    """

    ms: float
    compile_s: float
    calls: int
    turns: int


def measure(
    candidates: Mapping[Name, Prepare], *, repeats: int, seconds: float, most: int
) -> dict[Name, Figure]:
    """Time the candidates in turns, so that a change of the machine's speed affects all of them.

    Args:
        candidates: the candidates by name.
        repeats: the number of turns.
        seconds: the approximate length of a turn: the slower a candidate, the fewer calls in it.
        most: the largest number of calls in a turn.
    """
    runs, compile_s, calls, times = {}, {}, {}, {}
    for name, prepare in candidates.items():
        start = time.perf_counter()
        runs[name] = prepare()
        compile_s[name] = time.perf_counter() - start
        once = seconds_per_call(runs[name])
        calls[name] = min(max(1, int(seconds / once)), most)
        times[name] = [once] if once > _SLOW else []
    in_turns = {name: run for name, run in runs.items() if not times[name]}
    for _ in range(repeats):
        for name, run in in_turns.items():
            times[name].append(_timed(run, calls[name]) / calls[name])
    return {
        name: Figure(1e3 * statistics.median(taken), compile_s[name], calls[name], len(taken))
        for name, taken in times.items()
    }


def seconds_per_call(run: Run) -> float:
    """Estimate the time of a call, without the first one, which pays for more than itself."""
    first = _timed(run, 1)
    return first if first > _SLOW else _timed(run, 1)


def loop(function: Callable[..., Any], *arguments: Any) -> Prepare:
    """Prepare a jitted loop, whose last argument is its number of steps."""

    def prepare() -> Run:
        program = jax.jit(function).lower(*arguments, jnp.int32(0)).compile()
        return lambda steps: jax.block_until_ready(program(*arguments, jnp.int32(steps)))

    return prepare


def jitted(function: Callable[..., Any], *arguments: Any) -> Run:
    """Compile a function, and return a run that calls it."""
    program = jax.jit(function).lower(*arguments).compile()
    return called(lambda: jax.block_until_ready(program(*arguments)))


def called(function: Callable[..., Any], *arguments: Any) -> Run:
    """Return a run that calls a function as it is."""

    def run(calls: int) -> None:
        for _ in range(calls):
            function(*arguments)

    return run


def _timed(run: Run, calls: int) -> float:
    start = time.perf_counter()
    run(calls)
    return time.perf_counter() - start

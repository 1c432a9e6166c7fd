"""How everything here is timed: candidates in turns within one process, the median of the turns."""

import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

Run = Callable[[int], object]
"""Does its work so many times, and returns when all is done."""

Prepare = Callable[[], Run]
"""Makes a run: what it takes is the time to compile."""

Name = TypeVar("Name", bound=Hashable)

_SLOW = 5.0  # seconds; a call that takes longer is made only once


@dataclass(frozen=True)
class Figure:
    """What was measured.

    Attributes:
        ms: milliseconds for one call or step, the median of the turns.
        compile_s: seconds to compile.
        calls: how many, one after the other, each turn took the average of.
        turns: how many there were.
    """

    ms: float
    compile_s: float
    calls: int
    turns: int


def measure(
    candidates: Mapping[Name, Prepare], *, repeats: int, seconds: float, most: int
) -> dict[Name, Figure]:
    """Time the candidates in turns, so that a machine that speeds up or slows down does so for all.

    Args:
        candidates: by name.
        repeats: the number of turns.
        seconds: about how long one candidate's turn should be: the slower, the fewer calls in it.
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
    """A first estimate; the very first call, which pays for more than itself, isn't counted."""
    first = _timed(run, 1)
    return first if first > _SLOW else _timed(run, 1)


def loop(function: Callable[..., Any], *arguments: Any) -> Prepare:
    """A jitted loop, whose last argument is its number of steps."""

    def prepare() -> Run:
        program = jax.jit(function).lower(*arguments, jnp.int32(0)).compile()
        return lambda steps: jax.block_until_ready(program(*arguments, jnp.int32(steps)))

    return prepare


def jitted(function: Callable[..., Any], *arguments: Any) -> Run:
    """Calls of a function, compiled here."""
    program = jax.jit(function).lower(*arguments).compile()
    return called(lambda: jax.block_until_ready(program(*arguments)))


def called(function: Callable[..., Any], *arguments: Any) -> Run:
    """Calls of a function as it is."""

    def run(calls: int) -> None:
        for _ in range(calls):
            function(*arguments)

    return run


def _timed(run: Run, calls: int) -> float:
    start = time.perf_counter()
    run(calls)
    return time.perf_counter() - start

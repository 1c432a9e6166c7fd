"""Times of a kernel by several libraries on a matrix of n vectors of d numbers."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.libraries import JAX, MEDJAX, NUMPY, TORCH, torch
from benchmarks.timing import Figure, Prepare, called, jitted, measure, seconds_per_call

KERNELS = ("median", "trimmed_mean", "normal", "sign", "noisy_sign")
_SECONDS = 0.2  # about the length of a turn
_MOST_CALLS = 1000
_SAMPLE = 1 << 18  # entries of the matrix from which the time of a larger one is estimated


@dataclass(frozen=True)
class Row:
    """A kernel at a size: figures by library, or estimates that were above the budget."""

    kernel: str
    n: int
    d: int
    figures: dict[str, Figure]
    estimated_s: dict[str, float]

    def slower(self, library: str) -> float | None:
        """Return a library's time as a multiple of that of medjax."""
        figure = self.figures.get(library)
        return figure and figure.ms / self.figures["medjax"].ms


def measure_size(
    kernels: Sequence[str], n: int, d: int, repeats: int, budget: float
) -> Iterator[Row]:
    """Measure each kernel on one matrix."""
    x = np.random.default_rng(0).standard_normal((n, d), np.float32)
    for kernel in dict.fromkeys(kernels):
        print(f"{kernel}, n = {n}, d = {d}", file=sys.stderr)
        estimates = {} if x.size <= _SAMPLE else _estimates(kernel, x)
        too_long = {name: s for name, s in estimates.items() if s > budget}
        candidates = {k: v for k, v in _candidates(kernel, x).items() if k not in too_long}
        figures = measure(candidates, repeats=repeats, seconds=_SECONDS, most=_MOST_CALLS)
        yield Row(kernel, n, d, figures, too_long)


def _candidates(kernel: str, x: np.ndarray) -> dict[str, Prepare]:
    f = max(len(x) // 10, 1) if len(x) > 2 else 0
    array, key = jnp.asarray(x), jax.random.key(0)
    found: dict[str, Prepare] = {
        "medjax": partial(jitted, MEDJAX.kernel(kernel, f), array, key),
        "jnp": partial(jitted, JAX.kernel(kernel, f), array, key),
        "NumPy": partial(called, NUMPY.kernel(kernel, f), x, np.random.default_rng(1)),
    }
    if torch is not None:
        found["PyTorch"] = partial(called, TORCH.kernel(kernel, f), torch.from_numpy(x), None)
    return found


def _estimates(kernel: str, x: np.ndarray) -> dict[str, float]:
    """Estimate the seconds for one call of each other library, which are linear in d."""
    n, d = x.shape
    width = max(1, _SAMPLE // n)
    sample = _candidates(kernel, np.ascontiguousarray(x[:, :width]))
    return {
        name: seconds_per_call(prepare()) * d / width
        for name, prepare in sample.items()
        if name != "medjax"
    }

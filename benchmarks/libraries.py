"""Rules and noise in medjax, and the obvious code for them in other libraries.

A rule is a function of the stacked vectors `(n, ...)` and of f, the number trimmed at either end.
Noise is a function of an array, whose shape it takes, and of a key or generator, where the library
has them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import medjax
from benchmarks.report import optional

B = 1e-3
"""Scale of the noise. No time depends on it."""

torch = optional("torch")

Kernel = Callable[[Any, Any], Any]
"""A function of an array and of the source of random numbers."""


@dataclass(frozen=True)
class Library:
    """Rules by their names on the command line, and standard normal noise."""

    rules: Mapping[str, Callable[[Any, int], Any]]
    normal: Kernel

    def kernel(self, name: str, f: int) -> Kernel:
        """Return `normal`, or a rule, `noisy_` or not."""
        if name == "normal":
            return self.normal
        rule = self.rules[name.removeprefix("noisy_")]
        if name.startswith("noisy_"):
            return lambda x, source: rule(x + B * self.normal(x, source), f)
        return lambda x, source: rule(x, f)


class Medjax(Library):
    """The rules of medjax."""

    def kernel(self, name: str, f: int) -> Kernel:
        """Return the kernel of that name; that of `noisy_sign` draws the sign itself."""
        return _noisy_sign if name == "noisy_sign" else super().kernel(name, f)


def _noisy_sign(x: jax.Array, key: jax.Array) -> jax.Array:
    vote = medjax.aggregate(medjax.rules.majority_vote())
    tx = optax.chain(medjax.noisy_sign(B, key=key), vote)
    return tx.update(x, tx.init(x[0]))[0]  # pyright: ignore[reportReturnType]


MEDJAX = Medjax(
    rules={
        "sign": lambda x, f: medjax.rules.majority_vote()(x),
        "median": lambda x, f: medjax.rules.median()(x),
        "trimmed_mean": lambda x, f: medjax.rules.trimmed_mean(f)(x),
    },
    normal=lambda x, key: medjax.noise.normal().sample(key, x.shape),
)

JAX = Library(
    rules={
        "mean": lambda x, f: jnp.mean(x, axis=0),
        "sign": lambda x, f: jnp.sign(jnp.sign(x).sum(0)),
        "median": lambda x, f: jnp.median(x, axis=0),
        "trimmed_mean": lambda x, f: jnp.sort(x, axis=0)[f : len(x) - f].mean(0),
    },
    normal=lambda x, key: jax.random.normal(key, x.shape),
)

NUMPY = Library(
    rules={
        "sign": lambda x, f: np.sign(np.sign(x).sum(0)),
        "median": lambda x, f: (
            np.partition(x, len(x) // 2, axis=0)[len(x) // 2]
            if len(x) % 2
            else np.median(x, axis=0)
        ),
        "trimmed_mean": lambda x, f: np.partition(x, (f, len(x) - f - 1), axis=0)[
            f : len(x) - f
        ].mean(0),
    },
    normal=lambda x, generator: generator.standard_normal(x.shape, np.float32),
)

# torch.median gives the lower of the middle two where n is even, which is less work.
TORCH = Library(
    rules={
        "mean": lambda x, f: x.mean(0),
        "sign": lambda x, f: x.sign().sum(0).sign(),
        "median": lambda x, f: x.median(dim=0).values,
        "trimmed_mean": lambda x, f: x.sort(dim=0).values[f : len(x) - f].mean(0),
    },
    normal=lambda x, _: torch.randn(x.shape),
)

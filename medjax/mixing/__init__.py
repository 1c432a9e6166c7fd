"""Mixing: linear combinations of the workers' vectors, n to m of them, before a rule.

A factory builds a stage and rejects impossible settings. `medjax.mix` puts it into a chain;
`premixed` puts it before a rule:

>>> import jax.numpy as jnp
>>> from medjax import mixing, rules
>>> rule = mixing.premixed(rules.trimmed_mean(1), mixing.nnm(1))
>>> print(rule(jnp.array([[1.0], [2.0], [3.0], [100.0]])))
[2.]
"""

from collections.abc import Callable, Mapping

from medjax._engine.vectors import Vectors as Vectors
from medjax.mixing._mixings import Mixing as Mixing
from medjax.mixing._mixings import PlainMixing as PlainMixing
from medjax.mixing._mixings import arc as arc
from medjax.mixing._mixings import bucketing as bucketing
from medjax.mixing._mixings import clip as clip
from medjax.mixing._mixings import nnm as nnm
from medjax.mixing._premixed import premixed as premixed
from medjax.mixing._stage import mix as mix

MIXINGS: Mapping[str, Callable[..., Mixing]] = {
    "nnm": nnm,
    "bucketing": bucketing,
    "clip": clip,
    "arc": arc,
}
"""Every mixing's factory by its name."""

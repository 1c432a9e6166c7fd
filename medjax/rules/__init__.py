"""Aggregation rules: n workers' vectors to one.

A factory builds a rule (impossible settings fail there). The rule is a pure function of the stacked
updates, an array `(n, ...)` or any pytree of such, to the aggregate without the leading axis:

>>> import jax.numpy as jnp
>>> from medjax import rules
>>> print(rules.median()(jnp.array([[1.0, 5.0], [2.0, 0.0], [10.0, 6.0]])))
[2. 5.]

Each rule belongs to a family, and the family, not the rule, knows how to run it:

* `Additive`: decode(Σ_i encode(x_i)): mean, majority vote;
* `CoordinateWise`: a function of the n numbers at each coordinate: median, trimmed mean,
  mean around median, Phocas;
* `Geometric`: Σ_i w_i x_i with weights from the Gram matrix of the vectors: Krum, multi-Krum.

`premixed` makes a rule of a rule and the mixing stages before it. A `StatefulRule` remembers its
earlier steps, and works in a chain, by `medjax.aggregate`.
"""

from collections.abc import Callable, Mapping

from medjax.rules._additive import Additive as Additive
from medjax.rules._additive import majority_vote as majority_vote
from medjax.rules._additive import mean as mean
from medjax.rules._coordinatewise import CoordinateWise as CoordinateWise
from medjax.rules._coordinatewise import meamed as meamed
from medjax.rules._coordinatewise import median as median
from medjax.rules._coordinatewise import phocas as phocas
from medjax.rules._coordinatewise import trimmed_mean as trimmed_mean
from medjax.rules._geometric import Geometric as Geometric
from medjax.rules._krum import krum as krum
from medjax.rules._krum import multi_krum as multi_krum
from medjax.rules._premixed import premixed as premixed
from medjax.rules._rule import Rule as Rule
from medjax.rules._rule import StatefulRule as StatefulRule

RULES: Mapping[str, Callable[..., Rule]] = {
    "mean": mean,
    "median": median,
    "majority_vote": majority_vote,
    "trimmed_mean": trimmed_mean,
    "meamed": meamed,
    "phocas": phocas,
    "krum": krum,
    "multi_krum": multi_krum,
}
"""Every rule's factory by its name."""

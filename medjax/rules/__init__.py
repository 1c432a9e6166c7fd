"""Aggregation rules, which combine the n workers' vectors into one.

A factory checks its settings and builds a rule. The rule is a pure function from the stacked
updates, an array `(n, ...)` or any pytree of such, to the aggregate without the leading axis:

>>> import jax.numpy as jnp
>>> from medjax import rules
>>> print(rules.median()(jnp.array([[1.0, 5.0], [2.0, 0.0], [10.0, 6.0]])))
[2. 5.]

Each rule belongs to a family, and the family knows how to run it:

* `Additive`: decode(Σ_i encode(x_i)): mean, majority vote;
* `CoordinateWise`: a function of the n numbers at each coordinate: median, trimmed mean,
  mean around median, Phocas;
* `Geometric`: Σ_i w_i x_i with weights from the Gram matrix of the vectors: Krum, multi-Krum, the
  geometric median, centred clipping, MDA, SMEA, MoNNA, CGE, CAF, clipped clustering, and two that
  also sample coordinates: DnC, SignGuard.

Bulyan applies a `CoordinateWise` rule to the vectors that Krum's scores select. A `StatefulRule`
remembers earlier steps or, as FLTrust, looks at the parameters; `medjax.aggregate` runs it in a
chain. `medjax.mixing.premixed` combines a rule with the mixing stages before it.
"""

from collections.abc import Callable, Mapping

from medjax._engine.vectors import Vectors as Vectors
from medjax.rules._additive import Additive as Additive
from medjax.rules._additive import majority_vote as majority_vote
from medjax.rules._additive import mean as mean
from medjax.rules._aggregate import AggregateState as AggregateState
from medjax.rules._aggregate import aggregate as aggregate
from medjax.rules._bulyan import bulyan as bulyan
from medjax.rules._byzantine_sgd import byzantine_sgd as byzantine_sgd
from medjax.rules._clipping import centered_clipping as centered_clipping
from medjax.rules._clipping import centered_clipping_from_last as centered_clipping_from_last
from medjax.rules._clustering import clipped_clustering as clipped_clustering
from medjax.rules._coordinatewise import CoordinateWise as CoordinateWise
from medjax.rules._coordinatewise import meamed as meamed
from medjax.rules._coordinatewise import median as median
from medjax.rules._coordinatewise import phocas as phocas
from medjax.rules._coordinatewise import trimmed_mean as trimmed_mean
from medjax.rules._fltrust import ServerGradient as ServerGradient
from medjax.rules._fltrust import fltrust as fltrust
from medjax.rules._geometric import Geometric as Geometric
from medjax.rules._geometric_median import geometric_median as geometric_median
from medjax.rules._krum import krum as krum
from medjax.rules._krum import multi_krum as multi_krum
from medjax.rules._nearest import cge as cge
from medjax.rules._nearest import monna as monna
from medjax.rules._rule import FromFunction as FromFunction
from medjax.rules._rule import PlainRule as PlainRule
from medjax.rules._rule import Rule as Rule
from medjax.rules._rule import StatefulRule as StatefulRule
from medjax.rules._selection import mean_of as mean_of
from medjax.rules._selection import mean_of_lowest as mean_of_lowest
from medjax.rules._selection import middle as middle
from medjax.rules._selection import sample_columns as sample_columns
from medjax.rules._signguard import signguard as signguard
from medjax.rules._spectral import caf as caf
from medjax.rules._spectral import dnc as dnc
from medjax.rules._subsets import mda as mda
from medjax.rules._subsets import smea as smea

RULES: Mapping[str, Callable[..., Rule | StatefulRule]] = {
    "mean": mean,
    "median": median,
    "majority_vote": majority_vote,
    "trimmed_mean": trimmed_mean,
    "meamed": meamed,
    "phocas": phocas,
    "krum": krum,
    "multi_krum": multi_krum,
    "geometric_median": geometric_median,
    "centered_clipping": centered_clipping,
    "centered_clipping_from_last": centered_clipping_from_last,
    "mda": mda,
    "monna": monna,
    "smea": smea,
    "caf": caf,
    "cge": cge,
    "bulyan": bulyan,
    "dnc": dnc,
    "signguard": signguard,
    "clipped_clustering": clipped_clustering,
    "byzantine_sgd": byzantine_sgd,
    "fltrust": fltrust,
}
"""The factory of every rule, by name."""

"""Attacks: the behaviour of the Byzantine workers, f of n.

With an `Attack`, the Byzantine workers see the honest workers' vectors, may know the rule, and send
whatever they like. An attack is a function of stacked updates in which the last f workers are
Byzantine; `medjax.attack` puts it into a chain, where other workers may be the Byzantine ones:

>>> import jax.numpy as jnp
>>> from medjax import attacks
>>> print(attacks.ipm(tau=2.0)(jnp.array([[1.0], [3.0], [2.0]]), num_byzantine=1).ravel())
[ 1.  3. -4.]

A `DataAttack` poisons the examples of the last f workers, who then follow the protocol:
`attacks.label_flip(10)(data, num_byzantine=2)`.

A `GossipAttack`, `attacks.dissensus(2)`, is one by nodes of a graph, who may tell each neighbour
something else: for `attack=` of the decentralised algorithms.

The number of attackers is independent of the number that a rule is told to expect, which is the
rule's own `num_byzantine`.
"""

from collections.abc import Callable, Mapping

from medjax.attacks._attack import Attack as Attack
from medjax.attacks._attack import PlainAttack as PlainAttack
from medjax.attacks._balanced import balanced_flip as balanced_flip
from medjax.attacks._data import DataAttack as DataAttack
from medjax.attacks._data import add_trigger as add_trigger
from medjax.attacks._data import backdoor as backdoor
from medjax.attacks._data import label_flip as label_flip
from medjax.attacks._distances import min_max as min_max
from medjax.attacks._distances import min_sum as min_sum
from medjax.attacks._fang import fang as fang
from medjax.attacks._gossip import GossipAttack as GossipAttack
from medjax.attacks._gossip import dissensus as dissensus
from medjax.attacks._optimal import optimal_alie as optimal_alie
from medjax.attacks._optimal import optimal_ipm as optimal_ipm
from medjax.attacks._shifts import alie as alie
from medjax.attacks._shifts import ipm as ipm
from medjax.attacks._shifts import sign_flip as sign_flip
from medjax.attacks._simple import gaussian as gaussian
from medjax.attacks._simple import mimic as mimic
from medjax.attacks._simple import model_replacement as model_replacement
from medjax.attacks._simple import nonfinite as nonfinite
from medjax.attacks._stage import AttackState as AttackState
from medjax.attacks._stage import attack as attack
from medjax.attacks._turn import optimal_turn as optimal_turn

ATTACKS: Mapping[str, Callable[..., Attack | DataAttack]] = {
    "sign_flip": sign_flip,
    "ipm": ipm,
    "alie": alie,
    "optimal_ipm": optimal_ipm,
    "optimal_alie": optimal_alie,
    "optimal_turn": optimal_turn,
    "balanced_flip": balanced_flip,
    "mimic": mimic,
    "min_max": min_max,
    "min_sum": min_sum,
    "fang": fang,
    "gaussian": gaussian,
    "nonfinite": nonfinite,
    "model_replacement": model_replacement,
    "label_flip": label_flip,
    "backdoor": backdoor,
}
"""Every attack's factory by its name."""

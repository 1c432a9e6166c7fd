"""Gossip: how far each node's vector moves towards what it hears from its neighbours."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jaxtyping import Array, Bool, Float

from medjax._engine import checks
from medjax._engine.gram import Rows, dot
from medjax._engine.precision import at_least_float32
from medjax._engine.random import stage_key
from medjax._engine.stacked import PyTree, Stacked, count_workers
from medjax._engine.vectors import vectors_of_rows
from medjax.attacks import AttackState, GossipAttack
from medjax.topologies import Topology

_NOBODY_KNOWN = "tau=None needs to know who is Byzantine: give it an attack, or a number"

AnyAttack: TypeAlias = GossipAttack | optax.GradientTransformation
Tau: TypeAlias = float | Float[Array, ""] | None


class Gossip(NamedTuple):
    """A pair of pure functions.

    Attributes:
        init: one node's parameters to the state, that of the attack.
        pull: (all nodes' own vectors, state) to Σ_j W_ij (what i hears from j - its own), perhaps
            clipped, in float32 at least, and the state.
    """

    init: Callable[[PyTree], Any]
    pull: Callable[[Stacked, Any], tuple[Stacked, Any]]


class _Heard(NamedTuple):
    """The vectors that nodes hear.

    Attributes:
        sent: what each node sends to all its neighbours.
        weights: the weights for them, with zeros on the diagonal.
        lies: what each node hears from Byzantine neighbours in place of that; None for nothing.
        share: the weight of each node for these neighbours together.
        byzantine: who isn't honest; None for nobody known.
    """

    sent: Rows
    weights: Float[Array | np.ndarray, "n n"]
    lies: Rows | None = None
    share: Float[Array | np.ndarray, " n"] | None = None
    byzantine: Bool[Array, " n"] | None = None


def gossip(topology: Topology, attack: AnyAttack | None, tau: Tau = math.inf) -> Gossip:
    """Build the exchange between nodes.

    Args:
        topology: W.
        attack: what Byzantine nodes send; None for no such nodes.
        tau: the length that differences are clipped to, ∞ for none; None for that of the theory,
            which `clipped_gossip` explains.

    Raises:
        TypeError: if the topology or the attack isn't one, or τ isn't a number.
        ValueError: if τ isn't positive, or as many nodes are Byzantine as there are.
    """
    if not isinstance(topology, Topology):
        raise TypeError(f"topology must be one, medjax.topologies.ring(8), got {topology!r}")
    if not isinstance(attack, AnyAttack | None):
        raise TypeError(
            "attack must be attacks.dissensus(f) or a stage, medjax.attack(attacks.alie(), f), "
            f"got {attack!r}"
        )
    number = tau is not None and not isinstance(tau, Tracer) and np.ndim(tau) == 0
    clips = not (number and tau == math.inf)
    if tau is None and attack is None:
        raise ValueError(_NOBODY_KNOWN)
    if tau is not None and clips:  # a traced τ may be ∞ too
        checks.real("tau", tau, minimum=0.0, exclusive=True)
    n = topology.num_nodes
    between = topology.weights * (1 - np.eye(n))
    listen = _listening(attack, between)

    def init(params: PyTree) -> Any:
        if isinstance(attack, GossipAttack):
            nobody = jnp.zeros(attack.num_byzantine, bool)
            return AttackState(jnp.int32(0), stage_key(0, "attack"), nobody, "last")
        return () if attack is None else attack.init(params)

    def pull(own: Stacked, state: Any) -> tuple[Stacked, Any]:
        count_workers(own, expected=n)
        wide = jax.tree.map(lambda x: x.astype(at_least_float32(x.dtype)), own)
        heard, state = listen(wide, state)
        rows = _rows(wide)
        with jax.named_scope("gossip"):
            moves = _clipped(rows, heard, tau) if clips else _plain(rows, heard)
        leaves, treedef = jax.tree.flatten(wide)
        shaped = [x.reshape(like.shape) for x, like in zip(moves, leaves, strict=True)]
        return jax.tree.unflatten(treedef, shaped), state

    return Gossip(init, pull)


def _listening(
    attack: AnyAttack | None, between: Float[np.ndarray, "n n"]
) -> Callable[[Stacked, Any], tuple[_Heard, Any]]:
    """Return a function of (own vectors, the attack's state) to what nodes hear, and the state."""
    n = len(between)

    def honest(own: Stacked, state: Any) -> tuple[_Heard, Any]:
        nobody = None if attack is None else jnp.zeros(n, bool)
        return _Heard(_rows(own), between, byzantine=nobody), state

    if attack is None:
        return honest
    if not isinstance(attack, GossipAttack):
        stage = attack

        def to_all(own: Stacked, state: Any) -> tuple[_Heard, Any]:
            sent, state = stage.update(own, state)
            return _Heard(_rows(sent), between, byzantine=_byzantine(state, n)), state

        return to_all
    f, lies = attack.num_byzantine, attack.lies
    if f >= n:
        raise ValueError(
            f"{attack.name} needs an honest node, f < n, got f = {f} and n = {n} nodes"
        )
    h = n - f
    # Byzantine nodes themselves hear what the others are to send.
    told = between.copy()
    told[:h, h:] = 0
    share = np.append(between[:h, h:].sum(axis=1), np.zeros(f))

    def to_each(own: Stacked, state: Any) -> tuple[_Heard, Any]:
        rows = _rows(own)
        dtype = rows[0].dtype
        found = lies(
            [x[:h] for x in rows],
            jnp.asarray(between[:h, :h], dtype),
            jnp.asarray(share[:h], dtype),
        )
        bad = ~jnp.stack([jnp.isfinite(x).all() for x in found]).all()
        padded = [jnp.concatenate([a, x[h:]]) for a, x in zip(found, rows, strict=True)]
        heard = _Heard(rows, told, padded, share, jnp.arange(n) >= h)
        return heard, AttackState(state.step + 1, state.key, jnp.full(f, bad), "last")

    return honest if f == 0 else to_each


def _plain(own: Rows, heard: _Heard) -> Rows:
    """Return Σ_j W_ij (what i hears from j - x_i)."""
    return _moves(own, heard, heard.weights, heard.share, heard.sent)


def _clipped(own: Rows, heard: _Heard, tau: Tau) -> Rows:
    """Return Σ_j W_ij clip(what i hears from j - x_i, τ_i); what isn't finite counts as x_i."""
    vectors = vectors_of_rows(heard.sent)
    dtype = vectors.dtype
    distances = jnp.sqrt(vectors.squared_distances)
    if tau is None:
        radius = _radius(heard, vectors.squared_distances)
    else:
        radius = jnp.full(len(distances), tau, dtype) * vectors.unit

    def factors(distance: Array, radius: Array) -> Array:
        clipped = jnp.where(distance > radius, radius / distance, 1)
        return jnp.where(jnp.isfinite(distance), clipped, 0)

    weights = jnp.asarray(heard.weights, dtype) * factors(distances, radius[:, None])
    share, lies = heard.share, heard.lies
    if share is not None and lies is not None:
        squares = (
            jnp.sum((a - x) ** 2, axis=1).astype(dtype) for a, x in zip(lies, own, strict=True)
        )
        far = jnp.sqrt(sum(squares, jnp.zeros(len(share), dtype)))
        share = jnp.asarray(share, dtype) * factors(far, radius / vectors.unit)
        heard = heard._replace(
            lies=[jnp.where(share[:, None] == 0, x, a) for a, x in zip(lies, own, strict=True)]
        )
    sent = [jnp.where(vectors.finite[:, None], x, 0) for x in heard.sent]
    return _moves(own, heard, weights, share, sent)


def _moves(
    own: Rows,
    heard: _Heard,
    weights: Float[Array | np.ndarray, "n n"],
    share: Float[Array | np.ndarray, " n"] | None,
    sent: Rows,
) -> Rows:
    """Return Σ_j C_ij (sent_j - x_i), and the lies' part with the node's share."""

    def moves(x: Array, told: Array) -> Array:
        w = jnp.asarray(weights, x.dtype)
        return dot(w, told) - w.sum(axis=1)[:, None] * x

    found = [moves(x, told) for x, told in zip(own, sent, strict=True)]
    if heard.lies is None or share is None:
        return found
    return [
        move + jnp.asarray(share, x.dtype)[:, None] * (lie - x)
        for move, lie, x in zip(found, heard.lies, own, strict=True)
    ]


def _radius(heard: _Heard, squares: Float[Array, "n n"]) -> Float[Array, " n"]:
    """Return τ_i = √(Σ_{j honest} W_ij ‖x_j - x_i‖² / Σ_{j Byzantine} W_ij), in units."""
    if heard.byzantine is None:
        raise ValueError(_NOBODY_KNOWN)
    bad, weights = heard.byzantine[None], jnp.asarray(heard.weights, squares.dtype)
    varied = jnp.sum(jnp.where(bad, 0, weights * jnp.where(bad, 0, squares)), axis=1)
    share = jnp.sum(jnp.where(bad, weights, 0), axis=1)
    if heard.share is not None:
        share = share + jnp.asarray(heard.share, share.dtype)
    return jnp.where(share > 0, jnp.sqrt(varied / jnp.where(share > 0, share, 1)), jnp.inf)


def _byzantine(state: Any, num_nodes: int) -> Bool[Array, " n"] | None:
    """Return who is Byzantine, as far as the attacks in a state tell; None if there are none."""
    found = [
        x
        for x in jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, AttackState))
        if isinstance(x, AttackState)
    ]
    mask = jnp.zeros(num_nodes, bool)
    for attack in found:
        mask = mask.at[attack.split(num_nodes)[1]].set(True)
    return mask if found else None


def _rows(stacked: Stacked) -> Rows:
    """Return the vectors in parts, a matrix for each leaf."""
    return [x.reshape(x.shape[0], -1) for x in jax.tree.leaves(stacked)]

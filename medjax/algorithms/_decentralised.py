"""Decentralised algorithms: a model at each node of a graph, and no server."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from medjax._engine import checks
from medjax._engine.mesh import spread
from medjax._engine.precision import at_least_float32
from medjax._engine.random import Seed, stage_key
from medjax._engine.stacked import PyTree, Stacked, count_workers
from medjax.algorithms._bits import PerWorker, compressed, to_neighbours, vectors
from medjax.algorithms._gossip import AnyAttack, Gossip, Tau, gossip
from medjax.algorithms._server import LearningRate
from medjax.compressors import Compressor, PlainCompressor, compress
from medjax.compressors._compressor import as_compressor
from medjax.topologies import Topology
from medjax.workers import Algorithm
from medjax.workers._procedure import gradient, per_worker_state


class NodesState(NamedTuple):
    """The state of all nodes together.

    Attributes:
        rate: that of the step size.
        exchange: that of the attack on what nodes send.
        memory: what the algorithm keeps at each node, leaves (n, *shape).
    """

    rate: Any
    exchange: Any
    memory: Any = None


def d_psgd(
    topology: Topology,
    lr: LearningRate,
    *,
    adapt_first: bool = False,
    attack: AnyAttack | None = None,
) -> Algorithm:
    """Decentralised parallel SGD: each node averages with its neighbours, and takes a step.

        x_i ← Σ_j W_ij x_j - γ g_i(x_i);  adapt-then-combine: x_i ← Σ_j W_ij (x_j - γ g_j(x_j)).

    Lian et al. (2017). With a constant γ and heterogeneous data the nodes end near the optimum of
    the mean loss, a distance of order γ away; `gradient_tracking` ends there.

    Args:
        topology: W, such as `topologies.ring(8)`.
        lr: γ, a number (perhaps traced) or an optax schedule.
        adapt_first: whether nodes take the step before they average.
        attack: what Byzantine nodes send in place of their models: `attacks.dissensus(f)`; or a
            stage, by which they tell all neighbours the same, `medjax.attack(attacks.alie(), f)`.

    Raises:
        TypeError: if the topology or the attack isn't one.
        ValueError: if as many nodes are Byzantine as there are.
    """
    return _averaging(topology, lr, gossip(topology, attack), adapt_first)


def clipped_gossip(
    topology: Topology, lr: LearningRate, tau: Tau, *, attack: AnyAttack | None = None
) -> Algorithm:
    """ClippedGossip: no neighbour moves a node farther than its weight times τ.

        y_i = x_i - γ g_i(x_i);  x_i ← Σ_j W_ij (y_i + clip(y_j - y_i, τ_i)).

    He, Karimireddy and Jaggi (2022). clip(z, τ) is z · min(1, τ/‖z‖). What isn't finite counts as
    the node's own. The authors have momentum before it, `.preceded_by(worker_momentum(0.9, n))`.

    Args:
        topology: W.
        lr: γ, a number (perhaps traced) or an optax schedule.
        tau: τ > 0 of all nodes; may be traced, and ∞, which is `d_psgd` with `adapt_first`. None
            is the theory's, for which one needs to know who is Byzantine, as a simulation does:
            τ_i² = Σ_{j honest} W_ij ‖y_j - y_i‖² / Σ_{j Byzantine} W_ij, ∞ for a node without
            Byzantine neighbours. It balances what clipping takes from the honest neighbours, at
            most Σ_{j honest} W_ij ‖y_j - y_i‖²/τ_i, and what lies can do, Σ_{j Byzantine} W_ij τ_i.
        attack: as in `d_psgd`.

    Raises:
        TypeError: if the topology or the attack isn't one, or τ isn't a number.
        ValueError: if τ isn't positive, if it is None and nobody is known to be Byzantine, or if
            as many nodes are Byzantine as there are.
    """
    return _averaging(topology, lr, gossip(topology, attack, tau), adapt_first=True)


def gradient_tracking(
    topology: Topology, lr: LearningRate, *, attack: AnyAttack | None = None
) -> Algorithm:
    """Gradient tracking: nodes exchange an estimate of the mean gradient beside their models.

        t_i ← Σ_j W_ij t_j + g_i(x_i) - (g_i where the node was before)
        x_i ← Σ_j W_ij x_j - γ t_i.

    Nedić, Olshevsky and Shi (2017); Koloskova, Lin and Stich (2021). The t_i start at g_i; their
    mean is the mean gradient at every step. All nodes end at the optimum of the mean loss with a
    constant γ.

    Args:
        topology: W.
        lr: γ, a number (perhaps traced) or an optax schedule.
        attack: as in `d_psgd`, on the pairs (x_j, t_j).

    Raises:
        TypeError, ValueError: as `d_psgd`.
    """
    exchange = gossip(topology, attack)

    def start(params: PyTree) -> tuple[Stacked, Stacked]:
        zeros = _zeros(params, topology.num_nodes)
        return zeros, zeros

    def step(node: "_Step") -> "_Done":
        tracked, last = node.state.memory
        moves, sent = exchange.pull((node.params, tracked), node.state.exchange)
        new = jax.tree.map(
            lambda t, pulled, g, before: t + pulled + g - before,
            *(tracked, moves[1], node.gradients, last),
        )
        walk, rate = node.rate(new)
        return _Done(_sum(moves[0], walk), NodesState(rate, sent, (new, node.gradients)))

    return _algorithm(topology, lr, exchange, start, step, vectors(up=2))


def choco_sgd(
    topology: Topology,
    lr: LearningRate,
    compressor: Compressor | PlainCompressor,
    *,
    consensus_step: float | Array,
    key: Seed | None = None,
) -> Algorithm:
    """CHOCO-SGD: nodes send compressed differences from the copies that others have of them.

        y_i = x_i - γ g_i(x_i);  x̂_i ← x̂_i + Q(y_i - x̂_i);  x_i ← y_i + ζ Σ_j W_ij (x̂_j - x̂_i).

    Koloskova, Stich and Jaggi (2019). The x̂_i start at 0. Without compression and with ζ = 1 it is
    `d_psgd` with `adapt_first`.

    Args:
        topology: W.
        lr: γ, a number (perhaps traced) or an optax schedule.
        compressor: Q, such as `compressors.top_k(100)`. An unbiased one should be scaled down to a
            contraction.
        consensus_step: ζ in (0, 1], the smaller the more Q leaves out; may be traced.
        key: for a compressor that draws.

    Raises:
        TypeError: if the topology or the compressor isn't one, or ζ isn't a number.
        ValueError: if ζ is out of range, or the compressor draws and no key is given.
    """
    exchange = gossip(topology, None)
    checks.real("consensus_step", consensus_step, minimum=0.0, exclusive=True)
    checks.fraction("consensus_step", consensus_step)
    built = as_compressor(compressor)
    if built.needs_key and key is None:
        raise ValueError(f"{built.name} draws random numbers: give choco_sgd a key")
    stage = compress(built, None if key is None else stage_key(key, "choco_sgd"))

    def start(params: PyTree) -> tuple[Stacked, Any]:
        return _zeros(params, topology.num_nodes), stage.init(params)

    def step(node: "_Step") -> "_Done":
        copies, drawing = node.state.memory
        walk, rate = node.rate(node.gradients)
        new = jax.tree.map(jnp.subtract, _sum(node.params, walk), copies)
        sent, drawing = stage.update(new, drawing)
        copies = _sum(copies, sent)
        moves, _ = exchange.pull(copies, ())
        moves = jax.tree.map(lambda x: x * jnp.asarray(consensus_step, x.dtype), moves)
        return _Done(_sum(walk, moves), NodesState(rate, (), (copies, drawing)))

    return _algorithm(topology, lr, exchange, start, step, compressed(built))


def _averaging(
    topology: Topology, lr: LearningRate, exchange: Gossip, adapt_first: bool
) -> Algorithm:
    """Build x_i ← y_i + pull_i(y), y_i = x_i - γ g_i(x_i); or with pull_i(x) in its place."""

    def step(node: "_Step") -> "_Done":
        walk, rate = node.rate(node.gradients)
        own = _sum(node.params, walk) if adapt_first else node.params
        moves, sent = exchange.pull(own, node.state.exchange)
        return _Done(_sum(walk, moves), NodesState(rate, sent))

    return _algorithm(topology, lr, exchange, lambda params: None, step, vectors())


class _Step(NamedTuple):
    """All that a step starts from, in float32 at least.

    Attributes:
        params: all nodes' models.
        gradients: their gradients there.
        state: the state.
        rate: a direction to -γ times it, and the state of the step size.
    """

    params: Stacked
    gradients: Stacked
    state: NodesState
    rate: Callable[[Stacked], tuple[Stacked, Any]]


class _Done(NamedTuple):
    """The moves of all models in a step, and the state after it."""

    moves: Stacked
    state: NodesState


def _algorithm(
    topology: Topology,
    lr: LearningRate,
    exchange: Gossip,
    start: Callable[[PyTree], Any],
    step: Callable[[_Step], _Done],
    sent: PerWorker,
) -> Algorithm:
    """Build an algorithm whose nodes compute gradients at their models.

    Args:
        topology: the graph.
        lr: γ.
        exchange: what has the state of the attack.
        start: one node's parameters to all nodes' memory.
        step: a step.
        sent: the bits that a node sends to one neighbour.
    """
    checks.step_size("lr", lr)
    rate, n = optax.scale_by_learning_rate(lr), topology.num_nodes

    def init(params: PyTree) -> NodesState:
        return NodesState(rate.init(params), exchange.init(params), start(params))

    def update(
        updates: Stacked, state: Any, params: PyTree | None = None
    ) -> tuple[Stacked, NodesState]:
        if params is None:
            raise ValueError("a decentralised algorithm's update needs the nodes' parameters")
        count_workers(updates, expected=n)

        def move(direction: Stacked) -> tuple[Stacked, Any]:
            return rate.update(direction, state.rate)

        done = step(_Step(_wide(params), _wide(updates), state, move))
        moves = jax.tree.map(lambda x, like: x.astype(like.dtype), done.moves, params)
        return moves, done.state

    bits = to_neighbours(topology, sent)
    return Algorithm(gradient(), optax.GradientTransformation(init, update), bits=bits, nodes=n)


def _zeros(params: PyTree, num_nodes: int) -> Stacked:
    """Return zeros for all nodes, in float32 at least."""
    return spread(
        per_worker_state(lambda x: jax.tree.map(jnp.zeros_like, _wide(x)), params, num_nodes)
    )


def _wide(tree: PyTree) -> PyTree:
    def wide(x: Any) -> Array:
        return jnp.asarray(x, at_least_float32(jnp.result_type(x)))

    return jax.tree.map(wide, tree)


def _sum(x: PyTree, y: PyTree) -> PyTree:
    return jax.tree.map(lambda a, b: a + b.astype(a.dtype), x, y)

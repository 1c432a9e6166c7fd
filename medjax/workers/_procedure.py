"""Procedures: what each worker computes between two messages of the server."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from medjax._engine.stacked import PyTree

Index: TypeAlias = int | Int[Array, ""]


class Oracle(NamedTuple):
    """All that one worker knows and can compute in a round, besides its own state.

    Attributes:
        params: x, the common parameters; or the node's own, where each has some.
        gradient: (parameters, k, model state) to the gradient there of the worker's k-th batch of
            the round, and its model's state after it. The same k is the same batch, so that two
            points can share one.
        worker: the worker's index.
        num_workers: n, of all workers.
        model_state: the state of the worker's model; None without any.
    """

    params: PyTree
    gradient: Callable[[PyTree, Index, PyTree], tuple[PyTree, PyTree]]
    worker: Int[Array, ""]
    num_workers: int
    model_state: PyTree = None


class Sent(NamedTuple):
    """The result of a worker's round.

    Attributes:
        message: what the worker sends, a pytree of arrays.
        state: its own state after the round.
        model_state: that of its model.
    """

    message: PyTree
    state: PyTree = None
    model_state: PyTree = None


@dataclass(frozen=True)
class Procedure:
    """A pair of pure functions of one worker, which the engine runs for all, on any devices.

    Attributes:
        round: (oracle, broadcast, own state) to what it sends, and its states after the round.
        init: the parameters to a worker's own state at the start; None for none. It stays while
            the worker isn't among those who take part in a step.
        ask: (oracle, broadcast) to a first message in each round, whose average over the workers
            everybody gets as `broadcast["asked"]`; None for none. `broadcast` is then a dict, or
            None. Stages that precede the algorithm don't see these messages.
        average: the rule that averages them, such as `rules.mean(weights)`; None for the mean.
        is_gradient: whether a worker sends nothing but the gradient of its batch.
    """

    round: Callable[[Oracle, PyTree, PyTree], Sent]
    init: Callable[[PyTree], PyTree] | None = None
    ask: Callable[[Oracle, PyTree], PyTree] | None = None
    average: Callable[[PyTree], PyTree] | None = None
    is_gradient: bool = False


@dataclass(frozen=True)
class Algorithm:
    """An algorithm of more than gradients, in the place of an optimizer: see `medjax.algorithms`.

    Attributes:
        worker: what each worker does.
        optimizer: a chain over the stacked messages that ends in an update of the parameters.
        broadcast: the optimizer's state to what it tells the workers beside the parameters.
        like: the parameters to a worker's message, of which the shapes and dtypes count.
        bits: (parameters, m) to the bits that one of m workers sends in a round and those that it
            gets; None for a whole vector each. See `medjax.algorithms.communication`. A stage that
            precedes the algorithm doesn't change them, even if it compresses.
        nodes: n where there is no server, and each of n workers is a node with parameters of its
            own: the optimizer's updates and the parameters that it gets then have leaves
            (n, *shape). It is initialised from one node's. None for common parameters.
    """

    worker: Procedure
    optimizer: optax.GradientTransformation
    broadcast: Callable[[optax.OptState], PyTree] = lambda state: None
    like: Callable[[PyTree], PyTree] = lambda params: params
    bits: Callable[[PyTree, int], tuple[float, float]] | None = None
    nodes: int | None = None

    def preceded_by(self, stage: optax.GradientTransformation) -> "Algorithm":
        """Return the algorithm with a stage over all stacked messages, before the server's.

        Args:
            stage: an attack, noise, mixing, or any transform of stacked updates. It sees whole
                messages, whatever their entries. Where each node has parameters of its own, it
                sees none.
        """
        first = optax.with_extra_args_support(stage)
        last = optax.with_extra_args_support(self.optimizer)

        def init(params: PyTree) -> optax.OptState:
            return first.init(self.like(params)), last.init(params)

        def update(
            updates: PyTree, state: Any, params: PyTree | None = None, **extra_args: Any
        ) -> tuple[PyTree, optax.OptState]:
            common = params if self.nodes is None else None
            sent, stage_state = first.update(updates, state[0], common, **extra_args)
            updates, rest = last.update(sent, state[1], params, **extra_args)
            return updates, (stage_state, rest)

        def broadcast(state: Any) -> PyTree:
            return self.broadcast(state[1])

        chained = optax.GradientTransformationExtraArgs(init, update)
        return replace(self, optimizer=chained, broadcast=broadcast)


def gradient() -> Procedure:
    """Send the gradient of a batch at the common parameters."""

    def round(oracle: Oracle, broadcast: PyTree, state: PyTree) -> Sent:
        del broadcast
        found, model_state = oracle.gradient(oracle.params, 0, oracle.model_state)
        return Sent(found, state, model_state)

    return Procedure(round, is_gradient=True)


def per_worker_state(make: Callable[[PyTree], PyTree], params: PyTree, num_workers: int) -> PyTree:
    """Return n copies of what is made of the parameters, leaves (n, ...)."""

    def copies(x: Any) -> Array:
        x = jnp.asarray(x, jnp.result_type(x))
        return jnp.broadcast_to(x, (num_workers, *x.shape))

    return jax.tree.map(copies, make(params))

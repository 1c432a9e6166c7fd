"""Parameters of a run: common ones, or those of each node of a graph."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from medjax._engine.mesh import cut, spread
from medjax._engine.participation import check_cohort
from medjax._engine.precision import at_least_float32
from medjax._engine.stacked import PyTree, Stacked, Updates
from medjax.training._honest import Split, average_state
from medjax.workers import Algorithm
from medjax.workers._procedure import per_worker_state


def check_cohorts(algorithm: Algorithm, participants: int | None) -> None:
    """Check that all nodes of a graph take part in each step.

    Raises:
        ValueError: if not.
    """
    if algorithm.nodes is not None and participants is not None:
        raise ValueError(
            f"participants is for a server with workers, got {participants}: the algorithm is "
            f"decentralised, and all its {algorithm.nodes} nodes take part in each step"
        )


def first_params(algorithm: Algorithm, params: PyTree, num_workers: int | None) -> PyTree:
    """Return what the run starts with: the parameters, or a copy for each node.

    Raises:
        ValueError: if the workers aren't as many as the nodes.
    """
    n = algorithm.nodes
    if n is None:
        return params
    check_cohort("the topology", n, n if num_workers is None else num_workers)
    return spread(per_worker_state(lambda x: x, params, n))


def placed(algorithm: Algorithm, params: PyTree) -> PyTree:
    """Place the parameters after a step on the devices."""
    return cut(params) if algorithm.nodes is None else spread(params)


def one_model(algorithm: Algorithm, params: PyTree) -> PyTree:
    """Return the common parameters, or the shapes and dtypes of one node's."""
    if algorithm.nodes is None:
        return params
    return jax.eval_shape(lambda tree: jax.tree.map(lambda x: x[0], tree), params)


def measured_model(params: PyTree, split: Split, nodes: int | None) -> PyTree:
    """Return the common parameters, or the mean of the honest nodes'."""
    return params if nodes is None else average_state(params, split)


def consensus_distance(params: Stacked, split: Split) -> Float[Array, ""]:
    """Return √((1/h) Σ_i ‖x_i - x̄‖²) of the h honest nodes, x̄ their mean."""

    def squares(x: Array) -> Array:
        x = x[split.honest].astype(at_least_float32(x.dtype))
        return jnp.sum((x - x.mean(axis=0, keepdims=True)) ** 2) / x.shape[0]

    return jnp.sqrt(sum(map(squares, jax.tree.leaves(params)), jnp.zeros(())))


def check_updates(updates: Updates, params: PyTree, nodes: int | None) -> None:
    """Check that an optimizer's updates have the shapes of the parameters.

    Raises:
        ValueError: if not.
    """
    got, want = ([jnp.shape(x) for x in jax.tree.leaves(tree)] for tree in (updates, params))
    if got == want:
        return
    if nodes is None:
        wrong = "the optimizer must drop the worker axis, with medjax.aggregate(rule) in its chain"
    else:
        wrong = "a decentralised algorithm's updates are those of all nodes"
    raise ValueError(f"{wrong}: its updates have shapes {got}, the parameters {want}")

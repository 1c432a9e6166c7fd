"""Objectives: what `simulate` minimises, as the losses of single examples.

An objective is a function (params, batch) to (losses, metrics): `losses` has shape (B,), one number
for each example of the batch, and `metrics` names more such arrays, for example `accuracy`. The
simulator averages them, so that padded examples and unequal workers are weighed correctly.

An objective that draws random numbers, for dropout say, has one more argument, `key`. It is given a
key of its own for each worker and step in training, and None when something is measured. A model
with a state of its own, such as batch statistics, makes a `Stateful` objective: each worker keeps
its own state.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Int, Key

from medjax._engine import checks
from medjax._engine.plain import accepts_key
from medjax._engine.random import MaybeKey, stage_key
from medjax._engine.stacked import PyTree

Losses: TypeAlias = tuple[Float[Array, " B"], dict[str, Float[Array, " B"]]]
"""The losses of the B examples of a batch, and other metrics of them by name."""


@dataclass(frozen=True)
class Stateful:
    """An objective of a model with a state that training changes, such as batch statistics.

    Every worker has its own state. Training calls the function with a key and keeps the state that
    it returns; measuring calls it with None for the key, and drops that state. Held-out data are
    measured with the average of the workers' states. In a full batch, a worker with fewer examples
    than the largest sees some of them again; batches of a given size have no such padding.

    Attributes:
        function: (params, state, batch, key) to (losses, metrics, new state).
        state: the state that every worker starts with, a pytree of arrays.
    """

    function: Callable[
        [PyTree, PyTree, PyTree, MaybeKey],
        tuple[Float[Array, " B"], dict[str, Float[Array, " B"]], PyTree],
    ]
    state: PyTree


Objective: TypeAlias = Callable[..., Losses] | Stateful
"""(params, batch), or (params, batch, key), to `Losses`; or a `Stateful` objective."""


def classification(
    apply: Callable[..., Any], state: PyTree | None = None
) -> Callable[..., Losses] | Stateful:
    """Build the softmax cross-entropy of a classifier, with its accuracy.

    Args:
        apply: (params, inputs) to logits, such as a flax model's `apply`; with one more argument
            `key`, if it draws. With a state: (params, state, inputs, key) to logits and the new
            state.
        state: where the state of each worker's model starts; None for a model without one.

    Returns:
        An objective whose batch is a pair (inputs (B, ...), integer labels (B,)).

    >>> import jax.numpy as jnp
    >>> objective = classification(lambda w, x: x @ w)
    >>> losses, metrics = objective(jnp.zeros((3, 2)), (jnp.ones((4, 3)), jnp.array([0, 0, 1, 0])))
    >>> print(losses.round(3), metrics["accuracy"])
    [0.693 0.693 0.693 0.693] [1. 1. 0. 1.]
    """
    return _of_logits(apply, state, lambda x: x)


def language_modelling(
    apply: Callable[..., Any], state: PyTree | None = None
) -> Callable[..., Losses] | Stateful:
    """Build the cross-entropy of the next token, averaged over the places of a window.

    An example is one window of T tokens, with its T next tokens as labels, and its loss is
    -(1/T) Σ_t log softmax(logits_t)[label_t]: every place weighs the same.

    Args:
        apply: (params, tokens) to logits (B, T, K), or as in `classification`.
        state: as in `classification`.

    Returns:
        An objective whose batch is a pair (integer tokens (B, T), integer next tokens (B, T)).

    >>> import jax.numpy as jnp
    >>> objective = language_modelling(lambda w, x: w[x])
    >>> windows = jnp.array([[0, 1], [1, 1]]), jnp.array([[0, 1], [0, 0]])
    >>> losses, metrics = objective(jnp.zeros((2, 2)), windows)
    >>> print(losses.round(3), metrics["accuracy"])
    [0.693 0.693] [0.5 1. ]
    """
    return _of_logits(apply, state, lambda x: x.mean(axis=-1))


def augmented(objective: Objective, augment: Callable[[Any, Key[Array, ""]], Any]) -> Objective:
    """Change the inputs of an objective at random in training; measuring sees them unchanged.

    Args:
        objective: an objective whose batch is a pair (inputs, labels).
        augment: (inputs (B, ...), key) to inputs of the same shape. The key is the worker's and
            the step's own.

    Returns:
        An objective of the same kind, which draws.

    >>> import jax, jax.numpy as jnp
    >>> plain = classification(lambda w, x: x @ w)
    >>> objective = augmented(plain, lambda x, key: x + jax.random.normal(key, x.shape))
    >>> batch = jnp.ones((2, 3)), jnp.array([0, 1])
    >>> measured, _ = objective(jnp.eye(3), batch)
    >>> trained, _ = objective(jnp.eye(3), batch, key=jax.random.key(0))
    >>> print(measured.round(3), (trained != measured).all())
    [1.099... 1.099...] True
    """

    def changed(batch: PyTree, key: MaybeKey) -> PyTree:
        if key is None:
            return batch
        inputs, labels = batch
        return augment(inputs, stage_key(key, "augment")), labels

    if isinstance(objective, Stateful):
        function = objective.function

        def with_state(params: PyTree, state: PyTree, batch: PyTree, key: MaybeKey) -> Any:
            return function(params, state, changed(batch, key), key)

        return Stateful(with_state, objective.state)
    draws = accepts_key(objective)

    def with_key(params: PyTree, batch: PyTree, key: MaybeKey = None) -> Losses:
        given = {"key": key} if draws else {}
        return objective(params, changed(batch, key), **given)

    return with_key


def gradient_on(
    objective: Objective,
    batch: PyTree,
    local_steps: int | None = None,
    local_lr: float | Float[Array, ""] | None = None,
) -> Callable[[PyTree], PyTree]:
    """Build the gradient of an objective's average loss on a fixed batch, such as a server's own.

    An objective that draws gets None for its key, as when it is measured.

    Args:
        objective: an objective without a state.
        batch: the examples, as the objective takes them.
        local_steps: K, to go K steps of length γ along the gradients and return their sum, which is
            what a worker sends after K local steps; None for the gradient itself.
        local_lr: γ; perhaps traced.

    Returns:
        A function of the parameters.

    Raises:
        TypeError: if the objective has a state.
        ValueError: if only one of K and γ is given, or K is below 1.

    >>> import jax.numpy as jnp
    >>> at = gradient_on(lambda w, x: ((w - x) ** 2 / 2, {}), jnp.array([1.0, 3.0]))
    >>> print(at(jnp.array(5.0)))
    3.0
    """
    if isinstance(objective, Stateful):
        raise TypeError("objective must be one without a state")
    if (local_steps is None) != (local_lr is None):
        raise ValueError("local_steps and local_lr must be given together")
    steps = 1 if local_steps is None else checks.integer("local_steps", local_steps, minimum=1)

    def gradient(params: PyTree) -> PyTree:
        return jax.grad(lambda p: jnp.mean(objective(p, batch)[0]))(params)

    def sum_of_gradients(params: PyTree) -> PyTree:
        def step(_: Array, total: PyTree) -> PyTree:
            moved = jax.tree.map(lambda p, g: (p - local_lr * g).astype(p.dtype), params, total)
            return jax.tree.map(jnp.add, total, gradient(moved))

        return lax.fori_loop(1, steps, step, gradient(params))

    return gradient if steps == 1 else sum_of_gradients


def _of_logits(
    apply: Callable[..., Any], state: PyTree | None, average: Callable[[Array], Array]
) -> Callable[..., Losses] | Stateful:
    def measure(logits: Float[Array, "B ... K"], labels: Int[Array, "B ..."]) -> Losses:
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        accuracy = (jnp.argmax(logits, axis=-1) == labels).astype(logits.dtype)
        return average(losses), {"accuracy": average(accuracy)}

    if state is not None:

        def with_state(params: PyTree, state: PyTree, batch: PyTree, key: MaybeKey) -> Any:
            logits, state = apply(params, state, batch[0], key)
            return *measure(logits, batch[1]), state

        return Stateful(with_state, state)

    if accepts_key(apply):

        def with_key(params: PyTree, batch: PyTree, key: MaybeKey = None) -> Losses:
            return measure(apply(params, batch[0], key=key), batch[1])

        return with_key
    return lambda params, batch: measure(apply(params, batch[0]), batch[1])

"""Objectives: what `simulate` minimises, as the losses of single examples.

An objective is a function (params, batch) to (losses, metrics): `losses` has shape (B,), one number
for each example of the batch, and `metrics` names more such arrays, `accuracy` for one. The
simulator does the averaging, so that padded examples and unequal workers are weighed right. It also
chooses which examples are in one batch, several workers' perhaps: they mustn't affect each other's
losses, as batch normalisation would make them do.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

Objective: TypeAlias = Callable[
    [PyTree, PyTree], tuple[Float[Array, " B"], dict[str, Float[Array, " B"]]]
]
"""(params, batch) to the losses of the B examples, and to other metrics of them by name."""


def classification(apply: Callable[[Any, Array], Float[Array, "B K"]]) -> Objective:
    """Softmax cross-entropy and accuracy of a classifier.

    Args:
        apply: (params, inputs) to logits, such as a flax model's `apply`.

    Returns:
        An objective whose batch is a pair (inputs (B, ...), integer labels (B,)).

    >>> import jax.numpy as jnp
    >>> objective = classification(lambda w, x: x @ w)
    >>> losses, metrics = objective(jnp.zeros((3, 2)), (jnp.ones((4, 3)), jnp.array([0, 0, 1, 0])))
    >>> print(losses.round(3), metrics["accuracy"])
    [0.693 0.693 0.693 0.693] [1. 1. 0. 1.]
    """

    def objective(
        params: PyTree, batch: tuple[Float[Array, "B ..."], Int[Array, " B"]]
    ) -> tuple[Float[Array, " B"], dict[str, Float[Array, " B"]]]:
        inputs, labels = batch
        logits = apply(params, inputs)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        accuracy = (jnp.argmax(logits, axis=-1) == labels).astype(logits.dtype)
        return losses, {"accuracy": accuracy}

    return objective


def language_modelling(apply: Callable[[Any, Array], Float[Array, "B T K"]]) -> Objective:
    """Cross-entropy and accuracy of the next token, averaged over the places of a window.

    An example is one window of T tokens, with its T next tokens as labels, and its loss is
    -(1/T) sum_t log softmax(logits_t)[label_t]: every place weighs the same.

    Args:
        apply: (params, tokens) to logits, such as a flax model's `apply`.

    Returns:
        An objective whose batch is a pair (integer tokens (B, T), integer next tokens (B, T)).

    >>> import jax.numpy as jnp
    >>> objective = language_modelling(lambda w, x: w[x])
    >>> windows = jnp.array([[0, 1], [1, 1]]), jnp.array([[0, 1], [0, 0]])
    >>> losses, metrics = objective(jnp.zeros((2, 2)), windows)
    >>> print(losses.round(3), metrics["accuracy"])
    [0.693 0.693] [0.5 1. ]
    """
    by_place = classification(apply)

    def objective(
        params: PyTree, batch: tuple[Int[Array, "B T"], Int[Array, "B T"]]
    ) -> tuple[Float[Array, " B"], dict[str, Float[Array, " B"]]]:
        losses, metrics = by_place(params, batch)
        return losses.mean(axis=-1), {name: m.mean(axis=-1) for name, m in metrics.items()}

    return objective

"""Several steps of a worker on its own, between two messages."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Int

from medjax._engine import checks
from medjax._engine.precision import as_optax_promotes, at_least_float32
from medjax._engine.stacked import PyTree
from medjax.workers._procedure import Algorithm, Oracle, Procedure, Sent, gradient

LearningRate = float | Float[Array, ""]
Correct = Callable[[PyTree, PyTree, Any], PyTree]
"""(gradient, the parameters where it is, k) to the direction of a step."""


class Walk(NamedTuple):
    """A worker's steps of SGD on its own.

    Attributes:
        sums: the sum of the steps' directions, (x - y)/γ, in float32 at least.
        model_state: the model's state after them.
    """

    sums: PyTree
    model_state: PyTree

    def scaled(self, factor: float | Array, like: PyTree) -> PyTree:
        """Return factor · sums, in the dtypes of others: by γ it is x - y."""
        return jax.tree.map(lambda s, x: (factor * s).astype(x.dtype), self.sums, like)


def walk(
    oracle: Oracle,
    num_steps: int | Int[Array, ""],
    learning_rate: LearningRate,
    correct: Correct = lambda gradient, at, k: gradient,
) -> Walk:
    """Take K steps from the common parameters, y ← y - γ · correct(g(y), y, k).

    The sum of the directions is kept, and y made from it. Nothing is lost by taking a difference of
    models, nor by steps too small for half precision.

    Args:
        oracle: the worker's.
        num_steps: K; may be traced.
        learning_rate: γ.
        correct: the gradient to the direction of a step.
    """
    x = oracle.params

    def moved(x: Array, s: Array) -> Array:
        return (x.astype(s.dtype) - learning_rate * s).astype(x.dtype)

    def step(k: Array, carry: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
        sums, model_state = carry
        y = jax.tree.map(moved, x, sums)
        found, model_state = oracle.gradient(y, k, model_state)
        direction = correct(found, y, k)
        return jax.tree.map(lambda s, g: s + g.astype(s.dtype), sums, direction), model_state

    start = jax.tree.map(lambda x: jnp.zeros(x.shape, at_least_float32(x.dtype)), x)
    return Walk(*lax.fori_loop(0, num_steps, step, (start, oracle.model_state)))


def local_sgd(num_steps: int, learning_rate: LearningRate) -> Procedure:
    """Send (x - y)/γ after K steps of SGD of length γ, which is the sum of their gradients.

    Args:
        num_steps: K.
        learning_rate: γ.
    """

    def round(oracle: Oracle, broadcast: PyTree, state: PyTree) -> Sent:
        del broadcast
        found = walk(oracle, num_steps, learning_rate)
        return Sent(found.scaled(1.0, oracle.params), state, found.model_state)

    return Procedure(round)


def steps_of(
    num_steps: int, optimizer: optax.GradientTransformation, *, keep_state: bool
) -> Procedure:
    """Send x - y after K steps of any optax optimizer.

    Args:
        num_steps: K.
        optimizer: the optimizer.
        keep_state: whether its state stays with the worker, or begins anew in each round.

    Raises:
        TypeError: if the optimizer isn't one.
    """
    check_optimizer("local_optimizer", optimizer, "an optax transformation")

    def round(oracle: Oracle, broadcast: PyTree, state: PyTree) -> Sent:
        del broadcast
        x = oracle.params

        def step(k: Array, carry: Any) -> Any:
            y, opt_state, model_state = carry
            found, model_state = oracle.gradient(y, k, model_state)
            with as_optax_promotes():
                updates, opt_state = optimizer.update(found, opt_state, y)
            return optax.apply_updates(y, updates), opt_state, model_state

        opt_state = state if keep_state else optimizer.init(x)
        start = (x, opt_state, oracle.model_state)
        y, opt_state, model_state = lax.fori_loop(0, num_steps, step, start)
        moved = jax.tree.map(jnp.subtract, x, y)
        return Sent(moved, opt_state if keep_state else None, model_state)

    return Procedure(round, optimizer.init if keep_state else None)


def as_algorithm(
    optimizer: optax.GradientTransformation | Algorithm,
    local_steps: int | None,
    local_lr: LearningRate | None,
) -> Algorithm:
    """Return an algorithm as it is, and an optimizer as one of gradients or of local steps.

    Args:
        optimizer: either.
        local_steps: K, for an optimizer; None for gradients.
        local_lr: γ, to be given with K.

    Raises:
        ValueError: if one of K and γ is out of range, is given without the other, or for an
            algorithm.
        TypeError: if K isn't a static integer, γ isn't a number, or the optimizer is none.
    """
    if isinstance(optimizer, Algorithm):
        if local_steps is not None or local_lr is not None:
            raise ValueError(
                "local_steps and local_lr go with an optimizer: the algorithm has its own"
            )
        return optimizer
    check_optimizer(
        "optimizer", optimizer, "an optax transformation, or an algorithm of medjax.algorithms"
    )
    if local_steps is None and local_lr is None:
        return Algorithm(gradient(), optimizer)
    if local_steps is None or local_lr is None:
        raise ValueError(
            "local_steps and local_lr are given together or not at all, "
            f"got local_steps = {local_steps} and local_lr = {local_lr}"
        )
    num_steps = check_local_steps(local_steps, local_lr)
    return Algorithm(gradient() if num_steps == 1 else local_sgd(num_steps, local_lr), optimizer)


def check_optimizer(name: str, optimizer: object, valid: str) -> None:
    """Check that it is an optimizer.

    Raises:
        TypeError: if not.
    """
    if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        raise TypeError(f"{name} must be {valid}, got {optimizer!r}")


def check_local_steps(local_steps: int, local_lr: LearningRate) -> int:
    """Check K and γ, and return K.

    Raises:
        ValueError: if one is out of range.
        TypeError: if K isn't a static integer, or γ isn't a number.
    """
    checks.real("local_lr", local_lr, minimum=0.0, exclusive=True)
    return checks.integer("local_steps", local_steps, minimum=1)

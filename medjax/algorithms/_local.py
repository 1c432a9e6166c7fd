"""Algorithms whose workers take several steps on their own between two averages."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from medjax._engine import checks
from medjax._engine.random import Seed
from medjax._engine.stacked import PyTree
from medjax.algorithms._server import (
    AnyRule,
    LearningRate,
    Received,
    aggregated,
    averaging,
    moved_by,
    of_worker,
    one_or_all,
    remembering,
    scaled,
)
from medjax.workers import Algorithm, Oracle, Procedure, Sent
from medjax.workers._local_steps import (
    LearningRate as LocalRate,
)
from medjax.workers._local_steps import (
    check_local_steps,
    local_sgd,
    steps_of,
    walk,
)


def fedavg(
    local_steps: int,
    local_lr: LocalRate | None = None,
    server_lr: LearningRate = 1.0,
    *,
    local_optimizer: optax.GradientTransformation | None = None,
    rule: AnyRule | None = None,
    key: Seed | None = None,
) -> Algorithm:
    """Federated averaging: K steps of SGD at each worker, then the average of the models.

        y ← y - γ g_i(y), K times from x;  x ← x + η mean_i (y_i - x).

    McMahan et al. (2017). A worker sends (x - y_i)/γ, the sum of its gradients, and the server
    scales by γ. Other optimizers than SGD, whose state begins anew in each round, are given in
    place of γ; then it sends x - y_i.

    Args:
        local_steps: K.
        local_lr: γ; None with an optimizer.
        server_lr: η, a number (perhaps traced) or an optax schedule.
        local_optimizer: the workers' own, in place of SGD of length γ.
        rule: in place of the mean of what is sent: a radius, say, is one of sums of gradients.
        key: for a rule that draws.

    Raises:
        ValueError: if a number is out of range, or not one of γ and the optimizer is given.
        TypeError: if K isn't a static integer.
    """
    if (local_lr is None) == (local_optimizer is None):
        raise ValueError("fedavg takes local_lr or local_optimizer, and not both")
    if local_optimizer is not None:
        num_steps = checks.integer("local_steps", local_steps, minimum=1)
        worker = steps_of(num_steps, local_optimizer, keep_state=False)
        return Algorithm(worker, averaging(rule, server_lr, key))
    assert local_lr is not None
    num_steps = check_local_steps(local_steps, local_lr)
    server = optax.chain(averaging(rule, server_lr, key), optax.scale(local_lr))
    return Algorithm(local_sgd(num_steps, local_lr), server)


def fedprox(
    local_steps: int,
    local_lr: LocalRate,
    server_lr: LearningRate = 1.0,
    *,
    mu: float | Array,
    rule: AnyRule | None = None,
    key: Seed | None = None,
) -> Algorithm:
    """FedProx: local steps that are pulled back to the common model.

        y ← y - γ (g_i(y) + μ (y - x)), K times from x;  x ← x + η mean_i (y_i - x).

    Li et al. (2020). A worker sends (x - y_i)/γ. μ = 0 is `fedavg`.

    Args:
        local_steps: K.
        local_lr: γ.
        server_lr: η.
        mu: μ ≥ 0; may be traced.
        rule: in place of the mean of what is sent.
        key: for a rule that draws.

    Raises:
        ValueError: if a number is out of range.
        TypeError: if K isn't a static integer, or another isn't a number.
    """
    num_steps = check_local_steps(local_steps, local_lr)
    checks.real("mu", mu, minimum=0.0)

    def round(oracle: Oracle, broadcast: PyTree, state: PyTree) -> Sent:
        del broadcast

        def correct(g: PyTree, y: PyTree, k: int | Array) -> PyTree:
            del k
            return jax.tree.map(lambda g, y, x: g + mu * (y - x), g, y, oracle.params)

        found = walk(oracle, num_steps, local_lr, correct)
        return Sent(found.scaled(1.0, oracle.params), state, found.model_state)

    server = optax.chain(averaging(rule, server_lr, key), optax.scale(local_lr))
    return Algorithm(Procedure(round), server)


def fednova(
    local_steps: int | Sequence[int],
    local_lr: LocalRate,
    server_lr: LearningRate = 1.0,
    *,
    rule: AnyRule | None = None,
    key: Seed | None = None,
) -> Algorithm:
    """FedNova: unequal numbers of local steps, each worker's drift divided by its own.

        d_i = (x - y_i)/(γ τ_i) after τ_i steps;  x ← x - η γ τ̄ mean_i d_i,  τ̄ = mean_i τ_i.

    Wang et al. (2020). `fedavg` with unequal τ_i converges to the optimum of another objective, in
    which worker i weighs τ_i. With a weighted mean as the rule, τ̄ has its weights.

    Args:
        local_steps: the τ_i of the n workers; or one number for all, which is `fedavg`.
        local_lr: γ.
        server_lr: η.
        rule: in place of the mean of the d_i.
        key: for a rule that draws.

    Raises:
        ValueError: if a number is out of range; while tracing, if other than n or one are given.
        TypeError: if a τ_i isn't a static integer, or another isn't a number.
    """
    each = [check_local_steps(steps, local_lr) for steps in one_or_all("local_steps", local_steps)]

    def round(oracle: Oracle, broadcast: PyTree, state: PyTree) -> Sent:
        del broadcast
        steps = of_worker("local_steps", each, oracle)
        found = walk(oracle, steps, local_lr)
        sent = found.scaled(1 / steps.astype(jnp.float32), oracle.params)
        return Sent(sent, state, found.model_state)

    def step(received: Received, memory: None) -> tuple[PyTree, None]:
        steps, weights = jnp.asarray(each, jnp.float32), received.weights
        if len(each) > 1 and received.workers is not None:
            steps = steps[received.workers]
        average = jnp.mean(steps) if len(each) == 1 or weights is None else weights @ steps
        return scaled(received.update, local_lr * average), memory

    server = moved_by(remembering(rule, lambda params: None, step, key), server_lr)
    return Algorithm(Procedure(round), server)


def diloco(
    local_steps: int,
    local_optimizer: optax.GradientTransformation,
    server_lr: LearningRate = 0.7,
    *,
    momentum: float | Array = 0.9,
    rule: AnyRule | None = None,
    key: Seed | None = None,
) -> Algorithm:
    """DiLoCo: an optimizer at each worker that keeps its state, Nesterov's momentum at the server.

        y_i: H steps of the optimizer from x;  Δ = mean_i (x - y_i) into SGD with momentum.

    Douillard et al. (2023), whose workers have AdamW; with `optax.contrib.muon` it is MuLoCo.

    Args:
        local_steps: H.
        local_optimizer: the workers' own, such as `optax.adamw(1e-3)`.
        server_lr: the server's step size.
        momentum: the server's.
        rule: in place of the mean.
        key: for a rule that draws.

    Raises:
        ValueError: if a number is out of range.
        TypeError: if H isn't a static integer, or a number isn't one.
    """
    num_steps = checks.integer("local_steps", local_steps, minimum=1)
    checks.fraction("momentum", momentum, below_one=True)
    checks.step_size("server_lr", server_lr)
    server = optax.chain(
        aggregated(rule, key), optax.sgd(server_lr, momentum=momentum, nesterov=True)
    )
    return Algorithm(steps_of(num_steps, local_optimizer, keep_state=True), server)

"""Algorithms that correct a worker's steps for what its data have of their own."""

import jax
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from medjax._engine import checks
from medjax._engine.random import Seed
from medjax._engine.stacked import PyTree
from medjax.algorithms._bits import vectors
from medjax.algorithms._server import (
    AnyRule,
    LearningRate,
    Message,
    Received,
    add,
    average_of,
    averaged,
    memory_of,
    moved_by,
    remembering,
    scaled,
    zeros_like,
)
from medjax.workers import Algorithm, Oracle, Procedure, Sent
from medjax.workers._local_steps import LearningRate as LocalRate
from medjax.workers._local_steps import check_local_steps, walk


def scaffold(
    local_steps: int,
    local_lr: LocalRate,
    server_lr: LearningRate = 1.0,
    *,
    option: str = "II",
    rule: AnyRule | None = None,
    key: Seed | None = None,
) -> Algorithm:
    """SCAFFOLD: control variates, one of each worker and one of them all.

        y ← y - γ (g_i(y) - c_i + c), K times from x;  x ← x + η mean_{i∈S} (y_i - x)
        c_i⁺ = g_i(x) (option I), or c_i - c + (x - y_i)/(Kγ) (option II)
        c ← c + (1/n) Σ_{i∈S} (c_i⁺ - c_i).

    Karimireddy et al. (2020). All variates start at 0. A worker sends (x - y_i)/γ, by option I with
    the change of its variate.

    Args:
        local_steps: K.
        local_lr: γ.
        server_lr: η.
        option: "I" for another gradient at x, "II" for the average of those on the way.
        rule: in place of the mean of the (x - y_i)/γ, and by option II of the variates' changes,
            which follow from them; by option I these are averaged.
        key: for a rule that draws.

    Raises:
        ValueError: if a number is out of range, or there is no such option.
        TypeError: if K isn't a static integer, or another isn't a number.
    """
    num_steps = check_local_steps(local_steps, local_lr)
    checks.option("option", option, ("I", "II"))
    from_steps = option == "II"

    def round(oracle: Oracle, c: PyTree, own: PyTree) -> Sent:
        def correct(g: PyTree, y: PyTree, k: int | Array) -> PyTree:
            del y, k
            return jax.tree.map(lambda g, own, c: g.astype(c.dtype) - own + c, g, own, c)

        found = walk(oracle, num_steps, local_lr, correct)
        sums = found.scaled(1.0, oracle.params)
        if from_steps:
            new = add(add(own, c, -1.0), sums, 1 / num_steps)
            return Sent(sums, new, found.model_state)
        at_x, _ = oracle.gradient(oracle.params, 0, oracle.model_state)
        change = add(at_x, own, -1.0)
        return Sent(Message(sums, change), add(own, change), found.model_state)

    def step(received: Received, c: PyTree) -> tuple[PyTree, PyTree]:
        # By option II the change of a variate follows from the sum of the steps: the server needs
        # no second vector.
        change = received.other
        if from_steps:
            change = add(scaled(c, -1.0), received.update, 1 / num_steps)
        return scaled(received.update, local_lr), add(c, change, received.share)

    server = moved_by(remembering(rule, zeros_like, step, key), server_lr)
    return Algorithm(
        Procedure(round, zeros_like),
        server,
        memory_of,
        lambda params: params if from_steps else Message(params, params),
        vectors(up=1 if from_steps else 2, down=2),
    )


def feddyn(
    local_steps: int,
    local_lr: LocalRate,
    server_lr: LearningRate = 1.0,
    *,
    alpha: float | Array,
    rule: AnyRule | None = None,
    key: Seed | None = None,
) -> Algorithm:
    """FedDyn: each worker's objective is regularised anew in each round.

        y ← y - γ (g_i(y) - h_i + α (y - x)), K times from x;  h_i ← h_i - α (y_i - x)
        h ← h - (α/n) Σ_{i∈S} (y_i - x);  x ← x + η (mean_{i∈S} y_i - x - h/α).

    Acar et al. (2021), whose η is 1.

    Args:
        local_steps: K.
        local_lr: γ.
        server_lr: η.
        alpha: α > 0; may be traced.
        rule: in place of the mean of the moves.
        key: for a rule that draws.

    Raises:
        ValueError: if a number is out of range.
        TypeError: if K isn't a static integer, or another isn't a number.
    """
    num_steps = check_local_steps(local_steps, local_lr)
    checks.real("alpha", alpha, minimum=0.0, exclusive=True)

    def round(oracle: Oracle, broadcast: PyTree, own: PyTree) -> Sent:
        del broadcast

        def correct(g: PyTree, y: PyTree, k: int | Array) -> PyTree:
            del k
            return jax.tree.map(
                lambda g, h, y, x: g.astype(h.dtype) - h + alpha * (y - x).astype(h.dtype),
                *(g, own, y, oracle.params),
            )

        found = walk(oracle, num_steps, local_lr, correct)
        moved = found.scaled(local_lr, oracle.params)
        return Sent(moved, add(own, moved, alpha), found.model_state)

    def step(received: Received, h: PyTree) -> tuple[PyTree, PyTree]:
        h = add(h, received.update, alpha * received.share)
        return add(received.update, h, 1 / alpha), h

    server = moved_by(remembering(rule, zeros_like, step, key), server_lr)
    return Algorithm(Procedure(round, zeros_like), server)


def mime(
    local_steps: int,
    local_lr: LocalRate,
    server_lr: LearningRate = 1.0,
    *,
    beta: float | Array = 0.0,
    rule: AnyRule | None = None,
    key: Seed | None = None,
) -> Algorithm:
    """Mime: local steps with the server's momentum, corrected by the mean gradient of the round.

        y ← y - γ ((1 - β) (g_i(y) - g_i(x) + c) + β M), K times from x, one batch at both points
        x ← x + η mean_i (y_i - x);  M ← (1 - β) c + β M,  c = mean_i ∇f_i(x).

    Karimireddy et al. (2020b). c is the mean of the gradients at x of a batch of each worker, which
    the workers send before their steps: two messages a round. No attack or other stage sees that
    first one: also Byzantine workers are honest in it.

    Args:
        local_steps: K.
        local_lr: γ.
        server_lr: η.
        beta: β in [0, 1); may be traced.
        rule: in place of the mean of the moves.
        key: for a rule that draws.

    Raises:
        ValueError: if a number is out of range.
        TypeError: if K isn't a static integer, or another isn't a number.
    """
    return _mime(local_steps, local_lr, server_lr, beta, rule, key, corrected=True)


def mime_lite(
    local_steps: int,
    local_lr: LocalRate,
    server_lr: LearningRate = 1.0,
    *,
    beta: float | Array = 0.0,
    rule: AnyRule | None = None,
    key: Seed | None = None,
) -> Algorithm:
    """MimeLite: local steps with the server's momentum, y ← y - γ ((1 - β) g_i(y) + β M).

    Karimireddy et al. (2020b). As `mime`, without its correction, and with one message a round;
    β = 0 is `fedavg`, whose rule is given the x - y_i.

    Args:
        local_steps: K.
        local_lr: γ.
        server_lr: η.
        beta: β in [0, 1); may be traced.
        rule: in place of the mean of the moves.
        key: for a rule that draws.

    Raises:
        ValueError: if a number is out of range.
        TypeError: if K isn't a static integer, or another isn't a number.
    """
    return _mime(local_steps, local_lr, server_lr, beta, rule, key, corrected=False)


def _mime(
    local_steps: int,
    local_lr: LocalRate,
    server_lr: LearningRate,
    beta: float | Array,
    rule: AnyRule | None,
    key: Seed | None,
    *,
    corrected: bool,
) -> Algorithm:
    num_steps = check_local_steps(local_steps, local_lr)
    checks.fraction("beta", beta, below_one=True)
    # 0 times a liar's NaN would be NaN.
    remembers = isinstance(beta, Tracer) or bool(np.asarray(beta) > 0)

    def ask(oracle: Oracle, broadcast: PyTree) -> PyTree:
        del broadcast
        return oracle.gradient(oracle.params, 0, oracle.model_state)[0]

    def round(oracle: Oracle, broadcast: PyTree, state: PyTree) -> Sent:
        def correct(g: PyTree, y: PyTree, k: int | Array) -> PyTree:
            del y
            if corrected:
                at_x, _ = oracle.gradient(oracle.params, k, oracle.model_state)
                g = jax.tree.map(lambda g, a, c: g - a + c, g, at_x, broadcast["asked"])
            return mixed(g, broadcast["momentum"])

        found = walk(oracle, num_steps, local_lr, correct)
        moved = found.scaled(local_lr, oracle.params)
        return Sent(Message(moved, ask(oracle, broadcast)), state, found.model_state)

    def mixed(g: PyTree, momentum: PyTree) -> PyTree:
        return averaged(beta, momentum, g) if remembers else g

    def step(received: Received, momentum: PyTree) -> tuple[PyTree, PyTree]:
        return received.update, mixed(received.other, momentum) if remembers else momentum

    server = moved_by(remembering(rule, zeros_like, step, key), server_lr)
    return Algorithm(
        Procedure(round, ask=ask if corrected else None, average=average_of(rule)),
        server,
        lambda state: {"momentum": memory_of(state)},
        lambda params: Message(params, params),
        vectors(up=2, down=3 if corrected else 2),
    )

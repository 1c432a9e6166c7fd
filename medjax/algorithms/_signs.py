"""Algorithms whose workers send signs."""

import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from medjax._engine import checks
from medjax._engine.mesh import spread
from medjax._engine.participation import check_cohort, put, take
from medjax._engine.random import Seed
from medjax._engine.stacked import PyTree, Stacked, Updates, count_workers
from medjax.algorithms._bits import signs, vectors
from medjax.algorithms._server import (
    LearningRate,
    Received,
    aggregated,
    averaged,
    drawing_key,
    memory_of,
    moved_by,
    remembering,
    scaled,
    worker_key,
    zeros_like,
)
from medjax.rules import majority_vote
from medjax.workers import Algorithm, Oracle, Procedure, Sent
from medjax.workers._local_steps import LearningRate as LocalRate
from medjax.workers._local_steps import check_local_steps, walk
from medjax.workers._procedure import gradient

_ZERO = ("zero", "plus")


def signum(
    lr: LearningRate, *, beta: float | Array = 0.9, zero: Literal["zero", "plus"] = "zero"
) -> Algorithm:
    """Signum with majority vote: a vote of the signs of the workers' momenta.

        m_i ← β m_i + (1 - β) g_i;  x ← x - η sign(Σ_i sign(m_i)).

    Bernstein et al. (2018).

    Args:
        lr: η, a number (perhaps traced) or an optax schedule.
        beta: β in [0, 1); may be traced.
        zero: "zero" or "plus", how a worker votes where its momentum is 0; with "plus" a vote is
            one bit.

    Raises:
        ValueError: if β is out of range, or there is no such vote.
        TypeError: if β isn't a number.
    """
    checks.fraction("beta", beta, below_one=True)
    checks.option("zero", zero, _ZERO)

    def round(oracle: Oracle, broadcast: PyTree, own: PyTree) -> Sent:
        del broadcast
        g, model_state = oracle.gradient(oracle.params, 0, oracle.model_state)
        own = averaged(beta, own, g)
        return Sent(optax.tree.cast_like(own, g), own, model_state)

    server = moved_by(aggregated(majority_vote(zero=zero)), lr)
    return Algorithm(Procedure(round, zeros_like), server, bits=signs(never_0=zero == "plus"))


def distributed_lion(
    lr: LearningRate,
    *,
    beta1: float | Array = 0.9,
    beta2: float | Array = 0.99,
    weight_decay: float | Array = 0.0,
    average: bool = False,
    zero: Literal["zero", "plus"] = "zero",
) -> Algorithm:
    """Distributed Lion: each worker sends the sign of its Lion update.

        u_i = sign(β₁ m_i + (1 - β₁) g_i);  m_i ← β₂ m_i + (1 - β₂) g_i
        x ← x - η (Δ + λ x),  Δ = sign(Σ_i u_i), or mean_i u_i with `average`.

    Liu et al. (2024). One worker alone is `optax.lion`.

    Args:
        lr: η, a number (perhaps traced) or an optax schedule.
        beta1: β₁ in [0, 1); may be traced.
        beta2: β₂ likewise.
        weight_decay: λ ≥ 0; may be traced.
        average: whether the server averages the signs, in place of a vote.
        zero: "zero" or "plus", the sign of 0; with "plus" a sign is one bit.

    Raises:
        ValueError: if a number is out of range.
        TypeError: if one isn't a number.
    """
    checks.fraction("beta1", beta1, below_one=True)
    checks.fraction("beta2", beta2, below_one=True)
    checks.real("weight_decay", weight_decay, minimum=0.0)
    checks.step_size("lr", lr)
    checks.option("zero", zero, _ZERO)

    def sign(x: Array) -> Array:
        s = jnp.sign(x)
        return s if zero == "zero" else jnp.where(s == 0, jnp.ones_like(s), s)

    def round(oracle: Oracle, broadcast: PyTree, own: PyTree) -> Sent:
        del broadcast
        g, model_state = oracle.gradient(oracle.params, 0, oracle.model_state)
        sent = optax.tree.cast_like(jax.tree.map(sign, averaged(beta1, own, g)), g)
        return Sent(sent, averaged(beta2, own, g), model_state)

    server = optax.chain(
        aggregated(None if average else majority_vote()),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(lr),
    )
    bits = signs(never_0=zero == "plus", average=average)
    return Algorithm(Procedure(round, zeros_like), server, bits=bits)


def z_sign_fedavg(
    local_steps: int,
    local_lr: LocalRate,
    server_lr: LearningRate = 1.0,
    *,
    sigma: float | Array,
    z: float = 1,
    key: Seed,
) -> Algorithm:
    """z-SignFedAvg: noise, and then the sign, of the sum of a worker's K gradients.

        s_i = sign(Σ_k g_i(y_k) + σ ξ_i);  x ← x - η η_z σ γ mean_i s_i
        η_z = 2^{1/2z} Γ(1 + 1/2z).

    Tang et al. (2023). ξ has a density that is proportional to exp(-t^{2z}/2): normal for z = 1,
    where η_z = √(π/2), and uniform on [-1, 1] for z = ∞, where η_z = 1. Then the mean of σ s_i is
    the sum itself, wherever that is within ±σ.

    Args:
        local_steps: K.
        local_lr: γ.
        server_lr: η.
        sigma: σ > 0; may be traced.
        z: 1 or `math.inf`.
        key: a JAX key or an integer seed, for the noise.

    Raises:
        ValueError: if a number is out of range.
        TypeError: if K isn't a static integer, or another isn't a number.
    """
    num_steps = check_local_steps(local_steps, local_lr)
    checks.real("sigma", sigma, minimum=0.0, exclusive=True)
    if float(z) not in (1, math.inf):
        raise ValueError(f"z must be 1 or math.inf, got {z}")
    base = drawing_key(key, "z_sign_fedavg")
    normal = float(z) == 1
    scale = math.sqrt(math.pi / 2) if normal else 1.0

    def round(oracle: Oracle, step: Int[Array, ""], state: PyTree) -> Sent:
        found = walk(oracle, num_steps, local_lr)
        leaves, treedef = jax.tree.flatten(found.sums)
        keys = jax.random.split(worker_key(base, step, oracle.worker), len(leaves))

        def sign(sum_: Array, key: Array) -> Array:
            if normal:
                noise = jax.random.normal(key, sum_.shape, sum_.dtype)
            else:
                noise = jax.random.uniform(key, sum_.shape, sum_.dtype, -1, 1)
            return jnp.sign(sum_ + sigma * noise)

        sent = [sign(x, k) for x, k in zip(leaves, keys, strict=True)]
        sent = jax.tree.unflatten(treedef, sent)
        return Sent(optax.tree.cast_like(sent, oracle.params), state, found.model_state)

    def count(received: Received, step: Int[Array, ""]) -> tuple[PyTree, Int[Array, ""]]:
        factor = scale * sigma * local_lr
        return scaled(received.update, factor), step + 1

    start = jnp.zeros([], jnp.int32)
    server = moved_by(remembering(None, lambda params: start, count), server_lr)
    return Algorithm(Procedure(round), server, memory_of, bits=_sign_up)


class Reliability(NamedTuple):
    """Record of how often each worker's signs have differed from the decision.

    Attributes:
        errors: the sum, over the steps it took part in, of the share of coordinates in which its
            sign was another.
        steps: the number of those steps.
    """

    errors: Float[Array, " n"]
    steps: Int[Array, " n"]


def sign_fv(lr: LearningRate, num_workers: int, *, epsilon: float = 0.01) -> Algorithm:
    """signSGD with federated voting: a vote whose weights are learnt from the decisions.

        x ← x - η sign(Σ_i w_i sign(g_i)),  w_i = ln((1 - p_i)/p_i).

    Park, Poor and Lee (2024). p_i is the average share of the coordinates in which worker i has
    differed from the decision, within [ε, 1 - ε]. Weights are equal at first. A worker who always
    lies gets a negative weight.

    Args:
        lr: η, a number (perhaps traced) or an optax schedule.
        num_workers: n, of all workers.
        epsilon: ε in (0, 1/2).

    Raises:
        ValueError: if ε or n is out of range; while tracing, if there are other than n workers.
        TypeError: if n isn't a static integer, or ε isn't a number.
    """
    n = checks.integer("num_workers", num_workers, minimum=1)
    checks.real("epsilon", epsilon, minimum=0.0, exclusive=True)
    if epsilon >= 0.5:
        raise ValueError(f"epsilon must be below 0.5, got {epsilon}")

    def init(params: PyTree) -> Reliability:
        del params
        return spread(Reliability(jnp.zeros(n), jnp.zeros(n, jnp.int32)))

    def update(
        updates: Stacked,
        state: Any,
        params: PyTree = None,
        *,
        workers: Int[Array, " m"] | None = None,
        num_workers: int = n,
        **extra_args: Any,
    ) -> tuple[Updates, Reliability]:
        del params, extra_args
        check_cohort("sign_fv", n, num_workers)
        check_cohort("sign_fv", n if workers is None else len(workers), count_workers(updates))
        known: Reliability = take(state, workers)
        steps = jnp.maximum(known.steps, 1).astype(known.errors.dtype)
        p = jnp.clip(known.errors / steps, epsilon, 1 - epsilon)
        weights = jnp.where(known.steps == 0, 1.0, jnp.log((1 - p) / p))
        # As in `majority_vote`, a NaN has no sign.
        sent = [jnp.sign(jnp.where(jnp.isnan(x), 0, x)) for x in jax.tree.leaves(updates)]
        decisions = [jnp.sign(jnp.tensordot(weights.astype(s.dtype), s, 1)) for s in sent]
        differing = sum(
            jnp.sum(s != d[None], axis=tuple(range(1, s.ndim)))
            for s, d in zip(sent, decisions, strict=True)
        )
        share = differing / sum(d.size for d in decisions)
        new = Reliability(known.errors + share, known.steps + 1)
        decided = jax.tree.unflatten(jax.tree.structure(updates), decisions)
        return decided, put(state, workers, new)

    server = moved_by(optax.GradientTransformationExtraArgs(init, update), lr)
    return Algorithm(gradient(), server, bits=signs(never_0=False))


def _sign_up(params: PyTree, num_workers: int) -> tuple[float, float]:
    """Count a sign up, which isn't 0 where noise is added before, and whole models down."""
    return signs(never_0=True)(params, num_workers)[0], vectors()(params, num_workers)[1]

"""An attack as a stage of a chain: what f of the n workers send is forged."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Int, Key

from medjax._engine import checks
from medjax._engine.random import Seed, stage_key
from medjax._engine.stacked import Stacked, nonfinite_rows
from medjax.attacks import Attack, DataAttack
from medjax.attacks._attack import Workers, corrupt, last

Byzantine: TypeAlias = Literal["last", "random"] | Sequence[int] | Int[np.ndarray, " f"]
"""Which workers: see `attack`."""


class AttackState(NamedTuple):
    """State of `attack`.

    Attributes:
        step: the number of steps so far.
        key: the attack's.
        nonfinite: (f,), which of the Byzantine workers have sent NaN or ±∞ at the last step.
    """

    step: Int[Array, ""]
    key: Key[Array, ""]
    nonfinite: Bool[Array, " f"]


def attack(
    attack: Attack,
    num_byzantine: int,
    key: Seed | None = None,
    *,
    byzantine: Byzantine = "last",
) -> optax.GradientTransformationExtraArgs:
    """Forge what f workers send: stacked updates, leaves (n, *shape), to the same shapes.

    What the honest workers send is left as it is, bit for bit. f = 0 changes nothing.

    Args:
        attack: an attack of `medjax.attacks`, such as `attacks.alie()`.
        num_byzantine: f, the number of workers who attack, whatever number the rule expects.
        key: a JAX key or an integer seed, for an attack that draws random numbers or Byzantine
            workers that are drawn; a second `attack` in the same chain needs another.
        byzantine: who they are. The last f workers ("last"), which is fastest; f drawn from the
            key, the same for the whole run ("random"); or their indices.

    Raises:
        TypeError: if `attack` isn't one of vectors (`attacks.alie()`, not `attacks.alie`; a
            `DataAttack` is applied to the workers' data), or a number isn't a static integer.
        ValueError: if f is negative, if the indices aren't f different ones, or if a key is missing
            where something is drawn; when traced, if f >= n or there is no worker of an index.
    """
    if isinstance(attack, DataAttack):
        raise TypeError(
            f"{attack.name} is of the workers' data: call it with them before the training, and "
            "leave it out of the chain"
        )
    if not isinstance(attack, Attack):
        raise TypeError(f"attack must be built, such as medjax.attacks.alie(); got {attack!r}")
    f = checks.integer("num_byzantine", num_byzantine, minimum=0)
    if attack.needs_key and key is None:
        raise ValueError(f"{attack.name} draws random numbers: give attack a key")
    if isinstance(byzantine, str) and byzantine == "random" and key is None:
        raise ValueError('byzantine="random" draws the workers: give attack a key')
    choose = _choice(attack.name, byzantine, f)

    def init(params: optax.Params) -> AttackState:
        del params
        start, own = jnp.zeros([], jnp.int32), stage_key(0 if key is None else key, "attack")
        return AttackState(start, own, jnp.zeros(f, bool))

    def update(
        updates: Stacked, state: Any, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[Stacked, AttackState]:
        del params, extra_args
        draw = jax.random.fold_in(state.key, state.step)
        sent = corrupt(attack, updates, f, lambda f, n: choose(f, n, state.key), draw)
        nonfinite = state.nonfinite
        if f > 0:
            byzantine = choose(f, len(jax.tree.leaves(sent)[0]), state.key)[1]
            nonfinite = nonfinite_rows(jax.tree.map(lambda x: x[byzantine], sent))
        return sent, AttackState(state.step + 1, state.key, nonfinite)

    return optax.GradientTransformationExtraArgs(init, update)


def _choice(
    name: str, byzantine: Byzantine, num_byzantine: int
) -> Callable[[int, int, Key[Array, ""]], tuple[Workers, Workers]]:
    """(f, n, key) to the honest and the Byzantine workers."""
    if isinstance(byzantine, str):
        checks.option("byzantine", byzantine, ("last", "random"))
        return _draw if byzantine == "random" else lambda f, n, key: last(f, n)
    chosen = sorted({checks.integer("byzantine", i, minimum=0) for i in byzantine})
    if not len(chosen) == len(byzantine) == num_byzantine:
        raise ValueError(
            f"byzantine must be num_byzantine = {num_byzantine} different indices, "
            f"got {list(byzantine)}"
        )

    def split(f: int, n: int, key: Key[Array, ""]) -> tuple[Workers, Workers]:
        del f, key
        if chosen[-1] >= n:
            raise ValueError(f"{name}: byzantine names worker {chosen[-1]}, got n = {n} workers")
        return np.setdiff1d(np.arange(n), chosen), np.array(chosen)

    return split


def _draw(f: int, n: int, key: Key[Array, ""]) -> tuple[Workers, Workers]:
    # Of the key alone, and not of the step: they stay the same.
    order = jax.random.permutation(stage_key(key, "byzantine"), n)
    return jnp.sort(order[f:]), jnp.sort(order[:f])

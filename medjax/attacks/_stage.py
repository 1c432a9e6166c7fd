"""An attack as a stage of a chain: it forges what f of the n workers send."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Int, Key

from medjax._engine import checks
from medjax._engine.random import Seed, stage_key
from medjax._engine.stacked import Stacked, count_workers, nonfinite_rows
from medjax.attacks._attack import Attack, PlainAttack, Workers, as_attack, corrupt, last
from medjax.attacks._data import DataAttack

Who: TypeAlias = Literal["last", "random"] | tuple[int, ...]
"""The Byzantine workers: the last f, f drawn from the stage's key, or these indices."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class AttackState:
    """State of `attack`.

    Attributes:
        step: the number of steps so far.
        key: the attack's key.
        nonfinite: (f,), which Byzantine workers sent NaN or ±∞ in the last step.
        byzantine: who they are; static. Metrics leave them out.
    """

    step: Int[Array, ""]
    key: Key[Array, ""]
    nonfinite: Bool[Array, " f"]
    byzantine: Who = field(metadata={"static": True})

    def split(self, num_workers: int) -> tuple[Workers, Workers]:
        """Split n workers into the honest and the Byzantine ones.

        Raises:
            ValueError: if there is no worker of an index.
        """
        f, n = len(self.nonfinite), num_workers
        if self.byzantine == "last":
            return last(f, n)
        if self.byzantine == "random":
            # A function of the key and not of the step: the same workers in the whole run.
            order = jax.random.permutation(stage_key(self.key, "byzantine"), n)
            return jnp.sort(order[f:]), jnp.sort(order[:f])
        if f and self.byzantine[-1] >= n:
            raise ValueError(f"byzantine names worker {self.byzantine[-1]}, got n = {n} workers")
        chosen = np.array(self.byzantine, int)
        return np.setdiff1d(np.arange(n), chosen), chosen


def attack(
    attack: Attack | PlainAttack,
    num_byzantine: int,
    key: Seed | None = None,
    *,
    byzantine: Literal["last", "random"] | Sequence[int] | Int[np.ndarray, " f"] = "last",
) -> optax.GradientTransformationExtraArgs:
    """Forge what f workers send: stacked updates, leaves (n, *shape), to the same shapes.

    Honest workers' updates stay as they are, bit for bit. f = 0 changes nothing. The metrics of
    `simulate` are those of the honest workers.

    Args:
        attack: an attack of `medjax.attacks`, such as `attacks.alie()`; or any function (honest
            vectors (h, d), those that the Byzantine workers would have sent (f, d), key) to what
            they send, (f, d) or one vector (d,) for all. The function may leave out the key; it is
            None if none is given here.
        num_byzantine: f, the number of workers who attack, whatever number the rule expects.
        key: a JAX key or an integer seed, for an attack that draws random numbers or Byzantine
            workers that are drawn. A second `attack` in the same chain needs another key.
        byzantine: the Byzantine workers: the last f ("last"), which is fastest; f drawn from the
            key, the same for the whole run ("random"); or their indices.

    Raises:
        TypeError: if `attack` isn't one of vectors (`attacks.alie()`, not `attacks.alie`; a
            `DataAttack` is applied to the workers' data), or a number isn't a static integer.
        ValueError: if f is negative, if the indices aren't f different ones, or if a key is missing
            where something is drawn; when traced, if f >= n or there is no worker of an index.

    >>> import medjax
    >>> tx = medjax.attack(lambda honest, byzantine, key: -honest.mean(axis=0), num_byzantine=1)
    >>> print(tx.update(jnp.array([[1.0], [3.0], [0.0]]), tx.init(jnp.zeros(1)))[0].ravel())
    [ 1.  3. -2.]
    """
    if isinstance(attack, DataAttack):
        raise TypeError(
            f"{attack.name} changes the workers' data: call it with them before the training, and "
            "leave it out of the chain"
        )
    built = as_attack(attack)
    f = checks.integer("num_byzantine", num_byzantine, minimum=0)
    if built.needs_key and key is None:
        raise ValueError(f"{built.name} draws random numbers: give attack a key")
    if isinstance(byzantine, str) and byzantine == "random" and key is None:
        raise ValueError('byzantine="random" draws the workers: give attack a key')
    who = _who(byzantine, f)

    def init(params: optax.Params) -> Any:
        del params
        start, base = jnp.zeros([], jnp.int32), stage_key(0 if key is None else key, "attack")
        return AttackState(start, base, jnp.zeros(f, bool), who)

    def update(
        updates: Stacked, state: Any, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[Stacked, Any]:
        del params, extra_args
        draw = None if key is None else jax.random.fold_in(state.key, state.step)
        with jax.named_scope(built.name):
            sent = corrupt(built, updates, f, lambda f, n: state.split(n), draw)
        nonfinite = state.nonfinite
        if f > 0:
            liars = state.split(count_workers(sent))[1]
            nonfinite = nonfinite_rows(jax.tree.map(lambda x: x[liars], sent))
        return sent, AttackState(state.step + 1, state.key, nonfinite, who)

    return optax.GradientTransformationExtraArgs(init, update)


def _who(byzantine: Any, num_byzantine: int) -> Who:
    if isinstance(byzantine, str):
        checks.option("byzantine", byzantine, ("last", "random"))
        return byzantine  # pyright: ignore[reportReturnType]
    if not isinstance(byzantine, Iterable):
        raise TypeError(f"byzantine must be last, random, or a list of indices, got {byzantine!r}")
    given = list(byzantine)
    chosen = tuple(sorted({checks.integer("byzantine", i, minimum=0) for i in given}))
    if not len(chosen) == len(given) == num_byzantine:
        raise ValueError(
            f"byzantine must be num_byzantine = {num_byzantine} different indices, got {given}"
        )
    return chosen

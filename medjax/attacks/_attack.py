"""What an attack is, and how what it forges takes its place among the updates."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Key

from medjax import _checks
from medjax._promised import promise
from medjax._random import Seed, stage_key
from medjax._stacked import Stacked

Draw = Key[Array, ""] | None

Honest: TypeAlias = list[Float[Array, "h _"]]
"""The honest workers' vectors in parts, a matrix for each leaf, in float32 at least."""

Own: TypeAlias = list[Float[Array, "f _"]]
"""What the Byzantine workers would have sent if they were honest, in the same parts."""

Sent: TypeAlias = list[Float[Array, " _"]] | list[Float[Array, "f _"]]
"""What they send: one vector in parts, the same for all, or one for each."""

Place: TypeAlias = Callable[[Sent], list[Float[Array, "n _"]]]
"""What is sent to all that the server then gets, the vectors of all workers in their own order."""

Workers: TypeAlias = slice | Int[Array | np.ndarray, " _"]
"""Some of the workers, in order: a slice, which needs no gathering, or their indices."""


@dataclass(frozen=True)
class Attack:
    """What Byzantine workers send, who know what the honest ones do. `medjax.attack` is its stage.

    Attributes:
        name: the attack with its settings.
        forge: (honest, own, key) to what the Byzantine workers send: see `Honest`, `Own`, `Sent`.
            Or to a function of `Place` that gives it, for an attack that tries out what a rule
            makes of it. Checks the numbers of workers where the attack restricts them. The key is
            None unless `needs_key`.
        needs_key: whether it draws random numbers.
    """

    name: str
    forge: Callable[[Honest, Own, Draw], Sent | Callable[[Place], Sent]]
    needs_key: bool = False

    def __call__(self, updates: Stacked, num_byzantine: int, key: Seed | None = None) -> Stacked:
        """The stacked updates, leaves (n, *shape), with those of the last f workers forged.

        Raises:
            ValueError, TypeError: if the updates aren't stacked floating-point arrays, if f isn't
                a static integer from 0 to n - 1, if the attack can't take so many workers, or if
                it draws and no key is given.
        """
        return corrupt(self, updates, num_byzantine, last, key)


def corrupt(
    attack: Attack,
    updates: Stacked,
    num_byzantine: int,
    choose: Callable[[int, int], tuple[Workers, Workers]],
    key: Seed | None,
) -> Stacked:
    """The updates with those of f workers forged.

    Args:
        attack: what forges them.
        updates: leaves (n, *shape).
        num_byzantine: f.
        choose: (f, n) to the honest workers and the Byzantine ones.
        key: for an attack that draws.
    """
    f = _checks.integer("num_byzantine", num_byzantine, minimum=0)
    if f == 0:
        return updates
    if attack.needs_key and key is None:
        raise ValueError(f"{attack.name} draws random numbers: give it a key")
    draw = stage_key(key, "forge") if attack.needs_key and key is not None else None
    promised = promise(updates)
    n = promised.num_workers
    count_honest(attack.name, f, n)
    rows = promised.rows()
    wide = [x.astype(jnp.promote_types(x.dtype, jnp.float32)) for x in rows]
    honest, byzantine = choose(f, n)
    sent = attack.forge([x[honest] for x in wide], [x[byzantine] for x in wide], draw)
    if callable(sent):
        sent = sent(lambda tried: _place(wide, byzantine, tried))
    return promised.unflatten(_place(rows, byzantine, sent), n)


def _place(rows: list[Array], workers: Workers, sent: Sent) -> list[Array]:
    """The rows with those of the workers replaced."""
    return [_replace(x, workers, s) for x, s in zip(rows, sent, strict=True)]


def _replace(x: Array, workers: Workers, sent: Array) -> Array:
    forged = jnp.broadcast_to(sent, x[workers].shape).astype(x.dtype)
    # A slice by itself would be scattered to, as indices are.
    if isinstance(workers, slice):
        return lax.dynamic_update_slice_in_dim(x, forged, workers.start, axis=0)
    return x.at[workers].set(forged)


def last(num_byzantine: int, num_workers: int) -> tuple[Workers, Workers]:
    """The last f workers are Byzantine."""
    h = num_workers - num_byzantine
    return slice(h), slice(h, num_workers)


def count_honest(name: str, num_byzantine: int, num_workers: int) -> int:
    """The number of honest workers.

    Raises:
        ValueError: if there are none; `name` says of what attack.
    """
    if num_byzantine >= num_workers:
        raise ValueError(
            f"{name} needs an honest worker, f < n, got f = {num_byzantine} Byzantine of "
            f"n = {num_workers} workers"
        )
    return num_workers - num_byzantine

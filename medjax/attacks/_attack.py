"""The kind of attacks on vectors, and the forging of f workers' vectors."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from medjax._engine import checks
from medjax._engine.lazy import as_lazy
from medjax._engine.marks import only_first
from medjax._engine.plain import check_function, joined, name_of, parted, takes
from medjax._engine.precision import at_least_float32
from medjax._engine.random import MaybeKey, Seed, stage_key
from medjax._engine.stacked import Stacked

Honest: TypeAlias = list[Float[Array, "h _"]]
"""The honest workers' vectors in parts, a matrix for each leaf, in float32 at least."""

Byzantine: TypeAlias = list[Float[Array, "f _"]]
"""The vectors that the Byzantine workers would have sent if they were honest, in the same parts."""

Sent: TypeAlias = list[Float[Array, " _"]] | list[Float[Array, "f _"]]
"""The vectors that they send, in parts: one for all of them, or one for each."""

Place: TypeAlias = Callable[[Sent], list[Float[Array, "n _"]]]
"""(what the Byzantine workers send) to the vectors of all workers, as the server gets them."""

Workers: TypeAlias = slice | Int[Array | np.ndarray, " _"]
"""Some of the workers, in order: a slice, which needs no gathering, or their indices."""

PlainAttack: TypeAlias = Callable[..., Float[Array, "*f d"]]
"""(honest (h, d), byzantine (f, d)), perhaps with a key, to what is sent, (f, d) or (d,)."""


@dataclass(frozen=True)
class Attack:
    """An attack of workers who know what the honest ones send. `medjax.attack` is its stage.

    Attributes:
        name: the attack with its settings.
        forge: (honest, byzantine, key) to what the Byzantine workers send; see `Honest`,
            `Byzantine` and `Sent`. Or to a function of `Place` that returns it, for an attack that
            tries out what a rule makes of it. Checks the numbers of workers where the attack
            restricts them. The key may be None unless `needs_key`.
        needs_key: whether it draws random numbers.
        reads_own: whether it reads the numbers in `byzantine`, not their shapes alone. Otherwise
            `simulate` needn't compute what the Byzantine workers would have sent.
    """

    name: str
    forge: Callable[[Honest, Byzantine, MaybeKey], Sent | Callable[[Place], Sent]]
    needs_key: bool = False
    reads_own: bool = True

    def __call__(self, updates: Stacked, num_byzantine: int, key: Seed | None = None) -> Stacked:
        """Forge the vectors of the last f workers in stacked updates, leaves (n, *shape).

        Raises:
            ValueError, TypeError: if the updates aren't stacked floating-point arrays, if f isn't
                a static integer from 0 to n - 1, if the attack can't take so many workers, or if
                it draws and no key is given.
        """
        return corrupt(self, updates, num_byzantine, last, key)


def as_attack(attack: object) -> Attack:
    """Return a built attack as it is, and a plain function as an attack.

    Raises:
        TypeError: if it is neither (`attacks.alie` in place of `attacks.alie()`).
    """
    if isinstance(attack, Attack):
        return attack
    with_key = not callable(attack) or takes(attack, 3)
    check_function("attack", attack, 3 if with_key else 2, "medjax.attacks.alie()")
    assert callable(attack)
    name = name_of(attack)

    def forge(honest: Honest, byzantine: Byzantine, key: MaybeKey) -> Sent:
        would_send = joined(byzantine)
        vectors = (joined(honest), would_send)
        sent = jnp.asarray(attack(*vectors, key) if with_key else attack(*vectors))
        if sent.shape not in (would_send.shape, would_send.shape[1:]):
            raise ValueError(
                f"attack {name} must return vectors of shape {would_send.shape} or "
                f"{would_send.shape[1:]}, got {sent.shape}"
            )
        return parted(sent, [jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for x in honest])

    return Attack(name, forge)


def corrupt(
    attack: Attack,
    updates: Stacked,
    num_byzantine: int,
    choose: Callable[[int, int], tuple[Workers, Workers]],
    key: Seed | None,
) -> Stacked:
    """Forge the vectors of f workers.

    Args:
        attack: the attack.
        updates: leaves (n, *shape).
        num_byzantine: f.
        choose: (f, n) to the honest workers and the Byzantine ones.
        key: for an attack that draws.
    """
    f = checks.integer("num_byzantine", num_byzantine, minimum=0)
    if f == 0:
        return updates
    if attack.needs_key and key is None:
        raise ValueError(f"{attack.name} draws random numbers: give it a key")
    draw = None if key is None else stage_key(key, "forge")
    lazy = as_lazy(updates)
    n = lazy.num_workers
    h = count_honest(attack.name, f, n)
    honest, byzantine = choose(f, n)
    if not attack.reads_own and isinstance(byzantine, slice):
        lazy = as_lazy(only_first(attack.name, lazy.inputs, h))
    rows = lazy.rows()
    wide = [x.astype(at_least_float32(x.dtype)) for x in rows]
    sent = attack.forge([x[honest] for x in wide], [x[byzantine] for x in wide], draw)
    if callable(sent):
        sent = sent(lambda tried: _place(wide, byzantine, tried))
    return lazy.unflatten(_place(rows, byzantine, sent), n)


def _place(rows: list[Array], workers: Workers, sent: Sent) -> list[Array]:
    """Replace the rows of the workers."""
    return [_replace(x, workers, s) for x, s in zip(rows, sent, strict=True)]


def _replace(x: Array, workers: Workers, sent: Array) -> Array:
    forged = jnp.broadcast_to(sent, x[workers].shape).astype(x.dtype)
    # XLA would scatter to a slice as it does to indices, which is slower.
    if isinstance(workers, slice):
        return lax.dynamic_update_slice_in_dim(x, forged, workers.start, axis=0)
    return x.at[workers].set(forged)


def last(num_byzantine: int, num_workers: int) -> tuple[Workers, Workers]:
    """Choose the last f workers as the Byzantine ones."""
    h = num_workers - num_byzantine
    return slice(h), slice(h, num_workers)


def count_honest(name: str, num_byzantine: int, num_workers: int) -> int:
    """Return the number of honest workers.

    Raises:
        ValueError: if there are none; `name` is the attack's.
    """
    if num_byzantine >= num_workers:
        raise ValueError(
            f"{name} needs an honest worker, f < n, got f = {num_byzantine} Byzantine of "
            f"n = {num_workers} workers"
        )
    return num_workers - num_byzantine

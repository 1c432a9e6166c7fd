"""Keys as a pure function of (key, stage, step, leaf, worker); a draw adds the coordinate.

Every stage that draws folds the name of its kind into the key that it is given. So noise and
mini-batches, for example, are independent even if they are given the same key. Two stages of one
kind, such as two `perturb` in one chain, need different keys.
"""

import zlib
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key, UInt32

Seed: TypeAlias = int | Int[Array, ""] | Key[Array, ""] | UInt32[Array, "2"]
"""Anything that is accepted as a key: a typed key, a raw threefry key, or an integer seed."""

MaybeKey: TypeAlias = Key[Array, ""] | None
"""A typed key, or None for a stage that doesn't draw anything."""


def stage_key(key: Seed, stage: str) -> Key[Array, ""]:
    """Return the typed threefry key of a stage, from anything that is accepted as a key.

    Raises:
        TypeError: if `key` isn't such a value, or is a key of another generator than threefry. Only
            a counter-based generator draws the same numbers however the work is divided.
    """
    # A checksum rather than Python's `hash`, which differs between processes.
    return jax.random.fold_in(_typed(key), zlib.crc32(stage.encode()))


def worker_keys(key: Key[Array, ""], num_workers: int) -> Key[Array, " n"]:
    """Return one key for each worker."""
    return jax.vmap(lambda worker: jax.random.fold_in(key, worker))(jnp.arange(num_workers))


def _typed(key: Seed) -> Key[Array, ""]:
    """Return a typed threefry key."""
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        if key.dtype != jax.random.key(0, impl="threefry2x32").dtype:
            raise TypeError(
                f"the key must be a threefry2x32 key, got {key.dtype}; "
                "make one with jax.random.key(seed, impl='threefry2x32')"
            )
        return key
    dtype = getattr(key, "dtype", None) or np.asarray(key).dtype
    if not jnp.issubdtype(dtype, jnp.integer) or jnp.shape(key) not in ((), (2,)):
        raise TypeError(f"the key must be a JAX key or an integer seed, got {key!r}")
    if jnp.shape(key) == (2,):
        return jax.random.wrap_key_data(jnp.asarray(key), impl="threefry2x32")
    return jax.random.key(key, impl="threefry2x32")

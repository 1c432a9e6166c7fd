"""What crosses between devices when workers vote: bits, not numbers."""

import math

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, UInt32

from medjax._engine.mesh import Axes

_WORD = 32


def total_sign(
    counts: list[Float[Array, " _"]],
    here: int,
    num_workers: int,
    names: Axes,
    coins: list[Float[Array, " _"]] | None = None,
) -> list[Float[Array, " _"]]:
    """The sign of the sum over all devices of their workers' votes; on one device, the sum itself.

    A device's count c, the sum of the votes -1, 0 and 1 of its w workers, takes the number of bits
    that c + w, from 0 to 2w, has; but where nobody abstains c + w is even, so that (c + w)/2 will
    do, for one worker a single bit. Bit b of 32 counts is a word. Each device is given the words of
    a part of the coordinates, adds them up, and sends back the sign: another bit where there are no
    ties, of an odd number of workers who all voted or if a coin decides them, else two.

    Args:
        counts: the sums over the workers here, leaf by leaf.
        here: w, how many these are.
        num_workers: n, on all devices.
        names: the axes of the mesh that the workers are spread over.
        coins: the -1 or 1 that a tied vote gives, leaf by leaf; None if it gives 0.
    """
    if not names:
        if coins is None:
            return counts
        return [jnp.where(x == 0, coin, x) for x, coin in zip(counts, coins, strict=True)]
    devices = lax.axis_size(names)
    ends = np.cumsum([x.size for x in counts])

    def padded(leaves: list[Array], value: int) -> Int[Array, " d"]:
        flat = jnp.concatenate([x.astype(jnp.int32) for x in leaves])
        return jnp.pad(flat, (0, -flat.size % (devices * _WORD)), constant_values=value)

    flat = padded(counts, here)
    coin = None if coins is None else padded(coins, 1).reshape(devices, -1)[lax.axis_index(names)]

    def exchange(halved: bool) -> Int[Array, " d"]:
        shifted = (flat + here) // 2 if halved else flat + here
        width = math.ceil(math.log2((here if halved else 2 * here) + 1))
        sent = _pack_bits(shifted.reshape(devices, -1), width)
        got = lax.all_to_all(sent, names, split_axis=0, concat_axis=0, tiled=True)
        total = _unpack_bits(got, width).sum(axis=0)
        total = 2 * total - here * devices if halved else total - here * devices
        if coin is not None:
            total = jnp.where(total == 0, coin, total)
        positive, negative = (_pack(x[None])[0] for x in (total > 0, total < 0))
        if coin is not None or (halved and num_workers % 2):
            return jnp.where(_unpack(lax.all_gather(positive, names)), 1, -1).reshape(-1)
        both = lax.all_gather(jnp.stack([positive, negative]), names)
        up, down = (_unpack(both[:, i]).astype(jnp.int32) for i in (0, 1))
        return (up - down).reshape(-1)

    if num_workers == here * devices:
        nobody_abstains = jnp.all((flat + here) % 2 == 0)
        everywhere = lax.psum(nobody_abstains.astype(jnp.int32), names) == devices
        sign = lax.cond(everywhere, lambda: exchange(True), lambda: exchange(False))
    else:  # who is missing on the last devices abstains
        sign = exchange(False)
    parts = jnp.split(sign[: ends[-1]], ends[:-1])
    return [part.astype(x.dtype) for part, x in zip(parts, counts, strict=True)]


def _pack(bits: Bool[Array, "k d"]) -> UInt32[Array, "k _"]:
    """32 coordinates to a word, those that are d/32 apart."""
    rows = bits.reshape(bits.shape[0], _WORD, -1).astype(jnp.uint32)

    def add(i: Array, words: Array) -> Array:
        return words | (
            lax.dynamic_index_in_dim(rows, i, 1, keepdims=False) << i.astype(jnp.uint32)
        )

    return lax.fori_loop(0, _WORD, add, jnp.zeros_like(rows[:, 0]))


def _unpack(words: UInt32[Array, "k _"]) -> Bool[Array, "k d"]:
    """The inverse of `_pack`."""
    shifts = jnp.arange(_WORD, dtype=jnp.uint32)[:, None]
    return ((words[:, None] >> shifts) & 1).astype(bool).reshape(words.shape[0], -1)


def _pack_bits(numbers: Int[Array, "k d"], width: int) -> UInt32[Array, "k width _"]:
    """Each bit of the numbers by itself."""
    return jnp.stack([_pack((numbers >> i) & 1 == 1) for i in range(width)], axis=1)


def _unpack_bits(words: UInt32[Array, "k width _"], width: int) -> Int[Array, "k d"]:
    """The inverse of `_pack_bits`."""
    return sum(
        (_unpack(words[:, i]).astype(jnp.int32) << i for i in range(width)),
        jnp.zeros((words.shape[0], words.shape[2] * _WORD), jnp.int32),
    )

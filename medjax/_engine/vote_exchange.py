"""Exchange votes between devices: packed bits where wires are slow, small integers elsewhere."""

import math

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, UInt32

from medjax._engine.mesh import Axes

_WORD_BITS = 32

# Packing costs an accelerator about 40 µs: ten kernels more, and two collectives more. It has to
# save as many bytes as its links move in that time (NVLink: 450 GB/s, a TPU v5e's: 200 GB/s). Votes
# on fewer than 11 million coordinates are summed as they are.
_BYTES_WORTH_PACKING = 1 << 24


def total_sign(
    counts: list[Float[Array, " _"]],
    num_local: int,
    num_workers: int,
    names: Axes,
    coins: list[Float[Array, " _"]] | None = None,
) -> list[Float[Array, " _"]]:
    """Return the sign of all workers' votes, summed over all devices; on one device the sum itself.

    Between CPUs, whose devices are processes that may be joined by a network, votes always travel
    as packed bits: see `_packed_sign`. Accelerators sum integers of 8 or 16 bits if n allows it,
    unless packing saves enough bytes to be worth its kernels.

    Args:
        counts: the sums over the local workers, leaf by leaf.
        num_local: w, the number of local workers.
        num_workers: n, on all devices.
        names: the mesh axes that the workers are spread over.
        coins: the result of a tied vote, -1 or 1, leaf by leaf; None if it is 0.
    """

    def decided(counts: list[Array]) -> list[Array]:
        if coins is None:
            return counts
        return [jnp.where(x == 0, coin, x) for x, coin in zip(counts, coins, strict=True)]

    if not names:
        return decided(counts)
    integer = _smallest_integer(num_local * lax.axis_size(names))

    def joined(counts: list[Array]) -> Int[Array, " d"]:
        return jnp.concatenate([x.astype(jnp.int32) for x in counts])

    def parted(sign: Int[Array, " d"]) -> list[Array]:
        parts = jnp.split(sign, np.cumsum([x.size for x in counts])[:-1])
        return [part.astype(x.dtype) for part, x in zip(parts, counts, strict=True)]

    def packed(counts: list[Array]) -> list[Array]:
        coin = None if coins is None else joined(coins)
        return parted(_packed_sign(joined(counts), num_local, num_workers, names, coin))

    def summed(counts: list[Array]) -> list[Array]:
        total = lax.psum(joined(counts).astype(integer), names)
        return decided(parted(jnp.sign(total)))

    # A sum sends each number twice; a vote as many bits as a device's count has, and its sign.
    sent = 2 * jnp.dtype(integer).itemsize - (_count_bits(2 * num_local) + 2) / 8
    worth = sum(x.size for x in counts) * sent >= _BYTES_WORTH_PACKING
    return lax.platform_dependent(counts, cpu=packed, default=packed if worth else summed)


def _smallest_integer(largest: int) -> type[np.signedinteger]:
    """Return the smallest integer type that holds numbers up to this magnitude."""
    return next(t for t in (np.int8, np.int16, np.int32) if largest <= np.iinfo(t).max)


def _count_bits(largest: int) -> int:
    """Return how many bits the numbers 0 to `largest` take."""
    return math.ceil(math.log2(largest + 1))


def _packed_sign(
    counts: Int[Array, " d"],
    num_local: int,
    num_workers: int,
    names: Axes,
    coins: Float[Array, " d"] | None,
) -> Int[Array, " d"]:
    """Return the sign of the sum over all devices, exchanged as packed bits.

    A device sends the sum c of its w workers' votes -1, 0 and 1 as the bits of c + w, which is in
    [0, 2w]. Where nobody abstains c + w is even, and the bits of (c + w)/2 are enough: a single one
    for one worker. One word holds bit b of 32 such numbers. Each device receives the words of a
    part of the coordinates, adds up the numbers, and sends back their signs. A sign takes one bit
    where ties are impossible (an odd number of workers all voted, or coins decide), else two.

    Args:
        counts: c.
        num_local: w.
        num_workers: n, on all devices.
        names: the mesh axes that the workers are spread over.
        coins: the result of a tied vote, -1 or 1; None if it is 0.
    """
    num_devices = lax.axis_size(names)

    def padded(x: Array, value: int) -> Int[Array, " d"]:
        missing = -x.size % (num_devices * _WORD_BITS)
        return jnp.pad(x, (0, missing), constant_values=value)

    flat, coin = padded(counts, num_local), None
    if coins is not None:
        coin = padded(coins, 1).reshape(num_devices, -1)[lax.axis_index(names)]

    def exchange(halved: bool) -> Int[Array, " d"]:
        shifted = (flat + num_local) // 2 if halved else flat + num_local
        width = _count_bits(num_local if halved else 2 * num_local)
        sent = _pack_bits(shifted.reshape(num_devices, -1), width)
        received = lax.all_to_all(sent, names, split_axis=0, concat_axis=0, tiled=True)
        total = _unpack_bits(received, width).sum(axis=0)
        total = (2 * total if halved else total) - num_local * num_devices
        if coin is not None:
            total = jnp.where(total == 0, coin, total)
        positive, negative = (_pack(x[None])[0] for x in (total > 0, total < 0))
        if coin is not None or (halved and num_workers % 2):
            return jnp.where(_unpack(lax.all_gather(positive, names)), 1, -1).reshape(-1)
        both = lax.all_gather(jnp.stack([positive, negative]), names)
        up, down = (_unpack(both[:, i]).astype(jnp.int32) for i in (0, 1))
        return (up - down).reshape(-1)

    if num_workers == num_local * num_devices:
        # Two workers who abstain may hide in an even c + w. That does no harm: halving is exact,
        # and an odd number of workers can't be tied if c + w is even on all devices.
        all_even = jnp.all((flat + num_local) % 2 == 0)
        everywhere = lax.psum(all_even.astype(jnp.int32), names) == num_devices
        sign = lax.cond(everywhere, lambda: exchange(True), lambda: exchange(False))
    else:  # the last devices hold padding, which counts as workers who abstain
        sign = exchange(False)
    return sign[: counts.size]


def _pack(bits: Bool[Array, "k d"]) -> UInt32[Array, "k _"]:
    """Pack 32 coordinates into each word, d/32 apart, so that memory is read contiguously."""
    rows = bits.reshape(bits.shape[0], _WORD_BITS, -1).astype(jnp.uint32)

    def in_turns(rows: Array) -> Array:
        # A sum over an axis that isn't the last is slow on the CPU.
        def add(i: Array, words: Array) -> Array:
            row = lax.dynamic_index_in_dim(rows, i, 1, keepdims=False)
            return words | (row << i.astype(jnp.uint32))

        return lax.fori_loop(0, _WORD_BITS, add, jnp.zeros_like(rows[:, 0]))

    def at_once(rows: Array) -> Array:
        shifts = jnp.arange(_WORD_BITS, dtype=jnp.uint32)[None, :, None]
        return jnp.sum(rows << shifts, axis=1, dtype=jnp.uint32)

    return lax.platform_dependent(rows, cpu=in_turns, default=at_once)


def _unpack(words: UInt32[Array, "k _"]) -> Bool[Array, "k d"]:
    """Invert `_pack`."""
    shifts = jnp.arange(_WORD_BITS, dtype=jnp.uint32)[None, :, None]
    return ((words[:, None] >> shifts) & 1).astype(bool).reshape(words.shape[0], -1)


def _pack_bits(numbers: Int[Array, "k d"], width: int) -> UInt32[Array, "k width _"]:
    """Pack each bit of the numbers separately."""
    return jnp.stack([_pack((numbers >> i) & 1 == 1) for i in range(width)], axis=1)


def _unpack_bits(words: UInt32[Array, "k width _"], width: int) -> Int[Array, "k d"]:
    """Invert `_pack_bits`."""
    return sum(
        (_unpack(words[:, i]).astype(jnp.int32) << i for i in range(width)),
        jnp.zeros((words.shape[0], words.shape[2] * _WORD_BITS), jnp.int32),
    )

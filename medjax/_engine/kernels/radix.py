"""Select the k-th smallest integer of each column on an accelerator, in few reductions.

A radix search from the top: each pass counts the entries below the 2ʷ - 1 values that have the next
digit of w bits, the digits found so far above it, and zeros below. The counters of one entry are
packed into as few words as hold them for n entries, so that a pass reads the matrix once: XLA
makes one kernel of up to two sums of the same rows, and several of more (JAX 0.10.2, CUDA).

    rows        bits of a counter   digit   words   passes (int32)
    ≤ 255       8                   3       2       11
    ≤ 1,023     10                  2       1       16
    ≤ 65,535    16                  2       2       16
    more        31                  2       3       16
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int

_WORD_BITS = 32


def select(x: Int[Array, "n d"], rank: int | Int[Array, ""], *, unroll: bool) -> Int[Array, " d"]:
    """Return the value of the given rank (0 is the smallest) of each column.

    Args:
        x: int32 or int64. Pass an elementwise expression of a stored array: it is fused into each
            pass.
        rank: in [0, n).
        unroll: whether to write out the passes. It saves a GPU half of its kernels, those for the
            loop's counter and carry. A TPU takes several times as long then, and up to 10 s to
            compile instead of 2 (v5e).
    """
    integer = x.dtype
    counter = next(bits for bits in (8, 10, 16, 31) if len(x) < 1 << bits)
    per_word = _WORD_BITS // counter
    width = 3 if 2 * per_word >= 7 else 2
    steps = range(1, 1 << width)
    words = [steps[i : i + per_word] for i in range(0, len(steps), per_word)]
    bits = jnp.iinfo(integer).bits

    def search(k: Array, found: Array) -> Array:
        # The lowest digit overlaps the one before it if their width doesn't divide the bits.
        shift = jnp.maximum(bits - width * (k + 1), 0).astype(integer)

        def count_below(step: int) -> Array:
            bound = found + (jnp.asarray(step, integer) << shift)
            return (x < bound[None]).astype(jnp.uint32)

        digit = jnp.zeros_like(found)
        for word in words:
            packed = sum(
                (count_below(step) << (counter * place) for place, step in enumerate(word)),
                jnp.zeros(x.shape, jnp.uint32),
            )
            total = jnp.sum(packed, axis=0, dtype=jnp.uint32)
            for place in range(len(word)):
                below = (total >> (counter * place)) & ((1 << counter) - 1)
                digit += (below <= jnp.asarray(rank, below.dtype)).astype(integer)
        return found + (digit << shift)

    lowest = jnp.full(x.shape[1:], jnp.iinfo(integer).min, integer)
    return lax.fori_loop(0, -(-bits // width), search, lowest, unroll=unroll)

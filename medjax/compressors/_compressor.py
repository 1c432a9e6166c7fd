"""The `Compressor` type, and the number of bits that a step of a chain sends."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from medjax._engine import checks
from medjax._engine.plain import accepts_key, check_function, name_of
from medjax._engine.precision import at_least_float32, common_dtype
from medjax._engine.random import MaybeKey, Seed, stage_key
from medjax._engine.stacked import PyTree, Updates

Leaves: TypeAlias = list[Float[Array, "..."]]
"""One worker's update, as the list of its leaves."""

Like: TypeAlias = Updates | PyTree
"""One worker's update, or its shapes and dtypes."""

SCALE_BITS = 32
"""The bits of a number that is sent with the message, such as a norm: it is a float32."""

SEED_BITS = 32
"""The bits of a seed, from which the server repeats the worker's draws."""


@dataclass(frozen=True)
class Compressor:
    """A pure function of one worker's update, built by a factory of `medjax.compressors`.

    Attributes:
        name: the compressor with its settings.
        send: (leaves, key) to the leaves that the server decodes from the message, with the same
            shapes and dtypes: float32 at least. The key is None unless `needs_key`.
        length: the leaves' shapes and original dtypes to the message's length in bits.
        unbiased: whether the expectation of the decoded update is the update.
        needs_key: whether it draws random numbers.
    """

    name: str
    send: Callable[[Leaves, MaybeKey], Leaves]
    length: Callable[[list[jax.ShapeDtypeStruct]], int]
    unbiased: bool
    needs_key: bool = False

    def compress(self, update: Updates, key: Seed | None = None) -> Updates:
        """Return the update that the server decodes from the message, with the same structure.

        Args:
            update: one worker's vector; the returned pytree has its shapes and dtypes.
            key: a JAX key or an integer seed, if the compressor draws random numbers. Workers
                that should draw independently need different keys.

        Raises:
            ValueError: if the compressor draws and no key is given, if the update is empty, or if
                the settings don't suit its size.
            TypeError: if a leaf isn't of real floating-point numbers.
        """
        if self.needs_key and key is None:
            raise ValueError(f"{self.name} draws random numbers: give it a key")
        structs = _structs(update)
        leaves, treedef = jax.tree.flatten(update)
        wide = [jnp.asarray(x, widened(s.dtype)) for x, s in zip(leaves, structs, strict=True)]
        draw = stage_key(key, "compress") if self.needs_key and key is not None else None
        decoded = self.send(wide, draw)
        return jax.tree.unflatten(
            treedef, [x.astype(s.dtype) for x, s in zip(decoded, structs, strict=True)]
        )

    def bits(self, like: Like) -> int:
        """Return the exact number of bits of a message, the same for all updates of these shapes.

        Args:
            like: an update, or its shapes and dtypes (`jax.ShapeDtypeStruct`).

        Raises:
            ValueError, TypeError: as for `compress`.
        """
        return self.length(_structs(like))


PlainCompressor: TypeAlias = Callable[..., tuple[Float[Array, " d"], int]]
"""(vector (d,)) or (vector (d,), key) to the decoded vector (d,) and the message's bits."""


def as_compressor(compressor: object) -> Compressor:
    """Return a built compressor as it is, and a plain function as a compressor.

    Raises:
        TypeError: if it is neither (`compressors.sign` in place of `compressors.sign()`).
    """
    if isinstance(compressor, Compressor):
        return compressor
    check_function("compressor", compressor, 1, "medjax.compressors.sign()")
    assert callable(compressor)
    function, name, needs_key = compressor, name_of(compressor), accepts_key(compressor)

    def call(vector: Array, key: MaybeKey) -> tuple[Array, int]:
        returned = function(vector, **({"key": key} if needs_key else {}))
        if not isinstance(returned, tuple) or len(returned) != 2:
            raise ValueError(
                f"compressor {name} must return the decoded vector and the message's bits, "
                f"got {returned!r}"
            )
        decoded, bits = jnp.asarray(returned[0]), returned[1]
        if decoded.shape != vector.shape:
            raise ValueError(
                f"compressor {name} must decode to shape {vector.shape}, got {decoded.shape}"
            )
        return decoded, bits

    def length(d: int, dtype: jnp.dtype) -> int:
        bits = 0

        def trace(vector: Array, key: Array) -> None:
            nonlocal bits
            bits = checks.integer("a message's bits", call(vector, key)[1], minimum=0)

        jax.eval_shape(trace, jax.ShapeDtypeStruct((d,), widened(dtype)), jax.random.key(0))
        return bits

    return vector_compressor(
        name, lambda x, key: call(x, key)[0], length, unbiased=False, needs_key=needs_key
    )


class Bits(NamedTuple):
    """The bits sent in one step: `up` from all workers to the server, `down` to all of them."""

    up: int
    down: int


def communication(
    like: Like,
    num_workers: int,
    *,
    up: Compressor | PlainCompressor | None = None,
    down: Compressor | PlainCompressor | None = None,
) -> Bits:
    """Return the exact number of bits that n workers and the server exchange in one step.

    Args:
        like: one worker's update, or its shapes and dtypes.
        num_workers: n.
        up: the workers' compressor, built or a plain function as in `compress`; None if every
            number is sent in full, 32 bits in float32.
        down: the same for the message from the server to each worker. For a majority vote, use
            `sign()`, one bit per coordinate: as `down` if no vote can be tied or `tie="random"`,
            and as `up` if no worker abstains.

    Raises:
        ValueError, TypeError: if n isn't a positive integer, if `up` or `down` isn't a compressor,
            or as for `Compressor.bits`.

    >>> from medjax.compressors import sign, top_k
    >>> communication(jnp.zeros(1000), 10, up=sign(), down=sign())
    Bits(up=10000, down=10000)
    >>> communication(jnp.zeros(1000), 10, up=top_k(10))
    Bits(up=4200, down=320000)
    """
    n = checks.integer("num_workers", num_workers, minimum=1)

    def message(compressor: Compressor | PlainCompressor | None) -> int:
        if compressor is None:
            return sum(x.size * value_bits(x.dtype) for x in _structs(like))
        return as_compressor(compressor).bits(like)

    return Bits(n * message(up), n * message(down))


def vector_compressor(
    name: str,
    send: Callable[[Float[Array, " d"], MaybeKey], Float[Array, " d"]],
    length: Callable[[int, jnp.dtype], int],
    **properties: bool,
) -> Compressor:
    """Build a compressor that treats all leaves as one vector.

    Args:
        name: the name with the settings.
        send: (vector, key) to the vector that the server decodes.
        length: (d, the vector's dtype, which is that of the widest leaf) to bits.
        properties: `unbiased` and `needs_key`.
    """

    def send_leaves(leaves: Leaves, key: MaybeKey) -> Leaves:
        dtype = common_dtype(*leaves)
        vector = send(jnp.concatenate([x.reshape(-1).astype(dtype) for x in leaves]), key)
        parts = jnp.split(vector, np.cumsum([x.size for x in leaves])[:-1])
        return [part.reshape(x.shape) for part, x in zip(parts, leaves, strict=True)]

    def length_of_leaves(leaves: list[jax.ShapeDtypeStruct]) -> int:
        return length(total_size(leaves), common_dtype(*(x.dtype for x in leaves)))

    return Compressor(name, send_leaves, length_of_leaves, **properties)


def total_size(leaves: list[Any]) -> int:
    """Return d, the number of coordinates of all leaves."""
    return sum(x.size for x in leaves)


def value_bits(dtype: jnp.dtype) -> int:
    """Return the bits of a number that is sent as it is: 32 in float32."""
    return jnp.finfo(dtype).bits


def widened(dtype: jnp.dtype) -> jnp.dtype:
    """Return the dtype to compute in: float32 at least."""
    return at_least_float32(dtype)


def _structs(update: Any) -> list[jax.ShapeDtypeStruct]:
    """Return the leaves' shapes and dtypes.

    Raises:
        ValueError: if there are no coordinates.
        TypeError: if a leaf isn't of real floating-point numbers.
    """
    leaves = jax.tree.leaves(update)
    structs = [jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x)) for x in leaves]
    for x in structs:
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise TypeError(f"an update must be floating point, got a leaf of {x.dtype}")
    if total_size(structs) == 0:
        shapes = [x.shape for x in structs]
        raise ValueError(f"an update needs at least 1 coordinate, got shapes {shapes}")
    return structs

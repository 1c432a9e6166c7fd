"""What every compressor is, and what a step of a chain costs on the wire."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree, Shaped

from medjax._engine import checks
from medjax._engine.plain import accepts_key, check_function, name_of
from medjax._engine.random import MaybeKey, Seed, stage_key
from medjax._engine.stacked import Updates

Leaves: TypeAlias = list[Float[Array, "..."]]
"""One worker's update, in parts."""

Like: TypeAlias = PyTree[Shaped[Array, "..."] | jax.ShapeDtypeStruct]
"""One worker's update, or the shapes and dtypes of one."""

SCALE_BITS = 32
"""A number that goes with the message, such as a norm: a float32."""

SEED_BITS = 32
"""A seed, from which the server draws what the worker drew."""


@dataclass(frozen=True)
class Compressor:
    """A pure function of one worker's update, made by a factory of `medjax.compressors`.

    Attributes:
        name: the compressor with its settings.
        send: (leaves, key) to what the server decodes of the message, of the same shapes and
            dtypes: float32 at least. The key is None unless `needs_key`.
        length: the leaves, as shapes and dtypes of their own, to the message's length in bits.
        unbiased: whether the update is the expectation of what the server decodes.
        needs_key: whether it draws random numbers.
    """

    name: str
    send: Callable[[Leaves, MaybeKey], Leaves]
    length: Callable[[list[jax.ShapeDtypeStruct]], int]
    unbiased: bool
    needs_key: bool = False

    def compress(self, update: Updates, key: Seed | None = None) -> Updates:
        """What the server decodes of the message: a pytree of the update's shapes and dtypes.

        Args:
            update: one worker's vector.
            key: a JAX key or an integer seed, if the compressor draws random numbers. Workers
                that are to draw independently need one each.

        Raises:
            ValueError: if it draws and no key is given, if the update is empty, or if the
                settings don't suit its size.
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
        """The exact number of bits of one message: the same for all updates of these shapes.

        Args:
            like: an update, or its shapes and dtypes (`jax.ShapeDtypeStruct`).

        Raises:
            ValueError, TypeError: as `compress`.
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
    """What one step sends: `up` from all workers to the server, `down` from it to all of them."""

    up: int
    down: int


def communication(
    like: Like, num_workers: int, *, up: Compressor | None = None, down: Compressor | None = None
) -> Bits:
    """The exact number of bits that n workers and the server exchange in one step.

    Args:
        like: one worker's update, or its shapes and dtypes.
        num_workers: n.
        up: what the workers compress by; None for every number in full, 32 bits in float32.
        down: the like for what each worker gets from the server. Of a majority vote that is
            `sign()`, one bit for each coordinate, if no vote can be tied or `tie="random"`; up it
            is, if no worker abstains.

    Raises:
        ValueError, TypeError: if n is no positive integer, or as `Compressor.bits`.

    >>> from medjax.compressors import sign, top_k
    >>> communication(jnp.zeros(1000), 10, up=sign(), down=sign())
    Bits(up=10000, down=10000)
    >>> communication(jnp.zeros(1000), 10, up=top_k(10))
    Bits(up=4200, down=320000)
    """
    n = checks.integer("num_workers", num_workers, minimum=1)

    def message(compressor: Compressor | None) -> int:
        if compressor is None:
            return sum(x.size * value_bits(x.dtype) for x in _structs(like))
        return compressor.bits(like)

    return Bits(n * message(up), n * message(down))


def vector_compressor(
    name: str,
    send: Callable[[Float[Array, " d"], MaybeKey], Float[Array, " d"]],
    length: Callable[[int, jnp.dtype], int],
    **properties: bool,
) -> Compressor:
    """A compressor of all leaves joined to one vector.

    Args:
        name: with the settings.
        send: (the vector, key) to what the server decodes.
        length: (d, the vector's dtype, which is that of the widest leaf) to bits.
        properties: `unbiased` and `needs_key`.
    """

    def send_leaves(leaves: Leaves, key: MaybeKey) -> Leaves:
        vector = send(jnp.concatenate([x.reshape(-1) for x in leaves]), key)
        parts = jnp.split(vector, np.cumsum([x.size for x in leaves])[:-1])
        return [part.reshape(x.shape) for part, x in zip(parts, leaves, strict=True)]

    def length_of_leaves(leaves: list[jax.ShapeDtypeStruct]) -> int:
        return length(total_size(leaves), jnp.result_type(*(x.dtype for x in leaves)))

    return Compressor(name, send_leaves, length_of_leaves, **properties)


def total_size(leaves: list[Any]) -> int:
    """d, the number of all coordinates."""
    return sum(x.size for x in leaves)


def value_bits(dtype: jnp.dtype) -> int:
    """The width of a number that is sent as it is: 32 in float32."""
    return jnp.finfo(dtype).bits


def widened(dtype: jnp.dtype) -> jnp.dtype:
    """What is computed in: float32 at least."""
    return jnp.promote_types(dtype, jnp.float32)


def _structs(update: Any) -> list[jax.ShapeDtypeStruct]:
    """The leaves' shapes and dtypes.

    Raises:
        ValueError: if there isn't one coordinate.
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

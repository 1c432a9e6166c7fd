"""The number of workers to take at a time, by a CPU's cache or an accelerator's memory."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
from jax import lax
from jaxtyping import PyTree

Result = TypeVar("Result", bound=PyTree)


class Chunk(NamedTuple):
    """The number of workers, or columns, to take at a time: at least 1.

    Attributes:
        cpu: on a CPU.
        accelerator: on any other platform.
    """

    cpu: int
    accelerator: int

    def up_to(self, count: int) -> "Chunk":
        """Return the chunk of at most `count`."""
        return Chunk(min(self.cpu, count), min(self.accelerator, count))


def by_chunk(f: Callable[..., Result], chunk: Chunk, *operands: PyTree) -> Result:
    """Return f(chunk size, *operands), with the chunk size of the platform that it is lowered for.

    f is traced twice only if the sizes differ.
    """

    def with_size(size: int) -> Callable[..., Result]:
        return lambda *operands: f(size, *operands)

    if chunk.cpu == chunk.accelerator:
        return f(chunk.cpu, *operands)
    return lax.platform_dependent(
        *operands, cpu=with_size(chunk.cpu), default=with_size(chunk.accelerator)
    )


def map_each(f: Callable[..., Result], *operands: PyTree) -> Result:
    """Map f over the leading axis: in turn on a CPU, all together on an accelerator.

    For functions of a whole vector in several passes: one vector at a time stays in a CPU's cache.
    """

    def in_turn(*operands: PyTree) -> Result:
        return lax.map(lambda each: f(*each), operands)

    return lax.platform_dependent(*operands, cpu=in_turn, default=jax.vmap(f))

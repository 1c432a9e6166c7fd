"""Functions of the n numbers of each column, by the design that suits the platform.

| platform | up to 128 rows | more |
|---|---|---|
| CPU | a network of minima and maxima of whole rows: `network` | passes over blocks: `bisection` |
| GPU, Hopper and newer | the same network in registers: `hopper` | passes: `radix` |
| other GPUs, TPU | passes: `radix` | passes: `radix` |

The primitive `medjax_columns` stands for all of them until it is lowered. Unlike
`lax.platform_dependent` it traces only the design that is taken, and knows the device's generation.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import ShapedArray
from jax.extend import core as jex
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

from medjax._engine.kernels import hopper

# XLA on the CPU fuses a median's whole network into one loop, which takes 2 s to compile for 128
# rows. From 176 rows on that loop becomes slow: for 20,000 columns it runs for 3 ms with 160 rows,
# 50 ms with 176 and 4 s with 200 (two cores, JAX 0.10.2). A thread of a GPU has 255 registers.
NETWORK_MAX_ROWS = 128
_VECTOR_COLUMNS = 64  # two AVX-512 registers of 16-bit numbers
# The elements in a block of columns for bisection. Sixteen passes over a block read the same 8 MiB
# of 16-bit numbers, which are small enough for a cache.
_BLOCK_ELEMENTS = 1 << 22


def by_columns(
    of_rows: Callable[..., Float[Array, " d"]],
    of_matrix: Callable[..., Float[Array, " d"]],
    x: Float[Array, "n d"],
    *vectors: Float[Array, " d"],
    **settings: Any,
) -> Float[Array, " d"]:
    """Apply a function to each column of x, and to the numbers of some vectors there.

    Args:
        of_rows: (a list of n rows, *vectors, **settings) to a vector, elementwise. It is unrolled:
            XLA or a Pallas kernel compiles every operation on every row.
        of_matrix: (x, *vectors, **settings) to the same vector, in passes over the rows of x.
        x: float32 or float64.
        vectors: of the same dtype.
        settings: static and hashable.
    """
    static = {"of_rows": of_rows, "of_matrix": of_matrix, "settings": tuple(settings.items())}
    return columns_p.bind(x, *vectors, **static)


def unrolled(x: Array, *vectors: Array, of_rows: Any, of_matrix: Any, settings: Any) -> Array:
    """Apply `of_rows` to the rows of x, leaves (*batch, n, d)."""
    del of_matrix
    rows = [x[..., i, :] for i in range(x.shape[-2])]
    return of_rows(rows, *vectors, **dict(settings))


def in_registers(x: Array, *vectors: Array, of_rows: Any, of_matrix: Any, settings: Any) -> Array:
    """Apply `of_rows` in a kernel for Hopper."""
    del of_matrix
    name = of_rows.__name__.strip("_")
    return hopper.by_columns(partial(of_rows, **dict(settings)), x, *vectors, name=name)


def in_passes(x: Array, *vectors: Array, of_rows: Any, of_matrix: Any, settings: Any) -> Array:
    """Apply `of_matrix` to all columns at a time."""
    del of_rows
    # Without the barrier, what x is computed from, such as noise, is computed again in each pass.
    x, f = lax.optimization_barrier(x), partial(of_matrix, **dict(settings))
    return _over_batch(f, x)(x, *vectors)


def in_blocks(x: Array, *vectors: Array, of_rows: Any, of_matrix: Any, settings: Any) -> Array:
    """Apply `of_matrix` to blocks of columns that a CPU's cache holds.

    All blocks have the same width, so that it is compiled once. The last one may overlap the one
    before it.
    """
    del of_rows
    f = _over_batch(partial(of_matrix, **dict(settings)), x)
    *batch, n, d = x.shape
    num_blocks = max(1, -(-n * d // _BLOCK_ELEMENTS))
    # A block is a whole number of vector registers wide. XLA on the CPU doesn't vectorise a loop of
    # another length, which is 6 times as slow.
    multiple = min(d, _VECTOR_COLUMNS) or 1
    width = -(-d // (num_blocks * multiple)) * multiple
    padded = max(d, width)
    arrays = [jnp.pad(a, [(0, 0)] * (a.ndim - 1) + [(0, padded - d)]) for a in (x, *vectors)]

    def step(k: Array, out: Array) -> Array:
        start = jnp.minimum(k * width, padded - width)
        blocks = [lax.dynamic_slice_in_dim(a, start, width, -1) for a in arrays]
        return lax.dynamic_update_slice_in_dim(out, f(*blocks), start, -1)

    out = jnp.zeros((*batch, padded), x.dtype)
    return lax.fori_loop(0, num_blocks, step, out)[..., :d] if d else out


def _over_batch(f: Callable[..., Array], x: Array) -> Callable[..., Array]:
    for _ in range(x.ndim - 2):
        f = jax.vmap(f)
    return f


columns_p = jex.Primitive("medjax_columns")


def design_for_cpu(num_rows: int) -> Callable[..., Array]:
    """Return the design that a CPU takes for so many rows."""
    return unrolled if num_rows <= NETWORK_MAX_ROWS else in_blocks


def _lower_for_cpu(context: Any, *operands: Any, **params: Any) -> Any:
    design = design_for_cpu(context.avals_in[0].shape[-2])
    return mlir.lower_fun(design, False)(context, *operands, **params)


def _lower_for_cuda(context: Any, *operands: Any, **params: Any) -> Any:
    x = context.avals_in[0]
    fits = x.shape[-2] <= NETWORK_MAX_ROWS and x.dtype == jnp.float32 and x.size > 0
    design = in_registers if fits and hopper.runs_on(context.module_context) else in_passes
    return mlir.lower_fun(design, False)(context, *operands, **params)


def _run(*operands: Array, **params: Any) -> Array:
    if jax.config.jax_disable_jit:  # pyright: ignore[reportAttributeAccessIssue]
        return design_for_cpu(operands[0].shape[-2])(*operands, **params)
    return _run_jitted(*operands, **params)


@partial(jax.jit, static_argnames=("of_rows", "of_matrix", "settings"))
def _run_jitted(*operands: Array, **params: Any) -> Array:
    return columns_p.bind(*operands, **params)


def _shape(x: Any, *vectors: Any, **params: Any) -> ShapedArray:
    del vectors, params
    return ShapedArray((*x.shape[:-2], x.shape[-1]), x.dtype)


def _batch(operands: Sequence[Array], axes: Sequence[Any], **params: Any) -> tuple[Array, int]:
    # Columns don't depend on each other, so that a batch of matrices is one kernel as well.
    size = next(x.shape[a] for x, a in zip(operands, axes, strict=True) if a is not None)
    moved = [
        jnp.broadcast_to(x, (size, *x.shape)) if a is None else jnp.moveaxis(x, a, 0)
        for x, a in zip(operands, axes, strict=True)
    ]
    return columns_p.bind(*moved, **params), 0


def _differentiate(primals: Any, tangents: Any, **params: Any) -> Any:
    tangents = tuple(map(ad.instantiate_zeros, tangents))
    # One design for all platforms: what is selected counts as constant, and the designs differ in
    # what they add to it.
    design = design_for_cpu(primals[0].shape[-2])
    return jax.jvp(partial(design, **params), primals, tangents)


columns_p.def_abstract_eval(_shape)
columns_p.def_impl(_run)
mlir.register_lowering(columns_p, mlir.lower_fun(in_passes, multiple_results=False))
mlir.register_lowering(columns_p, _lower_for_cpu, platform="cpu")
mlir.register_lowering(columns_p, _lower_for_cuda, platform="cuda")
batching.primitive_batchers[columns_p] = _batch
ad.primitive_jvps[columns_p] = _differentiate

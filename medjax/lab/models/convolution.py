"""The 3x3 convolution, as a flax module; fast where every worker has a gradient of its own."""

from collections.abc import Callable
from functools import cache, partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jax.custom_batching import custom_vmap
from jax.nn.initializers import Initializer
from jaxtyping import Array, Float


class Conv3x3(nn.Module):
    """y = convolve(x, kernel) + bias, with the parameters of flax's own `nn.Conv`."""

    channels: int
    stride: int = 1
    kernel_init: Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 D"]:
        """Return the features, H2 = ⌈H / stride⌉ by W2 = ⌈W / stride⌉ of them."""
        kernel = self.param("kernel", self.kernel_init, (3, 3, x.shape[-1], self.channels))
        bias = self.param("bias", nn.initializers.zeros, (self.channels,))
        return convolve(x, kernel, self.stride) + bias[None, None, None]


def convolve(
    x: Float[Array, "B H W C"], kernel: Float[Array, "3 3 C D"], stride: int = 1
) -> Float[Array, "B H2 W2 D"]:
    """y[p, d] = Σ_k Σ_c x[stride · p + k, c] kernel[k, c, d], k in {-1, 0, 1}²; 0 outside x.

    The images of workers that share a kernel are convolved as one batch. The kernel's gradients,
    one for each worker, would be grouped convolutions if it were left to JAX, which XLA runs many
    times slower on a CPU than products of 3x3 patches. The same holds of kernels that differ.

    Args:
        x: the images, or the features of the layer before.
        kernel: the weights.
        stride: the distance of the features, in pixels.

    Returns:
        The features, H2 = ⌈H / stride⌉ by W2 = ⌈W / stride⌉ of them.
    """
    return _convolve(x, kernel, stride)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve(x: Array, kernel: Array, stride: int) -> Array:
    return _features(stride)(x, kernel)


def _forward(x: Array, kernel: Array, stride: int) -> tuple[Array, tuple[Array, Array]]:
    return _convolve(x, kernel, stride), (x, kernel)


def _backward(
    stride: int, kept: tuple[Array, Array], dy: Float[Array, "B H2 W2 D"]
) -> tuple[Array, Array]:
    """dx[p] = Σ_k up[p - k] kernel[k]ᵀ; up is dy with zeros between, as far apart as the stride."""
    x, kernel = kept
    zeros = [
        (0, size - stride * (rows - 1) - 1, stride - 1)
        for size, rows in zip(x.shape[1:3], dy.shape[1:3], strict=True)
    ]
    up = lax.pad(dy, jnp.zeros((), dy.dtype), [(0, 0, 0), *zeros, (0, 0, 0)])
    dx = _features(1)(up, kernel[::-1, ::-1].swapaxes(2, 3))
    dkernel = lax.platform_dependent(
        x, dy, cpu=_in_turns(stride), default=partial(_kernel_gradient, stride=stride)
    )
    return dx, dkernel


_convolve.defvjp(_forward, _backward)


@cache
def _features(stride: int) -> Callable[[Array, Array], Array]:
    """Make the function from x and the kernel to the features."""

    @custom_vmap
    def features(x: Array, kernel: Array) -> Array:
        if min(x.shape[1:3]) < 3:  # where XLA's own convolution is ten times slower on a CPU
            return _products(x, kernel, stride)
        layout = ("NHWC", "HWIO", "NHWC")
        strides, padding = (stride, stride), ((1, 1), (1, 1))
        return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=layout)

    @features.def_vmap
    def batched(size: int, is_batched: list[bool], x: Array, kernel: Array) -> tuple[Array, bool]:
        """Convolve all images at once; with a kernel each, in turns, or as products of patches."""
        if not is_batched[1]:
            y = features(x.reshape(-1, *x.shape[2:]), kernel)
            return y.reshape(size, -1, *y.shape[1:]), True
        if not is_batched[0]:
            x = jnp.broadcast_to(x, (size, *x.shape))
        y = lax.platform_dependent(
            x,
            kernel,
            cpu=lambda x, kernel: lax.map(lambda each: features(*each), (x, kernel)),
            default=jax.vmap(partial(_products, stride=stride)),
        )
        return y, True

    return features


@cache
def _in_turns(stride: int) -> Callable[[Array, Array], Array]:
    """Make the kernel's gradient for a CPU: of one worker at a time, whose images fit its cache."""

    @custom_vmap
    def gradient(x: Array, dy: Array) -> Array:
        return _kernel_gradient(x, dy, stride)

    @gradient.def_vmap
    def batched(size: int, is_batched: list[bool], x: Array, dy: Array) -> tuple[Array, bool]:
        x, dy = (
            z if has_it else jnp.broadcast_to(z, (size, *z.shape))
            for z, has_it in zip((x, dy), is_batched, strict=True)
        )
        return lax.map(lambda each: gradient(*each), (x, dy)), True

    return gradient


def _kernel_gradient(
    x: Float[Array, "B H W C"], dy: Float[Array, "B H2 W2 D"], stride: int
) -> Float[Array, "3 3 C D"]:
    """dkernel[i, j] = Σ_p x[stride · p + (i, j)]ᵀ dy[p], i and j in {-1, 0, 1}.

    It is one product: of x, three times side by side, each time shifted by another j, and of dy,
    three times, shifted by -i. That copies 3C + 3D numbers of a pixel; patches of x would be 9C.
    """
    (height, width), (channels, filters) = dy.shape[1:3], (x.shape[-1], dy.shape[-1])
    if 2 * channels < filters:  # the patches are fewer numbers
        product = jnp.einsum("bhwp,bhwd->pd", _patches(x, stride), dy)
        return product.reshape(3, 3, channels, filters)
    rows = x.shape[1]
    padded = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0)))
    across = [padded[:, :, j : j + stride * (width - 1) + 1 : stride] for j in range(3)]
    between = (1, rows - stride * (height - 1), stride - 1)
    up = lax.pad(dy, jnp.zeros((), dy.dtype), [(0, 0, 0), between, (0, 0, 0), (0, 0, 0)])
    along = [up[:, 2 - i : 2 - i + rows] for i in range(3)]
    product = jnp.einsum(
        "bhwp,bhwq->pq", jnp.concatenate(across, axis=-1), jnp.concatenate(along, axis=-1)
    )
    return product.reshape(3, channels, 3, filters).transpose(2, 0, 1, 3)


def _products(
    x: Float[Array, "B H W C"], kernel: Float[Array, "3 3 C D"], stride: int
) -> Float[Array, "B H2 W2 D"]:
    """Return the features, as products of the patches with the kernel."""
    return _patches(x, stride) @ kernel.reshape(-1, kernel.shape[-1])


def _patches(x: Float[Array, "B H W C"], stride: int) -> Float[Array, "B H2 W2 9*C"]:
    """Return the 3x3 neighbourhood of each pixel, or of each stride-th; 0 outside the image."""
    height, width = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifts = [
        padded[:, i : i + height : stride, j : j + width : stride]
        for i in range(3)
        for j in range(3)
    ]
    return jnp.concatenate(shifts, axis=-1)

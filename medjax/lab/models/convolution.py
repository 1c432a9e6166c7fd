"""The 3x3 convolution, as a flax module; fast where every worker has a gradient of its own."""

import jax
import jax.numpy as jnp
from flax import linen as nn
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

    It is computed as matrix products of 3x3 patches. The gradients of the workers' convolutions,
    stacked, would be grouped convolutions, which XLA runs many times slower on the CPU than the
    batched matrix products that they become this way.

    Args:
        x: the images, or the features of the layer before.
        kernel: the weights.
        stride: the distance of the features, in pixels.

    Returns:
        The features, H2 = ⌈H / stride⌉ by W2 = ⌈W / stride⌉ of them.
    """
    if stride == 1 and x.shape[-1] >= kernel.shape[-1]:
        return _convolve(x, kernel)
    return _product(_patches(x, stride), kernel)


def _patches(x: Float[Array, "B H W C"], stride: int = 1) -> Float[Array, "B H2 W2 9*C"]:
    """Return the 3x3 neighbourhood of each pixel, or of each stride-th; 0 outside the image."""
    height, width = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifts = [
        padded[:, i : i + height : stride, j : j + width : stride]
        for i in range(3)
        for j in range(3)
    ]
    return jnp.concatenate(shifts, axis=-1)


def _product(
    patches: Float[Array, "B H W 9*C"], kernel: Float[Array, "3 3 C D"]
) -> Float[Array, "B H W D"]:
    return patches @ kernel.reshape(-1, kernel.shape[-1])


# Left to JAX, x's patches, nine times its size, are kept from the forward pass for the kernel's
# gradient. But both gradients are products of the *output gradient's* patches, so that x alone need
# be kept: for a ResNet a third of the memory, and faster. Not so where those would be the larger
# ones, of more channels than x has, or of dilated pixels.
@jax.custom_vjp
def _convolve(
    x: Float[Array, "B H W C"], kernel: Float[Array, "3 3 C D"]
) -> Float[Array, "B H W D"]:
    return _product(_patches(x), kernel)


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _convolve(x, kernel), (x, kernel)


def _backward(kept: tuple[Array, Array], dy: Float[Array, "B H W D"]) -> tuple[Array, Array]:
    """dx[p] = Σ_k kernel[-k] dy[p + k], and dkernel[-k] = Σ_p x[p] dy[p + k]ᵀ."""
    x, kernel = kept
    patches = _patches(dy)
    dx = _product(patches, kernel[::-1, ::-1].swapaxes(2, 3))
    products = jnp.einsum("bhwc,bhwp->cp", x, patches).reshape(x.shape[-1], 3, 3, -1)
    return dx, jnp.moveaxis(products[:, ::-1, ::-1], 0, 2)


_convolve.defvjp(_forward, _backward)

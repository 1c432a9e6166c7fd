"""The authors' own parts of the published tables: the network, and Krum of fourth powers."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Key

from medjax import rules
from medjax.lab.models.convolution import convolve

_MEAN, _DEVIATION = 0.1307, 0.3081  # of MNIST's pixels


class Network(nn.Module):
    """PyTorch's example for MNIST, with its initial values: 1,199,882 parameters.

    Convolutions of 3x3 without padding to 32 and 64 channels, 2x2 max pooling, dropout of 0.25 of
    an image's channels, a linear layer to 128, dropout of 0.5, a linear layer.

    Dropout leaves out the same numbers for every worker and in every step. So it is in the authors'
    simulator, which sets the random state back after each worker.
    """

    num_classes: int

    @nn.compact
    def __call__(
        self, images: Float[Array, "B H W 1"], key: Key[Array, ""] | None = None
    ) -> Float[Array, "B K"]:
        """Return the logits; there is dropout if there is a key, whichever it is."""
        keys = [None, None] if key is None else list(jax.random.split(jax.random.key(0)))
        x = (images - _MEAN) / _DEVIATION
        x = nn.relu(self._convolution("first", x, 32))
        x = self._convolution("second", x, 64)
        pairs = jnp.maximum(x[:, ::2], x[:, 1::2])
        x = jnp.maximum(pairs[:, :, ::2], pairs[:, :, 1::2])
        x = _drop(x, 0.25, keys[0])
        x = nn.relu(self._linear("third", x.reshape(x.shape[0], -1), 128))
        return self._linear("fourth", _drop(x, 0.5, keys[1]), self.num_classes)

    def _convolution(self, name: str, x: Array, channels: int) -> Array:
        fan_in = 9 * x.shape[-1]
        kernel = self.param(name, _uniform(fan_in), (3, 3, x.shape[-1], channels))
        bias = self.param(f"{name}_bias", _uniform(fan_in), (channels,))
        return convolve(x, kernel)[:, 1:-1, 1:-1] + bias[None, None, None]

    def _linear(self, name: str, x: Array, features: int) -> Array:
        fan_in = x.shape[-1]
        kernel = self.param(name, _uniform(fan_in), (fan_in, features))
        return x @ kernel + self.param(f"{name}_bias", _uniform(fan_in), (features,))[None]


def _uniform(fan_in: int) -> Callable[[Key[Array, ""], tuple[int, ...]], Array]:
    """Return PyTorch's usual way to draw parameters, uniform between ±1/√fan-in."""
    bound = fan_in**-0.5
    return lambda key, shape: jax.random.uniform(key, shape, minval=-bound, maxval=bound)


def _drop(x: Array, rate: float, key: Key[Array, ""] | None) -> Array:
    """Drop each channel of each example with a probability; the others grow to make up for it."""
    if key is None:
        return x
    kept = jax.random.bernoulli(key, 1 - rate, (x.shape[0], *[1] * (x.ndim - 2), x.shape[-1]))
    return jnp.where(kept, x / (1 - rate), 0)


def krum(num_byzantine: int) -> rules.Geometric:
    """Krum as in the authors' program, where distances are squared twice.

        x_i with the lowest Σ_{j ∈ N(i)} ‖x_i - x_j‖⁴, N(i) = the n - f - 2 vectors nearest x_i.

    A vector that others copy has short distances and long ones, whose fourth powers count for more
    than their squares. So it is chosen less often than by `rules.krum`.
    """

    def weights(vectors: rules.Vectors, key: object) -> Float[Array, " n"]:
        del key
        n = vectors.num_workers
        # The first of the sorted distances is the one from a vector to itself.
        squares = jnp.sort(vectors.squared_distances, axis=1)[:, 1 : n - num_byzantine - 1]
        return jnp.zeros(n, vectors.dtype).at[(squares**2).sum(axis=1).argmin()].set(1)

    return rules.Geometric(f"krum_of_fourth_powers(num_byzantine={num_byzantine})", weights)

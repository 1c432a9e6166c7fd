"""The paper's residual network, ResNet-20 without batch normalisation, in flax."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from medjax.lab.models.convolution import Conv3x3

_STAGES = (16, 32, 64)
_BLOCKS_PER_STAGE = 3

# For a convolution before a ReLU: variance 2 / fan-in (He et al., 2015).
_HE = nn.initializers.he_normal()

# For the last convolution of a branch: variance 1 / (L · fan-in), L = 9 blocks. Then a branch adds
# 1/L of its input's second moment, which all L together multiply by at most (1 + 1/L)^L < e: what
# normalisation would otherwise see to (De and Smith, 2020, whose factor 1/√L this is). Not 0, as is
# also usual: the channels that a shortcut pads would be exactly 0, where JAX's ReLU has gradient 0,
# and no mean or vote would ever move them.
_BRANCH_END = nn.initializers.variance_scaling(
    1 / (len(_STAGES) * _BLOCKS_PER_STAGE), "fan_in", "truncated_normal"
)


class ResNet20(nn.Module):
    """ResNet-20 for CIFAR-10 (He et al., 2016), with biases in place of batch normalisation.

    A convolution; three stages of three blocks, of 16, 32 and 64 channels, the second and third of
    half their input's height and width; the average over the pixels; a linear layer. 269,034
    parameters for CIFAR-10.
    """

    num_classes: int

    @nn.compact
    def __call__(self, images: Float[Array, "B H W C"]) -> Float[Array, "B K"]:
        """Return the logits."""
        x = nn.relu(Conv3x3(_STAGES[0], kernel_init=_HE)(images))
        for channels in _STAGES:
            for block in range(_BLOCKS_PER_STAGE):
                stride = 2 if block == 0 and channels > _STAGES[0] else 1
                x = Block(channels, stride)(x)
        return nn.Dense(self.num_classes)(x.mean(axis=(1, 2)))


class Block(nn.Module):
    """x ↦ relu(shortcut(x) + conv(relu(conv(x)))), the first convolution with the stride."""

    channels: int
    stride: int

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 D"]:
        """Return the features, H2 = ⌈H / stride⌉ by W2 = ⌈W / stride⌉ of them."""
        branch = nn.relu(Conv3x3(self.channels, self.stride, kernel_init=_HE)(x))
        branch = Conv3x3(self.channels, kernel_init=_BRANCH_END)(branch)
        return nn.relu(_shortcut(x, self.channels, self.stride) + branch)


def _shortcut(x: Float[Array, "B H W C"], channels: int, stride: int) -> Float[Array, "B H2 W2 D"]:
    """Take every stride-th pixel, and pad new channels with 0: option A, without parameters."""
    new = channels - x.shape[-1]
    return jnp.pad(x[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), (0, new)))

"""The models by name.

Each adapts to the shape of its inputs, and to the number of classes or of characters.
"""

from collections.abc import Callable, Mapping

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from medjax.lab.data import Dataset, Inputs
from medjax.lab.models.convolution import Conv3x3
from medjax.lab.models.resnet import ResNet20
from medjax.lab.models.transformer import Transformer


class MLP(nn.Module):
    """The paper's fully connected network, 784-128-10 on MNIST, with ReLU (Chen et al., 2020).

    flax initialises the weights as the paper does: truncated normal, variance 1 / fan-in.
    """

    num_classes: int
    hidden: int = 128

    @nn.compact
    def __call__(self, images: Float[Array, "B H W C"]) -> Float[Array, "B K"]:
        """Return the logits."""
        x = images.reshape(images.shape[0], -1)
        x = nn.relu(nn.Dense(self.hidden)(x))
        return nn.Dense(self.num_classes)(x)


class Logistic(nn.Module):
    """Multinomial logistic regression: convex."""

    num_classes: int

    @nn.compact
    def __call__(self, images: Float[Array, "B H W C"]) -> Float[Array, "B K"]:
        """Return the logits."""
        return nn.Dense(self.num_classes)(images.reshape(images.shape[0], -1))


class CNN(nn.Module):
    """Two 3x3 convolutions, 16 and 32 channels, each halved by max pooling; a linear layer."""

    num_classes: int

    @nn.compact
    def __call__(self, images: Float[Array, "B H W C"]) -> Float[Array, "B K"]:
        """Return the logits."""
        x = images
        for channels in (16, 32):
            x = _halve(nn.relu(Conv3x3(channels)(x)))
        return nn.Dense(self.num_classes)(x.reshape(x.shape[0], -1))


def _halve(x: Float[Array, "B H W C"]) -> Float[Array, "B ⌈H/2⌉ ⌈W/2⌉ C"]:
    """2x2 max pooling of non-negative numbers; an odd last row or column is pooled alone."""
    x = jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)))
    pairs = jnp.maximum(x[:, ::2], x[:, 1::2])
    return jnp.maximum(pairs[:, :, ::2], pairs[:, :, 1::2])


MODELS_ON: Mapping[Inputs, Mapping[str, Callable[..., nn.Module]]] = {
    "images": {
        "mlp": MLP,
        "logistic": Logistic,
        "cnn": CNN,
        "resnet20": ResNet20,
    },
    "characters": {
        "transformer": Transformer,
    },
}
"""The models by the kind of their inputs; each is made with `num_classes`."""

MODELS: Mapping[str, Callable[..., nn.Module]] = {
    name: model for models in MODELS_ON.values() for name, model in models.items()
}
"""Every model by its name."""


def check_takes(name: str, dataset: Dataset) -> None:
    """Check that a model takes the inputs of a data set.

    Args:
        name: the model's.
        dataset: the data set.

    Raises:
        ValueError: if it takes others.
    """
    valid = MODELS_ON[dataset.inputs]
    if name not in valid:
        taken = next(inputs for inputs, models in MODELS_ON.items() if name in models)
        raise ValueError(
            f"--model {name} takes {taken}, and dataset {dataset.name!r} is of {dataset.inputs}; "
            f"valid: {', '.join(valid)}"
        )

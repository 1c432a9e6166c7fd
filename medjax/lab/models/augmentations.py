"""Random changes of training images, by name."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key

from medjax._engine import checks

Augment: TypeAlias = Callable[[Float[Array, "B H W C"], Key[Array, ""]], Float[Array, "B H W C"]]
"""(images, key) to images of the same shape, each changed by a draw of its own."""


def crop_flip(padding: int = 4) -> Augment:
    """A random crop of the image in a frame of zeros, mirrored or not, as He et al. (2016) do.

    The frame is `padding` pixels wide, the crop has the image's size, and each of its
    (2·padding + 1)² places is as likely as the others. Left and right are swapped with
    probability 1/2.

    Args:
        padding: the width of the frame in pixels, at least 0.

    Raises:
        TypeError: if it isn't a static integer.
        ValueError: if it is below 0 or, when called, not below the images' height and width.
    """
    padding = checks.integer("padding", padding, minimum=0)

    def augment(images: Float[Array, "B H W C"], key: Key[Array, ""]) -> Float[Array, "B H W C"]:
        count, *size = images.shape
        if padding >= min(size[:2]):
            raise ValueError(
                f"crop_flip(padding={padding}) leaves nothing of images of {size[0]}×{size[1]} "
                f"pixels; valid: padding below {min(size[:2])}"
            )
        place_key, flip_key = jax.random.split(key)
        places = jax.random.randint(place_key, (count, 2), 0, 2 * padding + 1)
        framed = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))

        def crop(image: Float[Array, "h w C"], place: Array) -> Float[Array, "H W C"]:
            return lax.dynamic_slice(image, (*place, jnp.zeros_like(place[0])), size)

        crops = jax.vmap(crop)(framed, places)
        flips = jax.random.bernoulli(flip_key, shape=(count, 1, 1, 1))
        return jnp.where(flips, crops[:, :, ::-1], crops)

    return augment


AUGMENTATIONS: Mapping[str, Callable[..., Augment]] = {"crop_flip": crop_flip}
"""Factories of augmentations by name."""

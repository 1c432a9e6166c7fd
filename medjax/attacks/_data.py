"""Attacks on the Byzantine workers' data; the workers then follow the protocol."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Int, Shaped

from medjax._engine import checks
from medjax._engine.settings import Real, settings_text, static_real
from medjax.attacks._attack import count_honest
from medjax.partition._worker_data import WorkerData


@dataclass(frozen=True)
class DataAttack:
    """An attack that changes the Byzantine workers' examples before the training, and no more.

    Attributes:
        name: the attack with its settings.
        poison: (inputs (n, m, ...), labels (n, m), which of them to poison (n, m)) to the inputs
            and labels with those poisoned.
        share: the part of their examples that the Byzantine workers poison.
        target: the label that a backdoor makes the model give to poisoned inputs; None for other
            attacks.
    """

    name: str
    poison: Callable[
        [Shaped[Array, "n m ..."], Int[Array, "n m"], Bool[Array, "n m"]],
        tuple[Shaped[Array, "n m ..."], Int[Array, "n m"]],
    ]
    share: float = 1.0
    target: int | None = None

    def __call__(self, data: WorkerData, num_byzantine: int) -> WorkerData:
        """Poison the data of the last f workers.

        ⌊share · k⌋ of a worker's k examples are poisoned, evenly spread over them. Padding repeats
        them, as before.

        Raises:
            TypeError: if the examples aren't a pair of inputs and integer labels, or if f isn't a
                static integer.
            ValueError: if f isn't from 0 to n - 1, or the attack can't take such examples.
        """
        f = checks.integer("num_byzantine", num_byzantine, minimum=0)
        inputs, labels = _pair(self.name, data)
        h = count_honest(self.name, f, data.num_workers)
        if f == 0:
            return data
        rows = np.arange(labels.shape[1])
        # The small number makes up for rounding: 0.29 · 100 is a little less than 29.
        counts = np.floor(np.append(rows, len(rows)) * self.share + 1e-9)
        sizes = jnp.maximum(jnp.asarray(data.sizes), 1)  # a padding worker has no examples
        chosen = jnp.asarray(np.diff(counts) > 0)[jnp.asarray(rows)[None] % sizes[:, None]]
        byzantine = jnp.arange(len(labels))[:, None] >= h
        poisoned = self.poison(inputs, labels, chosen & byzantine)
        return replace(data, examples=poisoned, num_byzantine=max(f, data.num_byzantine))


def label_flip(num_classes: int) -> DataAttack:
    """Mirrored labels, y → K - 1 - y, which give gradients for the wrong classes.

    Fang et al. (2020); Karimireddy et al. (2022).

    Args:
        num_classes: K, at least 2.

    Raises:
        TypeError: if it isn't a static integer.
        ValueError: if it is below 2; when called, if a label isn't from 0 to K - 1.
    """
    last = checks.integer("num_classes", num_classes, minimum=2) - 1

    def poison(inputs: Array, labels: Array, chosen: Array) -> tuple[Array, Array]:
        if not isinstance(labels, Tracer) and labels.size:
            known = np.asarray(labels)
            for label in (int(known.min()), int(known.max())):
                if not 0 <= label <= last:
                    raise ValueError(
                        f"label_flip({num_classes}) is of labels from 0 to {last}, got {label}"
                    )
        return inputs, jnp.where(chosen, last - labels, labels)

    return DataAttack(f"label_flip(num_classes={num_classes})", poison)


def backdoor(target: int, share: float = 0.5, size: int = 3, value: Real = 1.0) -> DataAttack:
    """A pixel trigger on some images, labelled with the target (Bagdasaryan et al., 2018).

    A model trained on them takes every image with the trigger for the target's class, and does well
    on images without it. With an average for a rule, `model_replacement` makes the backdoor stay.
    Its success is the part of test images with the trigger (`add_trigger`) that are classified as
    the target.

    Args:
        target: the label.
        share: the part of a Byzantine worker's images that it poisons, above 0 and at most 1.
        size: the side of the trigger, in pixels.
        value: its colour, in every channel; may be traced.

    Raises:
        TypeError: if a setting isn't a number, or `target`, `share` or `size` not static.
        ValueError: if a setting is out of range, or, when called, if the inputs aren't images
            (n, m, height, width, channels) of at least the trigger's size.
    """
    target = checks.integer("target", target, minimum=0)
    share = static_real("share", share)
    checks.fraction("share", share)
    checks.integer("size", size, minimum=1)
    checks.real("value", value, minimum=-np.inf)
    name = f"backdoor({settings_text(target=target, share=share, size=size, value=value)})"

    def poison(inputs: Array, labels: Array, chosen: Array) -> tuple[Array, Array]:
        if inputs.ndim != 5:
            raise ValueError(
                f"{name} needs images (n, m, height, width, channels), got shape {inputs.shape}"
            )
        largest = int(jnp.iinfo(labels.dtype).max)
        if target > largest:
            raise ValueError(
                f"target must be at most {largest}, as {labels.dtype} is, got {target}"
            )
        images = jnp.where(chosen[..., None, None, None], add_trigger(inputs, size, value), inputs)
        return images, jnp.where(chosen, target, labels).astype(labels.dtype)

    return DataAttack(name, poison, share, target)


def add_trigger(
    images: Shaped[Array | np.ndarray, "..."], size: int = 3, value: Real = 1.0
) -> Shaped[Array, "..."]:
    """Put a square of one colour into the lower right corner of images.

    Args:
        images: (..., height, width, channels).
        size: the side of the square, in pixels.
        value: its colour, in every channel; may be traced.

    Raises:
        TypeError: if the size isn't a static integer.
        ValueError: if the images aren't at least (size, size, channels), or have integers, and the
            value isn't one.
    """
    size = checks.integer("size", size, minimum=1)
    if images.ndim < 3 or min(images.shape[-3:-1]) < size:
        raise ValueError(
            f"a trigger of {size}×{size} pixels needs images (..., height, width, channels) of at "
            f"least that size, got shape {images.shape}"
        )
    images = jnp.asarray(images)
    is_known = not isinstance(value, Tracer)
    if jnp.issubdtype(images.dtype, jnp.integer) and is_known and np.any(np.asarray(value) % 1):
        raise ValueError(f"value must be an integer in images of {images.dtype}, got {value}")
    return images.at[..., -size:, -size:, :].set(value)


def _pair(name: str, data: WorkerData) -> tuple[Array, Array]:
    """Return the inputs and the labels."""
    examples = data.examples
    if not isinstance(examples, (tuple, list)) or len(examples) != 2:
        raise TypeError(f"{name} needs examples that are a pair (inputs, labels)")
    inputs, labels = map(jnp.asarray, examples)
    if not jnp.issubdtype(labels.dtype, jnp.integer) or labels.ndim != 2:
        raise TypeError(
            f"{name} needs integer labels (n, m), got {labels.dtype} of shape {labels.shape}"
        )
    return inputs, labels

"""Success of a backdoor: the share of images with its trigger that are taken for the target."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from medjax.attacks import DataAttack

PART = "backdoor"
"""The held-out part: right there is what the attackers want."""

SUCCESS = "backdoor_success"
"""What accuracy on it is called."""


def triggered(
    attacks: Sequence[DataAttack], images: np.ndarray, labels: np.ndarray
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Poison the images of other classes than the target; nothing if no attack is a backdoor.

    Of several backdoors the last one's.
    """
    parts = {}
    for attack in attacks:
        others = labels != attack.target
        if attack.target is not None and others.any():
            x, y = jnp.asarray(images[None, others]), jnp.asarray(labels[None, others])
            x, y = attack.poison(x, y, jnp.ones(y.shape, bool))
            parts[PART] = (np.asarray(x[0]), np.asarray(y[0]))
    return parts

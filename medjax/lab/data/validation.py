"""A part of the training data held out, to choose settings by."""

import numpy as np
from jaxtyping import Bool

_SEED = 0


def hold_out(classes: np.ndarray, fraction: float) -> Bool[np.ndarray, " rows"]:
    """Choose the examples to hold out: the same share of every class, the same in every run.

    Args:
        classes: the class of each example.
        fraction: the share; 0 for none.

    Returns:
        True for each example that is held out.

    Raises:
        ValueError: if that leaves a class without examples in one of the parts.
    """
    held = np.zeros(len(classes), dtype=bool)
    if fraction == 0:
        return held
    rng = np.random.RandomState(_SEED)  # the same numbers in every version of numpy
    for label in np.unique(classes):
        rows = rng.permutation(np.flatnonzero(classes == label))
        count = round(fraction * len(rows))
        if not 0 < count < len(rows):
            raise ValueError(
                f"a validation part of {fraction:g} is {count} of the {len(rows)} examples of "
                f"class {label}; valid: at least 1, and 1 left to train on"
            )
        held[rows[:count]] = True
    return held

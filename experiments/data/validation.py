"""A part of the training data held out, to choose settings by."""

import numpy as np

_SEED = 0

Part = tuple[np.ndarray, np.ndarray]


def hold_out(x: np.ndarray, y: np.ndarray, fraction: float) -> tuple[Part, Part | None]:
    """Split off the same share of every class: the same examples in every run.

    Returns:
        The examples to train on, and those held out; None of a fraction of 0.

    Raises:
        ValueError: if that leaves a class without examples in one of the parts.
    """
    if fraction == 0:
        return (x, y), None
    rng = np.random.RandomState(_SEED)  # the same numbers in every version of numpy
    held = np.zeros(len(y), dtype=bool)
    for label in np.unique(y):
        rows = rng.permutation(np.flatnonzero(y == label))
        count = round(fraction * len(rows))
        if not 0 < count < len(rows):
            raise ValueError(
                f"a validation part of {fraction:g} is {count} of the {len(rows)} examples of "
                f"class {label}; valid: at least 1, and 1 left to train on"
            )
        held[rows[:count]] = True
    return (x[~held], y[~held]), (x[held], y[held])

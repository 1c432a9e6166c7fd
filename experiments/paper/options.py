"""The options of the paper's experiments."""

from typing import NamedTuple

from medjax.lab.data import load


class Options(NamedTuple):
    """The options of one of the paper's experiments.

    Attributes:
        quick: whether to take minutes instead of hours.
        dataset: the images, where there is a choice; None for the experiment's own.
        steps: the number of steps to train for; None for the experiment's own.
    """

    quick: bool = False
    dataset: str | None = None
    steps: int | None = None


def check_images(dataset: str) -> None:
    """Check that a data set is of images.

    Raises:
        ValueError: if it isn't, or can't be had.
    """
    if load(dataset).inputs != "images":
        raise ValueError(f"dataset {dataset!r} is of text; valid: images")

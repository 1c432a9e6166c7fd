"""The options of the paper's experiments."""

from typing import NamedTuple


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

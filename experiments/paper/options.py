"""What may be asked of an experiment."""

from typing import NamedTuple


class Options(NamedTuple):
    """The settings of one of the paper's experiments.

    Attributes:
        quick: whether minutes are to do.
        dataset: the images, where there is a choice; None for the experiment's own.
        steps: how many to train for; None for the experiment's own number.
    """

    quick: bool = False
    dataset: str | None = None
    steps: int | None = None

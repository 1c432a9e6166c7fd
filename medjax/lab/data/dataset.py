"""The one form that all data sets have, and its check for those that users make."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

Inputs: TypeAlias = Literal["images", "characters"]
"""The two kinds of inputs that data sets hold, and models take."""

_FORMS = "float32 images of shape (rows, height, width, channels), or int32 characters (rows, T)"


# No eq: comparing arrays field by field has no single truth value.
@dataclass(frozen=True, eq=False)
class Dataset:
    """Images to classify, or text to predict, in a training and a test part.

    Attributes:
        name: the name it was loaded by.
        train_x: images, float32 in [0, 1], shape (rows, height, width, channels), or windows of
            characters, int32 in 0..num_classes-1, shape (rows, T); as is `test_x`.
        train_y: int32 in 0..num_classes-1: the images' labels, shape (rows,), or the characters
            that follow, shape (rows, T); as is `test_y`.
        num_classes: the number of labels in the training part of images, or of text's characters.
        authors: the author of each training example by number, int32, shape (rows,): of text
            always, of images where their source says it.
    """

    name: str
    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray
    num_classes: int
    authors: np.ndarray | None = None

    @property
    def inputs(self) -> Inputs:
        """The kind of its inputs."""
        return "characters" if np.issubdtype(self.train_x.dtype, np.integer) else "images"

    @property
    def groups(self) -> np.ndarray:
        """The class of each training example: of an image its label, of text its author."""
        if self.inputs == "images" or self.authors is None:
            return self.train_y
        return self.authors


def checked(dataset: object, name: str) -> Dataset:
    """Check a data set that a user made.

    Args:
        dataset: the data set.
        name: the name that it was asked for by, which it gets.

    Returns:
        The same data, under that name.

    Raises:
        ValueError: if it isn't as `Dataset` describes: one line that names the first mistake.
    """
    if not isinstance(dataset, Dataset):
        raise ValueError(f"dataset {name!r} is a {type(dataset).__name__}; valid: a Dataset")
    mistake = next(_mistakes(dataset), None)
    if mistake is not None:
        raise ValueError(f"dataset {name!r}: {mistake}")
    return replace(dataset, name=name, num_classes=int(dataset.num_classes))


def _mistakes(data: Dataset) -> Iterator[str]:
    """Yield the mistakes; a check relies on those before it having found nothing."""
    parts = {"train": (data.train_x, data.train_y), "test": (data.test_x, data.test_y)}
    for part, arrays in parts.items():
        for axis, x in zip("xy", arrays, strict=True):
            if not isinstance(x, np.ndarray):
                yield f"{part}_{axis} is a {type(x).__name__}; valid: a numpy array"
    count = data.num_classes
    if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 1:
        yield f"num_classes is {count!r}; valid: a whole number of at least 1"
    kind = data.train_x.dtype, data.train_x.ndim
    if kind not in ((np.dtype(np.float32), 4), (np.dtype(np.int32), 2)):
        yield f"train_x is {_described(data.train_x)}; valid: {_FORMS}"
    if (data.test_x.dtype, data.test_x.shape[1:]) != (kind[0], data.train_x.shape[1:]):
        form = f"{kind[0]} of shape (rows, {', '.join(map(str, data.train_x.shape[1:]))})"
        yield f"test_x is {_described(data.test_x)}; valid: {form}, as train_x"
    labels = f"0 to {count - 1}, as num_classes is {count}"
    for part, (x, y) in parts.items():
        if not x.size:
            yield f"{part}_x is {_described(x)}; valid: at least one row, and no axis of length 0"
        shape = x.shape if data.inputs == "characters" else x.shape[:1]
        if y.dtype != np.int32 or y.shape != shape:
            yield f"{part}_y is {_described(y)}; valid: int32 of shape {shape}, as {part}_x"
        # Negated, so that NaN is a mistake too.
        if data.inputs == "images" and not (x.min() >= 0 and x.max() <= 1):
            yield f"{part}_x has values from {x.min():g} to {x.max():g}; valid: 0 to 1"
        numbers = {f"{part}_y": y} | ({f"{part}_x": x} if data.inputs == "characters" else {})
        for name, values in numbers.items():
            if values.min() < 0 or values.max() >= count:
                yield f"{name} has values from {values.min()} to {values.max()}; valid: {labels}"
    yield from _mistakes_of_authors(data)


def _mistakes_of_authors(data: Dataset) -> Iterator[str]:
    authors, shape = data.authors, data.train_x.shape[:1]
    valid = f"valid: int32 of shape {shape}, as train_x has rows"
    if authors is None:
        if data.inputs == "characters":
            yield f"authors is None, and text has them; {valid}"
    elif not isinstance(authors, np.ndarray):
        yield f"authors is a {type(authors).__name__}; {valid}"
    elif authors.dtype != np.int32 or authors.shape != shape:
        yield f"authors is {_described(authors)}; {valid}"


def _described(x: np.ndarray) -> str:
    return f"{x.dtype} of shape {x.shape}"

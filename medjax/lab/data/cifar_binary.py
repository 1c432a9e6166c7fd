"""CIFAR-10 in its authors' binary version (Krizhevsky, 2009).

A file is records of 3073 bytes: a label, 0 to 9, and an image of 32×32 pixels, row by row, first
all of their red, then all green, then all blue. Nothing in a file is trusted.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from medjax.lab.data.files import unreadable

SIDE, COLOURS, CLASSES = 32, 3, 10
"""The images' height and width, their channels, and the number of classes."""

FOLDER = "cifar-10-batches-bin"
"""The folder that the archive unpacks to."""

_TRAIN = tuple(f"data_batch_{k}.bin" for k in range(1, 6))
_TEST = "test_batch.bin"

FILES = (*_TRAIN, _TEST)
"""The names of the files."""

_RECORD = 1 + COLOURS * SIDE**2
_MOST_RECORDS = 1_000_000  # of a file: the published ones have 10,000


class Part(NamedTuple):
    """Images and their labels."""

    images: UInt8[np.ndarray, "rows 32 32 3"]
    labels: UInt8[np.ndarray, " rows"]


def read_binary(directory: Path) -> tuple[Part, Part]:
    """Read the training and the test part, in the files' order.

    Args:
        directory: the folder of the six files, which are there.

    Raises:
        ValueError: if a file isn't whole records with labels from 0 to 9.
    """
    parts = [_read(directory / name) for name in _TRAIN]
    return Part(*map(np.concatenate, zip(*parts, strict=True))), _read(directory / _TEST)


def _read(path: Path) -> Part:
    shown, size = repr(str(path)), path.stat().st_size
    count, rest = divmod(size, _RECORD)
    if rest or not 0 < count <= _MOST_RECORDS:
        raise ValueError(
            f"{shown}: {size} bytes; valid: 1 to {_MOST_RECORDS} records of {_RECORD} bytes each"
        )
    try:
        with open(path, "rb") as file:
            data = file.read(size)
    except OSError as err:
        raise unreadable(shown, err) from None
    if len(data) != size:
        raise ValueError(f"{shown}: only {len(data)} of {size} bytes could be read")
    records = np.frombuffer(data, np.uint8).reshape(count, _RECORD)
    labels = records[:, 0]
    if labels.max() >= CLASSES:
        wrong = int(np.argmax(labels >= CLASSES))
        raise ValueError(
            f"{shown}: label {labels[wrong]} in record {wrong}; valid: 0 to {CLASSES - 1}"
        )
    planes = records[:, 1:].reshape(count, COLOURS, SIDE, SIDE)
    return Part(planes.transpose(0, 2, 3, 1), labels)

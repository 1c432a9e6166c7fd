"""Image and text classification from data sets of Hugging Face."""

import difflib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from medjax.lab.data.cache import Arrays, cached
from medjax.lab.data.hf_find import Found, find, readable
from medjax.lab.data.outside import quiet, shortened
from medjax.lab.data.tfds import CLIENTS, Part

_IMAGES, _TEXTS, _LABELS = ("image", "img"), ("text", "sentence", "content"), ("label", "labels")
_GREY = ("1", "L", "LA")  # Pillow's modes of up to 8 bits
_COLOUR = ("P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")


class Texts(NamedTuple):
    """Texts of the training and of the test part, those of a class or a client joined.

    Attributes:
        train: one for each class or client, in their order.
        test: likewise; None if the set has no test part.
    """

    train: Sequence[str]
    test: Sequence[str] | None


class _Columns(NamedTuple):
    """The names of the columns that are read: an image or a text, its label, and its client."""

    images: str | None
    texts: str | None
    label: str | None
    client: str | None


def read_hf(
    argument: str, clients: str | None, cache_dir: Path | None, instead: str
) -> tuple[Part, Part | None] | Texts:
    """Read the training and the test part of a set.

    To decode 60,000 images takes about 15 s, so the arrays are kept in a cache.

    Args:
        argument: USER/SET[:CONFIG], or NAME[:CONFIG]@DIR.
        clients: the column that says whose an example is; None for one of the usual names if there
            is such a column. Of text it takes the label's place.
        cache_dir: where to keep arrays; None for `medjax` in the user's cache directory.
        instead: the data sets that need no network, for a message.

    Returns:
        The training part, and the test part, or else the one called validation, or else None.

    Raises:
        ValueError: if it isn't of images or text to classify, or can't be read.
        FileNotFoundError: if it can't be had.
        ModuleNotFoundError: if it takes a package that isn't installed.
    """
    with quiet():
        found = find(argument, instead)
        columns = _columns(found, clients)
        splits = _splits(found)
        if columns.texts is not None:
            texts = [_texts(found, split, columns) for split in splits]
            return Texts(texts[0], texts[1] if len(texts) > 1 else None)
        kinds = ("images", "labels", *(["clients"] if columns.client else []))
        names = {f"{kind}{k}" for k in range(len(splits)) for kind in kinds}
        version = hashlib.sha256(f"{found.version}\n{columns}".encode()).hexdigest()[:16]
        arrays = cached(
            cache_dir,
            f"hf-{version}",
            lambda: _alike([_decoded(found, split, columns) for split in splits], found.shown),
            lambda kept: set(kept) == names,
        )
    parts = [_part(arrays, k) for k in range(len(splits))]
    return parts[0], parts[1] if len(parts) > 1 else None


def _splits(found: Found) -> list[str]:
    splits = [str(split) for split in found.splits]
    if "train" not in splits:
        raise ValueError(
            f"dataset {found.shown} has the splits {', '.join(splits)}; valid: train, and perhaps "
            "test or validation"
        )
    return ["train", *[split for split in ("test", "validation") if split in splits][:1]]


def _part(arrays: Arrays, k: int) -> Part:
    clients = arrays.get(f"clients{k}")
    if clients is not None:
        clients = np.unique(clients, return_inverse=True)[1].astype(np.int32)
    return Part(arrays[f"images{k}"], arrays[f"labels{k}"], clients)


def _columns(found: Found, clients: str | None) -> _Columns:
    """Choose the columns by their types, and by usual names where several have a type.

    Raises:
        ValueError: if there is no such column, or several that might be meant.
    """
    import datasets

    features = found.features
    strings = [k for k, x in features.items() if _dtype(x) in ("string", "large_string")]
    numbers = [k for k, x in features.items() if _dtype(x).lstrip("u").startswith("int")]
    classes = [k for k, x in features.items() if isinstance(x, datasets.ClassLabel)]
    pictures = [k for k, x in features.items() if _is_image(x)]
    scalars = [k for k in features if k in {*strings, *numbers, *classes}]
    if clients is not None and clients not in scalars:
        near = difflib.get_close_matches(clients, scalars, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        what = f"has in {clients!r} no" if clients in features else f"has no column {clients!r} of"
        raise ValueError(
            f"dataset {found.shown} {what} strings or whole numbers, as --clients names: {hint}"
            f"valid: {', '.join(scalars)}"
        )
    client = clients or next((name for name in CLIENTS if name in scalars), None)

    def one(what: str, names: Sequence[str], usual: Sequence[str]) -> str | None:
        names = [name for name in names if name != client]
        likely = [name for name in usual if name in names][:1] or names
        if len(likely) > 1:
            raise ValueError(
                f"dataset {found.shown} has several columns of {what}, {', '.join(likely)}; valid: "
                f"one, or one called {' or '.join(usual)}"
            )
        return next(iter(likely), None)

    image = one("images", pictures, _IMAGES)
    text = None if image else one("text", strings, _TEXTS)
    listed = shortened(", ".join(f"{name} ({_kind(x)})" for name, x in features.items()))
    if image is None and text is None:
        raise ValueError(
            f"dataset {found.shown} has the columns {listed}; valid: one of images (Image) or of "
            "text (string)"
        )
    if text is not None and clients is not None:
        return _Columns(None, text, None, clients)
    label = one("labels", classes, _LABELS) or one("labels", numbers, _LABELS)
    if text is not None and label is None and client is not None:
        return _Columns(None, text, None, client)
    if label is None:
        raise ValueError(
            f"dataset {found.shown} has the columns {listed}; valid: one of labels too (ClassLabel "
            "or whole numbers)"
        )
    return _Columns(image, text, label, None if text else client)


def _dtype(feature: Any) -> str:
    import datasets

    return feature.dtype if isinstance(feature, datasets.Value) else ""


def _is_image(feature: Any) -> bool:
    """Tell images, also as files have them that other libraries wrote: their bytes and a path."""
    import datasets

    is_struct = isinstance(feature, dict) and _dtype(feature.get("bytes")) == "binary"
    return is_struct or isinstance(feature, datasets.Image)


def _kind(feature: Any) -> str:
    return _dtype(feature) or type(feature).__name__


def _rows(found: Found, split: str, names: Sequence[str]) -> Iterator[list[Any]]:
    """Yield some columns' values of each example.

    Raises:
        ValueError: if one is missing, or the files can't be read.
    """
    with readable(found.shown, found.where):
        for number, example in enumerate(found.splits[split]):
            row = [example[name] for name in names]
            for name, value in zip(names, row, strict=True):
                if value is None:
                    raise ValueError(f"{name} is missing in example {number} of its split {split}")
            yield row


def _texts(found: Found, split: str, columns: _Columns) -> list[str]:
    of_group: dict[Any, list[str]] = {}
    for text, group in _rows(found, split, _present(columns)):
        of_group.setdefault(group, []).append(text)
    return ["\n".join(of_group[group]) for group in sorted(of_group)]


def _present(columns: _Columns) -> list[str]:
    return [name for name in columns if name is not None]


def _decoded(found: Found, split: str, columns: _Columns) -> dict[str, np.ndarray]:
    """Read a split as arrays.

    Raises:
        ValueError: if it is empty, or its images aren't of 8 bits and one size.
    """
    import datasets

    with readable(found.shown, found.where):
        images: Any = found.splits[split]
        decoded = images.cast_column(columns.images, datasets.Image())
    found = found._replace(splits={**found.splits, split: decoded})
    values: list[list[Any]] = [[] for _ in _present(columns)]
    for picture, *others in _rows(found, split, _present(columns)):
        image = _pixels(picture, found.shown)
        for column, value in zip(values, (image, *others), strict=True):
            column.append(value)
        first = values[0][0]
        if image.shape[:2] != first.shape[:2]:
            raise ValueError(
                f"dataset {found.shown} has images of {_size(first)} and of {_size(image)} in its "
                f"split {split}; valid: all of one height and width"
            )
    if not values[0]:
        raise ValueError(f"dataset {found.shown} has no examples in its split {split}")
    channels = max(image.shape[2] for image in values[0])
    values[0] = [np.broadcast_to(x, (*x.shape[:2], channels)) for x in values[0]]
    return dict(zip(("images", "labels", "clients"), map(np.array, values), strict=False))


def _pixels(picture: Any, shown: str) -> np.ndarray:
    if picture.mode not in (*_GREY, *_COLOUR):
        raise ValueError(
            f"dataset {shown} has an image in mode {picture.mode}; valid: up to 8 bits a channel"
        )
    grey = picture.mode in _GREY
    pixels = np.asarray(picture.convert("L" if grey else "RGB"))
    return pixels[..., None] if grey else pixels


def _alike(parts: Sequence[Mapping[str, np.ndarray]], shown: str) -> Arrays:
    """Number the parts' arrays, their images of as many channels.

    Raises:
        ValueError: if they aren't of one size.
    """
    first, last = parts[0]["images"], parts[-1]["images"]
    if first.shape[1:3] != last.shape[1:3]:
        raise ValueError(
            f"dataset {shown} has images of {_size(first[0])} to train on and of {_size(last[0])} "
            "to test on; valid: all of one height and width"
        )
    channels = max(first.shape[3], last.shape[3])
    arrays = {f"{kind}{k}": x for k, part in enumerate(parts) for kind, x in part.items()}
    for name in [name for name in arrays if name.startswith("images")]:
        arrays[name] = np.broadcast_to(arrays[name], (*arrays[name].shape[:3], channels))
    return arrays


def _size(image: np.ndarray) -> str:
    return "×".join(map(str, image.shape[:2]))

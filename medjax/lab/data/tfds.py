"""Image classification from TensorFlow Datasets (TFDS), read without TensorFlow."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from medjax.lab.data.cache import Arrays, cached, fingerprint
from medjax.lab.data.outside import quiet
from medjax.lab.data.tfds_find import FORMAT, find, readable

CLIENTS = tuple(
    f"{who}{suffix}" for who in ("writer", "client", "user", "author") for suffix in ("_id", "")
)
"""Names of a feature that says whose an example is; the first that a set has is taken."""


class Part(NamedTuple):
    """Images, their labels, and their clients.

    Attributes:
        images: all of one size.
        labels: the classes.
        clients: whose each example is, numbered from 0; None if the set doesn't say it.
    """

    images: UInt8[np.ndarray, "rows height width channels"]
    labels: Int[np.ndarray, " rows"]
    clients: Int[np.ndarray, " rows"] | None

    def take(self, rows: np.ndarray) -> "Part":
        """Select the examples of some rows."""
        return Part(*(None if x is None else x[rows] for x in self))  # pyright: ignore


def read_tfds(argument: str, cache_dir: Path | None, instead: str) -> tuple[Part, Part | None]:
    """Read the training and the test part of a set.

    To decode 60,000 images takes 10 to 30 s, so the arrays are kept in a cache.

    Args:
        argument: SET[/CONFIG][:VERSION][@DIR].
        cache_dir: where to keep them; None for `medjax` in the user's cache directory.
        instead: the data sets that need no network, for a message.

    Returns:
        The training part, and the test part, or else the one called validation, or else None; both
        in TFDS's order.

    Raises:
        ValueError: if there is no such set, or it isn't of images to classify, all of one size.
        FileNotFoundError: if it isn't prepared, and can't be.
        ImportError: if it takes a package that isn't installed.
    """
    name, _, directory = argument.partition("@")
    shown = repr(f"tfds:{name}")
    with quiet():
        builder = find(name, directory, instead)
        _check_format(builder, shown)
        splits = list(builder.info.splits)
        keys = _keys(builder.info, shown)
        held_out = [split for split in ("test", "validation") if split in splits][:1]
        if "train" not in splits:
            raise ValueError(
                f"dataset {shown} has the splits {', '.join(splits) or 'none'}; valid: train, and "
                "perhaps test or validation"
            )

        def make() -> Arrays:
            parts = [_decode(builder, split, keys, shown) for split in ("train", *held_out)]
            return {f"{kind}{k}": x for k, part in enumerate(parts) for kind, x in part.items()}

        stem = f"tfds-{builder.name}-{fingerprint(Path(builder.data_dir))}"
        expected = {f"{kind}{k}" for k in range(1 + len(held_out)) for kind in keys}
        arrays = cached(cache_dir, stem, make, lambda kept: set(kept) == expected)
    train, *test = (_part(arrays, k, builder.name) for k in range(1 + len(held_out)))
    for part in test:
        if part.images.shape[1:] != train.images.shape[1:]:
            raise ValueError(
                f"dataset {shown} has images of {_size(train.images[0])} in its split train and "
                f"of {_size(part.images[0])} in its split {held_out[0]}; valid: all of one size"
            )
    return train, next(iter(test), None)


def _part(arrays: Arrays, k: int, name: str) -> Part:
    images, clients = arrays[f"images{k}"], arrays.get(f"clients{k}")
    # TFDS has EMNIST as it is published, with rows and columns of each image swapped (its issue
    # 812, and the description in its image_classification/mnist.py): turn the images upright.
    if name == "emnist":
        images = images.swapaxes(1, 2)
    if clients is not None:
        clients = np.unique(clients, return_inverse=True)[1].astype(np.int32)
    return Part(images, arrays[f"labels{k}"], clients)


def _check_format(builder: Any, shown: str) -> None:
    """Check that the files can be read without TensorFlow.

    Raises:
        ValueError: if they can't.
    """
    from tensorflow_datasets.core.file_adapters import FileFormat

    has = builder.info.available_file_formats()
    valid = FileFormat.with_random_access()
    if not has & valid:
        names, others = (", ".join(sorted(x.value for x in formats)) for formats in (has, valid))
        raise ValueError(
            f"dataset {shown} is in {str(builder.data_dir)!r} in the format {names}; valid: "
            f"{others}, as by tfds build --file_format={FORMAT}"
        )


def _keys(info: Any, shown: str) -> dict[str, str]:
    """Name the features that make a `Part`: those for supervised learning, or the only ones.

    Raises:
        ValueError: if the set hasn't an image of 8 bits and a class label.
    """
    from tensorflow_datasets import features as kinds

    features = info.features
    has = dict(features.items()) if isinstance(features, kinds.FeaturesDict) else {}
    usual = [*(info.supervised_keys or ()), "image", "label"]

    def one(kind: type) -> str | None:
        names = [name for name, feature in has.items() if isinstance(feature, kind)]
        likely = [name for name in usual if name in names] or (names if len(names) == 1 else [])
        return next(iter(likely), None)

    image, label = one(kinds.Image), one(kinds.ClassLabel)
    if image is None or label is None or has[image].np_dtype != np.uint8:
        listed = ", ".join(f"{name} ({_kind(feature)})" for name, feature in sorted(has.items()))
        raise ValueError(
            f"dataset {shown} has the features {listed or type(features).__name__}; valid: one "
            "image (Image of uint8) and one label (ClassLabel)"
        )
    keys = {"images": image, "labels": label}
    client = next((name for name in CLIENTS if name in has and has[name].shape == ()), None)
    return keys | ({"clients": client} if client else {})


def _kind(feature: Any) -> str:
    return f"{type(feature).__name__} of {np.dtype(feature.np_dtype).name}"


def _decode(builder: Any, split: str, keys: dict[str, str], shown: str) -> Arrays:
    """Read a split as arrays.

    Raises:
        ValueError: if it is empty, or its images differ in size.
    """
    columns: dict[str, list[np.ndarray]] = {kind: [] for kind in keys}
    with readable(shown, builder.data_dir):
        for example in builder.as_data_source(split=split):
            for kind, key in keys.items():
                columns[kind].append(np.asarray(example[key]))
            if columns["images"][-1].shape != columns["images"][0].shape:
                break
    images = columns["images"]
    if not images:
        raise ValueError(f"dataset {shown} has no examples in its split {split}")
    if images[-1].shape != images[0].shape or images[0].ndim != 3:
        sizes = dict.fromkeys(map(_size, (images[0], images[-1])))
        raise ValueError(
            f"dataset {shown} has images of {' and of '.join(sizes)} in its split {split}; valid: "
            "all of one height, width and number of channels"
        )
    return {kind: np.stack(column) for kind, column in columns.items()}


def _size(image: np.ndarray) -> str:
    return "×".join(map(str, image.shape))

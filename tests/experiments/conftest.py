"""Helpers that several of the tests here share, as fixtures because test files cannot import."""

import errno
import gzip
import os
import struct

import numpy as np
import pytest
from matplotlib.figure import Figure

from experiments import plots

# For each numpy type: its code in an IDX header, and the struct format of one value.
FORMATS = {
    "uint8": (0x08, "B"),
    "int8": (0x09, "b"),
    "int16": (0x0B, "h"),
    "int32": (0x0C, "i"),
    "float32": (0x0D, "f"),
    "float64": (0x0E, "d"),
}


@pytest.fixture(scope="session")
def idx_bytes():
    """Encodes an array as IDX."""

    def idx_bytes(array):
        code, form = FORMATS[array.dtype.name]
        values = array.ravel().tolist()
        header = struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
        return header + struct.pack(f">{len(values)}{form}", *values)

    return idx_bytes


@pytest.fixture(scope="session")
def write():
    """Writes bytes to a file, gzipped if it is called so, and returns its path."""

    def write(path, data):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(data, 1) if path.suffix == ".gz" else data)
        return path

    return write


@pytest.fixture(scope="session")
def refused():
    """Checks that a call fails with one line that names the file and says what is wrong."""

    def refused(call, *args, kind=ValueError, match, names):
        with pytest.raises(kind, match=match) as caught:
            call(*args)
        assert type(caught.value) is kind
        assert repr(str(names)) in str(caught.value)
        assert "\n" not in str(caught.value)

    return refused


@pytest.fixture(scope="session")
def rows():
    """Lists images, as bytes of pixels from 0 to a maximum, with their labels."""

    def rows(x, y, maximum):
        pixels = np.round(x * maximum).astype(np.uint8)
        return [(image.tobytes(), int(label)) for image, label in zip(pixels, y, strict=True)]

    return rows


@pytest.fixture(scope="session")
def assert_same():
    """Checks that two data sets are equal in every field."""

    def assert_same(a, b):
        assert (a.name, a.num_classes) == (b.name, b.num_classes)
        for field in ("train_x", "train_y", "test_x", "test_y"):
            np.testing.assert_array_equal(getattr(a, field), getattr(b, field), strict=True)

    return assert_same


@pytest.fixture
def no_picture(monkeypatch):
    """For many runs of a few steps, of which a third would go to drawing curves like others'."""
    monkeypatch.setattr(plots, "run_figure", lambda _: Figure((1, 1)))


@pytest.fixture
def full_disk(monkeypatch):
    """From its call on, no file can be written."""

    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return lambda: monkeypatch.setattr(os, "fsync", refuse)

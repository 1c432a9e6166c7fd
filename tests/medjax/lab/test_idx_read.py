"""Reading well-formed IDX files."""

import gzip
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from medjax.lab.data import read_idx

# Type code in the header, struct format of one value, numpy type that must come back.
TYPES = [
    (0x08, "B", np.uint8, [0, 1, 127, 128, 254, 255]),
    (0x09, "b", np.int8, [-128, -1, 0, 1, 2, 127]),
    (0x0B, "h", np.int16, [-32768, -2, 0, 1, 258, 32767]),
    (0x0C, "i", np.int32, [-(2**31), -2, 0, 1, 16909060, 2**31 - 1]),
    (0x0D, "f", np.float32, [-0.5, 0.0, 1.0, 1.5, 2.0**-30, float("inf")]),
    (0x0E, "d", np.float64, [-0.1, 0.0, 1.0, 1.5, 1e-300, float("-inf")]),
]


@pytest.mark.parametrize("name", ["file", "file.gz"])
@pytest.mark.parametrize(("code", "form", "dtype", "values"), TYPES)
def test_read_idx_values_of_every_type(tmp_path, name, code, form, dtype, values, write):
    header = bytes([0, 0, code, 2, 0, 0, 0, 2, 0, 0, 0, 3])
    data = header + b"".join(struct.pack(f">{form}", value) for value in values)
    array = read_idx(write(tmp_path / name, data))
    assert array.dtype == np.dtype(dtype)
    assert array.dtype.isnative
    assert array.tolist() == np.array(values, dtype).reshape(2, 3).tolist()
    array[0, 0] = 1  # the caller owns it


def test_read_idx_last_index_runs_fastest(tmp_path, write):
    data = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 3, 9, 8, 7, 6, 5, 4])
    assert read_idx(str(write(tmp_path / "file", data))).tolist() == [[[9, 8, 7]], [[6, 5, 4]]]


def test_read_idx_tells_gzip_by_content_not_by_name(tmp_path, idx_bytes):
    data = idx_bytes(np.array([3, 4], np.uint8))
    (tmp_path / "plain.gz").write_bytes(data)
    (tmp_path / "packed").write_bytes(gzip.compress(data))
    assert read_idx(tmp_path / "plain.gz").tolist() == [3, 4]
    assert read_idx(tmp_path / "packed").tolist() == [3, 4]


def test_read_idx_larger_than_one_chunk(tmp_path, write, idx_bytes):
    pixels = np.random.RandomState(0).randint(0, 256, (3, 1000, 1001)).astype(np.uint8)
    data = idx_bytes(pixels)
    for name in ("file", "file.gz"):
        np.testing.assert_array_equal(read_idx(write(tmp_path / name, data)), pixels)


def test_read_idx_empty_arrays(tmp_path, write, idx_bytes):
    array = read_idx(write(tmp_path / "file.gz", idx_bytes(np.empty((0, 28, 28), np.float32))))
    assert (array.shape, array.dtype) == ((0, 28, 28), np.float32)


@given(
    array=st.sampled_from([np.dtype(dtype) for _, _, dtype, _ in TYPES]).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(max_dims=5, min_side=0, max_side=4))
    ),
    packed=st.booleans(),
)
@settings(deadline=None)
def test_read_idx_round_trip(tmp_path_factory, array, packed, write, idx_bytes):
    path = tmp_path_factory.getbasetemp() / ("round-trip.gz" if packed else "round-trip")
    result = read_idx(write(path, idx_bytes(array)))
    assert (result.shape, result.dtype) == (array.shape, array.dtype)
    np.testing.assert_array_equal(result, array)

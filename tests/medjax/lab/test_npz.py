"""The reader of .npz files: whole ones, and ones that are cut or changed."""

import io
import random
import zipfile

import numpy as np
import pytest

from medjax.lab.data.npz import read_npz

ARRAYS = {
    "pixels": np.arange(48, dtype=np.uint8).reshape(3, 4, 4),
    "names": np.array(["a", "bc"]),
    "empty": np.zeros((0, 2), np.float32),
    "scalar": np.array(1.5),
}


def npz(save):
    file = io.BytesIO()
    save(file, **ARRAYS)
    return file.getvalue()


@pytest.fixture(params=[np.savez, np.savez_compressed], scope="module")
def whole(request):
    return npz(request.param)


def assert_is_whole(arrays):
    assert list(arrays) == list(ARRAYS)
    for name, expected in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], expected, strict=True)


def test_a_whole_file(whole):
    assert_is_whole(read_npz(io.BytesIO(whole)))


def test_a_file_cut_at_any_length(whole):
    for length in range(len(whole)):
        with pytest.raises(ValueError, match=r"^a torn \.npz file: ."):
            read_npz(io.BytesIO(whole[:length]))


def values(content):
    """Read the arrays of a file that may be damaged, without regard to their names."""
    try:
        return [x.tobytes() for x in read_npz(io.BytesIO(content)).values()]
    except ValueError:
        return None


@pytest.mark.slow
def test_a_file_with_any_byte_changed(whole):
    """No value is ever another; dates, names, and where the list of arrays ends aren't secured."""
    expected, refused = [x.tobytes() for x in ARRAYS.values()], 0
    for place, byte in enumerate(whole):
        for other in {0, 1, 9, 14, 255, byte ^ 1, byte ^ 0x80} - {byte}:
            found = values(whole[:place] + bytes([other]) + whole[place + 1 :])
            assert found is None or all(x in expected for x in found)
            refused += found is None
    assert refused > 3 * len(whole)


def test_a_file_with_many_bytes_changed(whole):
    rng, directory = random.Random(0), whole.index(b"PK\1\2")
    for trial in range(3000):
        content = bytearray(whole)
        start = directory if trial % 2 else 0  # the directory says how to read all
        for _ in range(rng.randint(2, 12)):
            content[rng.randrange(start, len(whole))] = rng.choice((0, 1, 6, 12, 14, 93, 255))
        values(bytes(content))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_method_of_compression_that_numpy_does_not_use(method):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as members:
        members.writestr("x.npy", b"content")
    with pytest.raises(ValueError, match=rf"'x\.npy' is compressed by method {method}$"):
        read_npz(file)


def test_pickles_are_not_loaded():
    file = io.BytesIO()
    np.savez(file, x=np.array([print], object))
    with pytest.raises(ValueError, match="Object arrays cannot be loaded"):
        read_npz(file)

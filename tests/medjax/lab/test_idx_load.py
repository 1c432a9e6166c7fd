"""Loading a data set from a directory of IDX files, by the name idx:DIR."""

import numpy as np
import pytest

from medjax.lab.data import load

IMAGES, LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"
TRAIN_X = np.arange(18, dtype=np.uint8).reshape(3, 2, 3) * 15  # 0, 15 … 255
TEST_X = TRAIN_X[:2] // 3


@pytest.fixture
def write_set(write, idx_bytes):
    """Writes a small data set, with some of its parts replaced, and returns its name."""

    def write_set(directory, prefix="", suffix="", labels=np.uint8, **parts):
        arrays = {
            f"train-{IMAGES}": parts.get("train_x", TRAIN_X),
            f"train-{LABELS}": np.array(parts.get("train_y", [2, 0, 1]), labels),
            f"test-{IMAGES}": parts.get("test_x", TEST_X),
            f"test-{LABELS}": np.array(parts.get("test_y", [1, 1]), labels),
        }
        for name, array in arrays.items():
            write(directory / f"{prefix}{name}{suffix}", idx_bytes(array))
        return f"idx:{directory}"

    return write_set


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("labels", [np.uint8, np.int32])
def test_idx_values(tmp_path, suffix, labels, write_set):
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


def test_idx_expands_the_home_directory(tmp_path, monkeypatch, write_set):
    write_set(tmp_path / "set")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load("idx:~/set").train_y.tolist() == [2, 0, 1]


def test_idx_directory_may_hold_a_colon(tmp_path, write_set):
    assert load(write_set(tmp_path / "a:b")).num_classes == 3


def test_idx_labels_are_made_dense(tmp_path, write_set):
    # Distinct training labels 1, 5, 26 become 0, 1, 2.
    data = load(write_set(tmp_path, train_y=[26, 1, 5], test_y=[5, 26]))
    assert data.train_y.tolist() == [2, 0, 1]
    assert data.test_y.tolist() == [1, 2]
    assert data.num_classes == 3


def test_idx_refuses_test_labels_that_training_lacks(tmp_path, write_set, refused):
    name = write_set(tmp_path, train_y=[1, 2, 2], test_y=[2, 3])
    match = "label 3 does not occur in the training part; valid: its 2 labels from 1 to 2"
    refused(load, name, match=match, names=tmp_path / f"test-{LABELS}")


def test_idx_emnist_is_turned_upright(tmp_path, write_set):
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
def test_idx_refuses_files_that_do_not_fit(tmp_path, parts, file, match, write_set, refused):
    refused(load, write_set(tmp_path, **parts), match=match, names=tmp_path / file)


def test_idx_passes_on_the_reader_s_errors(tmp_path, write_set, write, refused):
    gone = tmp_path / "gone"
    refused(load, f"idx:{gone}", kind=FileNotFoundError, match="no such directory", names=gone)
    name = write_set(tmp_path)
    path = write(tmp_path / f"train-{LABELS}", b"")
    refused(load, name, match="empty file", names=path)

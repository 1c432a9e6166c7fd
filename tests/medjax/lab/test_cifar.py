"""CIFAR-10's files, made by hand: what is read of them, and what is refused."""

import json
import random
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from medjax.lab.commands.run import main
from medjax.lab.data import cifar_png, load

TRAIN = [f"data_batch_{k}.bin" for k in range(1, 6)]


def record(label: int, red: int, green: int, blue: int) -> bytes:
    """An image of one colour, but for a last pixel of its row 0 that is black."""
    plane = np.full((3, 32, 32), [[[red]], [[green]], [[blue]]], np.uint8)
    plane[:, 0, 31] = 0
    return bytes([label]) + plane.tobytes()


@pytest.fixture
def folder(tmp_path):
    """Two labels in turn; file k has images of red k, the test file of red 0."""
    path = tmp_path / "cifar"
    path.mkdir()
    for k, name in enumerate((*TRAIN, "test_batch.bin"), start=1):
        red = k % 6
        path.joinpath(name).write_bytes(record(0, red, 51, 255) + record(1, red, 102, 0))
    return path


@pytest.mark.parametrize("inside", [False, True])
def test_images_are_read_row_by_row_and_colour_by_colour(folder, inside, tmp_path):
    if inside:  # of the folder that the archive makes
        folder.rename(tmp_path / "cifar-10-batches-bin")
        folder = tmp_path
    data = load(f"cifar:{folder}")
    assert data.num_classes == 2
    assert data.train_y.tolist() == [0, 1] * 5
    assert data.test_y.tolist() == [0, 1]
    # Green 51 of 255 is a fifth; red is the number of the file.
    np.testing.assert_allclose(data.train_x[0, 31, 0], [1 / 255, 0.2, 1], rtol=1e-6)
    np.testing.assert_allclose(data.train_x[9, 0, 30], [5 / 255, 0.4, 0], rtol=1e-6)
    np.testing.assert_allclose(data.test_x[1, 5, 5], [0, 0.4, 0], rtol=1e-6)
    # The black pixel is the last of the first row, not of the first column.
    black = (data.train_x == 0).all(axis=-1)
    assert black[:, 0, 31].all()
    assert black.sum() == 10
    assert data.train_x.shape == (10, 32, 32, 3)
    assert data.train_x.dtype == np.float32
    assert data.train_x.flags.c_contiguous


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_a_run_on_it(folder, tmp_path):
    settings = "--model cnn --workers 2 --rule noisy_sign --steps 2 --lr 0.01"
    out = tmp_path / "run"
    assert main(["--dataset", f"cifar:{folder}", *settings.split(), "--out", str(out)]) == 0
    record = json.loads((out / "config.json").read_text())
    assert record["data"]["input_shape"] == [32, 32, 3]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data_batch_3.bin", None, "lacks data_batch_3.bin; expected the files of CIFAR-10"),
        ("test_batch.bin", b"", "test_batch.bin': 0 bytes; valid: 1 to 1000000 records of 3073"),
        ("test_batch.bin", b"x" * 3074, "test_batch.bin': 3074 bytes; valid: 1 to"),
        ("data_batch_1.bin", record(10, 0, 0, 0), "label 10 in record 0; valid: 0 to 9"),
        ("test_batch.bin", record(7, 0, 0, 0), "labels 0, 1 and the test part 7; valid: 0 to k"),
    ],
)
def test_what_is_amiss_gets_one_line(folder, name, content, message, error_of):
    path = folder / name
    path.unlink() if content is None else path.write_bytes(content)
    assert message in error_of(main, "--dataset", f"cifar:{folder}", "--model", "cnn")


def test_no_directory(tmp_path, error_of):
    assert "no such directory" in error_of(main, "--dataset", f"cifar:{tmp_path / 'x'}")
    (tmp_path / "file").touch()
    assert "not a directory" in error_of(main, "--dataset", f"cifar:{tmp_path / 'file'}")


PNG_TRAIN = [f"data_batch_{k}.png" for k in range(1, 6)]


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """Random images as PNG, of the npm package's layout: two in each file, in four classes."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "npm" / "package"
    path.mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    for k, name in enumerate((*PNG_TRAIN, "test_batch.png")):
        rows = images[2 * k : 2 * k + 2].reshape(2, 1024, 3)
        Image.fromarray(rows).save(path / name)
    labels = [0, 1, 2, 3, 0, 1, 2, 3, 3, 3]
    (path / "train_lables.json").write_text(json.dumps(labels))
    (path / "test_lables.json").write_text("[3, 2]")
    return SimpleNamespace(path=path, images=images, labels=labels)


@pytest.mark.parametrize("folder", ["npm", "npm/package"])
def test_pictures_have_an_image_in_each_row(pictures, folder, tmp_path):
    data = load(f"cifar:{tmp_path / folder}")
    assert (data.num_classes, data.train_x.dtype) == (4, np.float32)
    assert data.train_y.tolist() == pictures.labels
    assert data.test_y.tolist() == [3, 2]
    np.testing.assert_array_equal(data.train_x, np.float32(pictures.images[:10]) / np.float32(255))
    np.testing.assert_array_equal(data.test_x, np.float32(pictures.images[10:]) / np.float32(255))


def test_pictures_are_decoded_once_for_each_state_of_the_files(pictures, monkeypatch, assert_same):
    name = f"cifar:{pictures.path}"
    first = load(name)
    with monkeypatch.context() as patch:
        patch.setattr(Image, "open", None)
        assert_same(load(name), first)
    (pictures.path / "test_lables.json").write_text("[2, 2]\n")
    assert load(name).test_y.tolist() == [2, 2]


def test_pictures_need_pillow(pictures, monkeypatch, error_of):
    monkeypatch.setitem(sys.modules, "PIL", None)
    error = error_of(main, "--dataset", f"cifar:{pictures.path}")
    assert f"dataset 'cifar:{pictures.path}' needs pillow: pip install \"medjax[lab]\"" in error


def test_any_byte_changed_or_cut_off_gets_an_error(pictures):
    # A byte of a picture that isn't noticed changes nothing in the images.
    rng, path, refused = random.Random(0), pictures.path / "test_batch.png", 0
    whole, images = path.read_bytes(), cifar_png._images(path)
    for trial in range(200):
        place = rng.choice([rng.randrange(len(whole)), rng.randrange(60)])
        rest = rng.randbytes(1) + whole[place + 1 :] if trial % 3 else b""
        path.write_bytes(whole[:place] + rest)
        try:
            np.testing.assert_array_equal(cifar_png._images(path), images)
        except ValueError:
            refused += 1
    assert refused > 180

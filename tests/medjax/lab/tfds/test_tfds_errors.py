"""TensorFlow Datasets: a line for every name, set or file that won't do."""

import random
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from medjax.lab.commands.run import main
from medjax.lab.data import load

FEATURES = {
    "image": tfds.features.Image(shape=(6, 5, 1)),
    "label": tfds.features.ClassLabel(num_classes=3),
}
ONE = np.zeros((6, 5), np.uint8)
ANY_SIZE = FEATURES | {"image": tfds.features.Image(shape=(None, None, 1))}


def rows_of(*images, label=0):
    return [(k, {"image": Image.fromarray(x), "label": label}) for k, x in enumerate(images)]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnsit", "unknown dataset 'tfds:mnsit': did you mean 'tfds:mnist'? valid: the sets of Te"),
        ("tiney", "unknown dataset 'tfds:tiney': did you mean 'tfds:tiny'? "),
        ("zzzzzz", "unknown dataset 'tfds:zzzzzz': valid: the sets of TensorFlow Datasets, and th"),
        ("emnist/leters", "no such configuration: did you mean 'tfds:emnist/letters'? valid: bycl"),
        ("mnist:9.9.9", "dataset 'tfds:mnist:9.9.9': Dataset mnist cannot be loaded at version"),
        ("tiny:2.0.0", "dataset 'tfds:tiny:2.0.0': '{folder}/tiny' has 1.0.0"),
        ("huggingface:x", "'tfds:huggingface:x' is no name; valid: tfds:SET, tfds:SET/CONFIG,"),
        ("../tiny", "dataset 'tfds:../tiny' is no name; valid: tfds:SET"),
        ("a\nb", "'tfds:a\\nb' is no name"),
    ],
)
def test_names_of_no_set(tiny, folder, name, message, error_of):
    error = error_of(main, "--dataset", f"tfds:{name}@{folder}")
    assert message.format(folder=folder) in error


def test_a_folder_that_is_not_there(tmp_path, error_of):
    gone = tmp_path / "gone"
    assert f"'{gone}': no such directory" in error_of(main, "--dataset", f"tfds:mnist@{gone}")


@pytest.mark.parametrize(
    ("features", "splits", "message"),
    [
        (FEATURES, {"dev": rows_of(ONE)}, "has the splits dev; valid: train, and perhaps test or"),
        (
            FEATURES,
            {"train": rows_of(ONE), "test": rows_of(ONE, label=2)},
            "label 2 does not occur in the training part; valid: its 1 labels from 0 to 0",
        ),
        (
            ANY_SIZE,
            {"train": rows_of(ONE, ONE.T)},
            "×1 in its split train; valid: all of one height, width and number of channels",
        ),
        (
            ANY_SIZE,
            {"train": rows_of(ONE), "test": rows_of(ONE.T)},
            "has images of 6×5×1 in its split train and of 5×6×1 in its split test; valid: all of",
        ),
        (
            {"image": FEATURES["image"], "label": tfds.features.Text()},
            {"train": rows_of(ONE, label="x")},
            "has the features image (Image of uint8), label (Text of object); valid: one image",
        ),
        (
            {"a": FEATURES["image"], "b": FEATURES["image"], "label": FEATURES["label"]},
            {"train": [(0, {"a": Image.fromarray(ONE), "b": Image.fromarray(ONE), "label": 0})]},
            "has the features a (Image of uint8), b (Image of uint8), label (ClassLabel of int64)",
        ),
    ],
)
def test_sets_that_are_no_image_classification(write, features, splits, message, error_of):
    assert message in error_of(main, "--dataset", write(features, splits))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tiny-train.array_record-00000-of-00001", b"torn"),
        ("tiny-train.array_record-00000-of-00001", None),
        ("dataset_info.json", b"{"),
        ("features.json", b"{"),
    ],
)
def test_files_that_are_torn_or_gone(tiny, folder, name, content, error_of):
    path = folder / "tiny" / "1.0.0" / name
    path.unlink() if content is None else path.write_bytes(content)
    error = error_of(main, "--dataset", tiny)
    assert f"dataset 'tfds:tiny' can't be read from '{folder}" in error


@pytest.mark.slow
@pytest.mark.parametrize("file_format", ["array_record", "parquet"])
def test_files_with_a_part_changed(made, write, folder, file_format):
    rows = {split: list(made.examples(rows)) for split, rows in made.splits.items()}
    name = write(made.with_writers, rows, file_format=file_format)
    rng, refused = random.Random(0), 0
    for path in (folder / "tiny" / "1.0.0").iterdir():
        whole = path.read_bytes()
        used = len(whole.rstrip(b"\0"))
        for _ in range(15):
            place = rng.randrange(used)
            path.write_bytes(whole[:place] + rng.randbytes(rng.randint(1, 4)) + whole[place + 4 :])
            try:
                load(name)
            except ValueError:
                refused += 1
        path.write_bytes(whole)
    assert refused > 20
    load(name)


def test_natural_is_of_data_that_say_whose_they_are(made, write, error_of):
    for name in ("digits", write(made.features, made.plain)):
        error = error_of(main, "--dataset", name, "--partition", "natural")
        assert "--partition natural is of data that say whose an example is, as text" in error
        assert f"dataset '{name}' doesn't; valid: iid, by_label, " in error


def test_more_workers_than_writers(tiny, error_of):
    error = error_of(main, "--dataset", tiny, "--partition", "natural", "--workers", "5")
    assert "5 workers need at least 5 clients, there are 4; --copies K, more than 1," in error


def test_packages_that_are_missing(tiny, monkeypatch, error_of):
    class Missing:
        def __getattr__(self, name):
            raise ModuleNotFoundError("No module named 'array_record'", name="array_record")

    where = "tensorflow_datasets.core.data_sources.array_record.array_record_data_source"
    monkeypatch.setattr(where, Missing())  # TFDS imports it when it is used
    message = f"dataset '{tiny}' needs %s: pip install \"medjax[tfds]\""
    assert message % "array_record" in error_of(main, "--dataset", tiny)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    assert message % "tensorflow_datasets" in error_of(main, "--dataset", tiny)

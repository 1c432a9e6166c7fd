"""TensorFlow Datasets: images, labels and writers of sets that the tests prepare."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from medjax.lab.commands.run import main
from medjax.lab.data import load, outside
from medjax.lab.settings.config import configure
from medjax.lab.task.setup import prepare
from medjax.lab.task.workers import share_out


def test_images_labels_and_writers(made, tiny):
    data = load(tiny)
    assert (data.name, data.num_classes, data.inputs) == (tiny, 3, "images")
    train, test = made.numbers(data.train_x), made.numbers(data.test_x)
    assert sorted(train.tolist()) == list(made.splits["train"])
    assert sorted(test.tolist()) == list(made.splits["test"])
    np.testing.assert_array_equal(data.train_y, train % 3)
    np.testing.assert_array_equal(data.test_y, test % 3)
    np.testing.assert_array_equal(data.groups, data.train_y)
    # The writers by number: the same where the names are.
    names = made.writers[train]
    np.testing.assert_array_equal(
        data.authors[:, None] == data.authors, names[:, None] == names, strict=True
    )
    assert data.train_x.shape == (48, 6, 5, 1)
    assert {x.dtype.name for x in (data.train_x, data.test_x)} == {"float32"}
    assert {x.dtype.name for x in (data.train_y, data.test_y, data.authors)} == {"int32"}
    np.testing.assert_allclose(data.train_x[..., 0], made.pixels[train] / 255, rtol=1e-6)


def test_what_was_decoded_is_kept_until_the_set_is_another(
    tiny, folder, tmp_path, monkeypatch, assert_same
):
    first = load(tiny)
    with monkeypatch.context() as patch:
        patch.setattr(tfds.features.Image, "decode_example_np", None)
        again = load(tiny)
    assert_same(again, first)
    np.testing.assert_array_equal(again.authors, first.authors)
    (kept,) = (tmp_path / "cache" / "medjax").iterdir()
    kept.write_bytes(kept.read_bytes()[:-100])  # torn: it is made again
    assert_same(load(tiny), first)
    touched = next(folder.rglob("*train*"))
    touched.touch()
    monkeypatch.setattr(tfds.features.Image, "decode_example_np", None)
    with pytest.raises(ValueError, match="can't be read from"):
        load(tiny)


@pytest.mark.parametrize("splits", [{"train": 48, "validation": 12}, {"train": 60}])
def test_without_a_test_part(made, write, splits):
    rows = iter(range(60))
    written = {
        split: list(made.examples([next(rows) for _ in range(n)])) for split, n in splits.items()
    }
    data = load(write(made.with_writers, written))
    train, test = made.numbers(data.train_x), made.numbers(data.test_x)
    assert sorted([*train, *test]) == list(range(60))
    names = made.writers[train]
    np.testing.assert_array_equal(
        data.authors[:, None] == data.authors, names[:, None] == names, strict=True
    )
    # Validation in place of test, and else a fifth of each class, as of digits.
    expected = list(range(48, 60)) if "validation" in splits else sorted(test.tolist())
    assert sorted(test.tolist()) == expected
    assert np.bincount(data.test_y).tolist() == [4, 4, 4]


def test_emnist_is_turned_upright(made, write):
    data = load(write(made.features, made.plain, name="emnist", config="byclass"))
    assert data.authors is None
    assert data.train_x.shape == (48, 5, 6, 1)
    made.numbers(data.train_x.swapaxes(1, 2))  # each is one of those that were written, transposed


def test_colours_and_names_of_their_own(made, write):
    """The only image and the only class label are taken, whatever they are called."""
    colours = np.arange(4 * 3 * 2 * 3, dtype=np.uint8).reshape(4, 3, 2, 3)
    features = {
        "picture": tfds.features.Image(),
        "character": tfds.features.ClassLabel(num_classes=2),
        "user": np.int64,
    }
    rows = [
        (k, {"picture": made.image(colours[k]), "character": k % 2, "user": 10**9 * (k // 2)})
        for k in range(4)
    ]
    data = load(write(features, {"train": rows, "test": rows[:2]}))
    order = [int(np.round(255 * x[0, 0, 0])) // 18 for x in data.train_x]
    np.testing.assert_allclose(data.train_x, colours[order] / 255, rtol=1e-6)
    assert data.train_y.tolist() == [k % 2 for k in order]
    assert data.authors.tolist() == [k // 2 for k in order]


def test_keys_for_supervised_learning(made, write):
    """Take those of several images and labels that the set names."""
    features = made.features | {"mask": made.features["image"], "kind": made.features["label"]}
    rows = [
        (k, {"image": x, "label": 0, "mask": made.image(255 - made.pixels[k]), "kind": k % 3})
        for k, x in enumerate(map(made.image, made.pixels))
    ]
    splits = {"train": rows[:48], "test": rows[48:]}
    assert load(write(features, splits, name="usual")).num_classes == 1
    data = load(write(features, splits, supervised_keys=("mask", "kind")))
    masked = made.numbers(1 - data.train_x)
    np.testing.assert_array_equal(data.train_y, masked % 3)


def test_each_worker_has_whole_writers(tiny):
    data = load(tiny)
    task = prepare(configure(dataset=tiny, partition="natural", workers=2), data)
    indices = share_out(task, [0, 1])
    for rows, sizes in zip(indices.examples, indices.sizes, strict=True):
        owned = [row[:size] for row, size in zip(rows, sizes, strict=True)]
        writers = [set(data.authors[own].tolist()) for own in owned]
        assert sorted(map(len, writers)) == [2, 2]
        assert set.union(*writers) == {0, 1, 2, 3}
        assert sorted(np.concatenate(owned).tolist()) == list(range(48))


@pytest.mark.slow
def test_authors_of_text_stay_whole_and_their_copies_are_others():
    data = load("text")
    settings = {"dataset": "text", "model": "transformer", "partition": "natural"}
    for workers, copies, each in ((5, 1, 320), (20, 2, 160)):
        task = prepare(configure(**settings, workers=workers, copies=copies), data)
        (sizes,) = share_out(task, [3]).sizes.tolist()
        assert sizes == [each] * workers
    with pytest.raises(ValueError, match=r"11 workers need at least 11 clients, there are 10; .*K"):
        share_out(prepare(configure(**settings, workers=11), data), [0])


def test_validation_is_of_every_class_and_the_rest_stays_with_its_writers(made, tiny):
    data = load(tiny)
    task = prepare(configure(dataset=tiny, partition="natural", validation=0.25), data)
    assert np.bincount(task.held_out["validation"][1]).tolist() == [4, 4, 4]
    names = made.writers[made.numbers(task.train[0])]
    np.testing.assert_array_equal(
        task.classes[:, None] == task.classes, names[:, None] == names, strict=True
    )


@pytest.mark.slow
def test_a_run_by_writers_in_the_folder_of_tfds(made, tiny, folder, tmp_path):
    """Run the command in a process of its own, which says nothing of TFDS's."""
    arguments = "--dataset tfds:tiny --partition natural --workers 4 --steps 3 --batch-size 2"
    command = [sys.executable, "-m", "experiments.run", *arguments.split(), "--out", "out"]
    done = subprocess.run(
        command, capture_output=True, text=True, env=_environment(TFDS_DATA_DIR=str(folder))
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "of tfds:tiny (48 training, 12 test, 3 classes), natural" in done.stdout
    record = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (record["config"]["dataset"], record["config"]["partition"]) == ("tfds:tiny", "natural")
    assert record["data"]["input_shape"] == [6, 5, 1]
    # The four writers have as many of the 48 examples as they wrote.
    sizes = np.unique(made.writers[:48], return_counts=True)[1]
    assert (record["data"]["smallest_worker"], record["data"]["largest_worker"]) == (
        sizes.min(),
        sizes.max(),
    )
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["step"] == 3


def _environment(**others):
    return os.environ | {"PYTHONPATH": str(Path(__file__).parents[4])} | others


@pytest.mark.slow
def test_importing_the_data_imports_neither_tfds_nor_that_of_hugging_face():
    found = "[m for m in sys.modules if m.startswith(('tensorflow', 'datasets'))]"
    script = f"import medjax.lab.commands.run, sys; print({found})"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=_environment()
    )
    assert done.stdout == "[]\n", done.stderr


@pytest.fixture
def mnist(folder):
    """The real description of MNIST in TFDS, with its splits, without its files."""
    with outside.quiet():
        builder = tfds.builder("mnist", data_dir=folder, file_format="array_record")
        template = tfds.core.naming.ShardedFileTemplate
        infos = [
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=[n],
                num_bytes=n,
                filename_template=template(
                    data_dir=folder,
                    dataset_name="mnist",
                    filetype_suffix="array_record",
                    split=split,
                ),
            )
            for split, n in (("train", 60_000), ("test", 10_000))
        ]
        builder.info.set_splits(tfds.core.splits.SplitDict(infos))
        path = folder / "mnist" / "3.0.1"
        path.mkdir(parents=True)
        builder.info.write_to_directory(path)
    return f"tfds:mnist@{folder}"


def test_mnist_as_tfds_mocks_it(mnist, folder):
    with tfds.testing.mock_data(num_examples=30, data_dir=str(folder)):
        data = load(mnist)
    assert data.train_x.shape == data.test_x.shape == (30, 28, 28, 1)
    assert 0 <= data.train_x.min() < 0.1 < 0.9 < data.train_x.max() <= 1
    assert data.authors is None


@pytest.mark.parametrize("file_format", ["parquet", "tfrecord"])
def test_other_formats(made, write, file_format, error_of):
    rows = {split: list(made.examples(rows)) for split, rows in made.splits.items()}
    if file_format == "parquet":  # is read without TensorFlow too
        name = write(made.with_writers, rows, file_format=file_format)
        assert sorted(made.numbers(load(name).train_x).tolist()) == list(made.splits["train"])
        return
    name = write(made.with_writers, rows)
    path = next(Path(name.partition("@")[2]).rglob("dataset_info.json"))
    path.write_text(path.read_text().replace("array_record", file_format))
    error = error_of(main, "--dataset", name)
    assert "1.0.0' in the format tfrecord; valid: array_record, parquet, as by tfds build" in error

"""TensorFlow Datasets: sets that the tests prepare themselves, and what is said of others."""

import json
import logging
import os
import socket
import subprocess
import sys
import time
import urllib.request
import warnings
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from experiments.config import configure
from experiments.data import load, tfds_find
from experiments.run import main
from experiments.setup import prepare
from experiments.sweep.__main__ import main as sweep
from experiments.workers import share_out

PIXELS = np.random.default_rng(0).integers(0, 256, (60, 6, 5), dtype=np.uint8)
WRITERS = np.array([f"f{k * k % 7}" for k in range(60)])  # of four, unequally many


def image(pixels):
    return Image.fromarray(pixels)


def examples(rows, writer=WRITERS):
    """Images of these numbers, which are their labels modulo 3; whose they are, if they say it."""
    for k in rows:
        example = {"image": image(PIXELS[k]), "label": int(k % 3)}
        yield int(k), example | ({} if writer is None else {"writer_id": writer[k]})


FEATURES = {
    "image": tfds.features.Image(shape=(6, 5, 1)),
    "label": tfds.features.ClassLabel(num_classes=3),
}
WITH_WRITERS = FEATURES | {"writer_id": tfds.features.Text()}
SPLITS = {"train": range(48), "test": range(48, 60)}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty folder of prepared sets, where the cache and the results go too."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "sets"
    path.mkdir()
    return path


@pytest.fixture
def write(folder):
    """Prepares a set as TFDS does, without TensorFlow."""

    def write(features, splits, name="tiny", config=None, file_format="array_record"):
        class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
            VERSION = tfds.core.Version("1.0.0")
            BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=config)] if config else []

            def _info(self):
                known = tfds.features.FeaturesDict(features)
                return tfds.core.DatasetInfo(builder=self, features=known)

            def _split_generators(self, dl_manager):
                return {split: iter(rows) for split, rows in splits.items()}

            def _generate_examples(self):
                raise NotImplementedError

        Builder.name = name
        with tfds_find.quiet():
            Builder(data_dir=folder, file_format=file_format).download_and_prepare()
        return f"tfds:{name}@{folder}"

    return write


@pytest.fixture
def tiny(write):
    rows = {split: list(examples(rows)) for split, rows in SPLITS.items()}
    return write(WITH_WRITERS, rows)


def numbers(x):
    """Which of the images each of a data set's is; all of their pixels must agree."""
    found = {pixels.tobytes(): k for k, pixels in enumerate(PIXELS)}
    return np.array([found[np.round(255 * pixels).astype(np.uint8).tobytes()] for pixels in x])


def test_images_labels_and_writers(tiny):
    data = load(tiny)
    assert (data.name, data.num_classes, data.inputs) == (tiny, 3, "images")
    train, test = numbers(data.train_x), numbers(data.test_x)
    assert sorted(train.tolist()) == list(SPLITS["train"])
    assert sorted(test.tolist()) == list(SPLITS["test"])
    np.testing.assert_array_equal(data.train_y, train % 3)
    np.testing.assert_array_equal(data.test_y, test % 3)
    np.testing.assert_array_equal(data.groups, data.train_y)
    # The writers by number: the same where the names are.
    names = WRITERS[train]
    np.testing.assert_array_equal(
        data.authors[:, None] == data.authors, names[:, None] == names, strict=True
    )
    assert data.train_x.shape == (48, 6, 5, 1)
    assert {x.dtype.name for x in (data.train_x, data.test_x)} == {"float32"}
    assert {x.dtype.name for x in (data.train_y, data.test_y, data.authors)} == {"int32"}
    np.testing.assert_allclose(data.train_x[..., 0], PIXELS[train] / 255, rtol=1e-6)


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
def test_without_a_test_part(write, splits):
    rows = iter(range(60))
    written = {split: list(examples([next(rows) for _ in range(n)])) for split, n in splits.items()}
    data = load(write(WITH_WRITERS, written))
    train, test = numbers(data.train_x), numbers(data.test_x)
    assert sorted([*train, *test]) == list(range(60))
    names = WRITERS[train]
    np.testing.assert_array_equal(
        data.authors[:, None] == data.authors, names[:, None] == names, strict=True
    )
    # Validation in place of test, and else a fifth of each class, as of digits.
    expected = list(range(48, 60)) if "validation" in splits else sorted(test.tolist())
    assert sorted(test.tolist()) == expected
    assert np.bincount(data.test_y).tolist() == [4, 4, 4]


def test_emnist_is_turned_upright(write):
    rows = {split: list(examples(rows, None)) for split, rows in SPLITS.items()}
    data = load(write(FEATURES, rows, name="emnist", config="byclass"))
    assert data.authors is None
    assert data.train_x.shape == (48, 5, 6, 1)
    numbers(data.train_x.swapaxes(1, 2))  # each is one of those that were written, transposed


def test_colours_and_names_of_their_own(write):
    """The only image and the only class label are taken, whatever they are called."""
    colours = np.arange(4 * 3 * 2 * 3, dtype=np.uint8).reshape(4, 3, 2, 3)
    features = {
        "picture": tfds.features.Image(),
        "character": tfds.features.ClassLabel(num_classes=2),
        "user": np.int64,
    }
    rows = [
        (k, {"picture": image(colours[k]), "character": k % 2, "user": 10**9 * (k // 2)})
        for k in range(4)
    ]
    data = load(write(features, {"train": rows, "test": rows[:2]}))
    order = [int(np.round(255 * x[0, 0, 0])) // 18 for x in data.train_x]
    np.testing.assert_allclose(data.train_x, colours[order] / 255, rtol=1e-6)
    assert data.train_y.tolist() == [k % 2 for k in order]
    assert data.authors.tolist() == [k // 2 for k in order]


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


def test_authors_of_text_stay_whole_and_their_copies_are_others():
    data = load("text")
    settings = {"dataset": "text", "model": "transformer", "partition": "natural"}
    for workers, copies, each in ((5, 1, 320), (20, 2, 160)):
        task = prepare(configure(**settings, workers=workers, copies=copies), data)
        (sizes,) = share_out(task, [3]).sizes.tolist()
        assert sizes == [each] * workers
    with pytest.raises(ValueError, match=r"11 workers need at least 11 clients, there are 10; .*K"):
        share_out(prepare(configure(**settings, workers=11), data), [0])


def test_validation_is_of_every_class_and_the_rest_stays_with_its_writers(tiny):
    data = load(tiny)
    task = prepare(configure(dataset=tiny, partition="natural", validation=0.25), data)
    assert np.bincount(task.held_out["validation"][1]).tolist() == [4, 4, 4]
    names = WRITERS[numbers(task.train[0])]
    np.testing.assert_array_equal(
        task.classes[:, None] == task.classes, names[:, None] == names, strict=True
    )


def test_a_run_by_writers_in_the_folder_of_tfds(tiny, folder, tmp_path):
    """The command as a user has it: in a process of its own, which says nothing of TFDS's."""
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
    sizes = np.unique(WRITERS[:48], return_counts=True)[1]
    assert (record["data"]["smallest_worker"], record["data"]["largest_worker"]) == (
        sizes.min(),
        sizes.max(),
    )
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["step"] == 3


def _environment(**others):
    return os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])} | others


def test_importing_the_data_does_not_import_tfds():
    script = (
        "import experiments.run, sys; print([m for m in sys.modules if m.startswith('tensorflow')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=_environment()
    )
    assert done.stdout == "[]\n", done.stderr


@pytest.fixture
def mnist(folder):
    """The real description of MNIST in TFDS, with its splits, without its files."""
    with tfds_find.quiet():
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


@pytest.fixture
def no_network(monkeypatch):
    """A host that never answers, as behind a firewall, and is looked up for minutes."""

    def hang(*arguments, **settings):
        time.sleep(30)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("no_network")
def test_without_a_network_it_takes_less_than_5_seconds(folder, tmp_path, error_of):
    start = time.monotonic()
    error = error_of(main, "--dataset", f"tfds:mnist@{folder}", "--out", "out")
    assert time.monotonic() - start < 5
    assert f"dataset 'tfds:mnist' isn't prepared in '{folder}', and storage.googleapis.com" in error
    assert "can't be reached (no answer in 2.5 s); valid without it: digits, mnist5k," in error
    assert not list(folder.iterdir())
    assert not (tmp_path / "out").exists()


def answer(monkeypatch, error=None):
    """Whatever is asked for in the web answers, or fails."""

    class Answer:
        def close(self):
            pass

    def urlopen(url, timeout):
        if error is not None:
            raise error
        return Answer()

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (urllib.error.URLError("closed"), "can't be reached (closed)"),
        (urllib.error.HTTPError("", 503, "Unavailable", {}, None), "reached (503 Unavailable)"),
        (TimeoutError("timed out"), "can't be reached (timed out)"),
    ],
)
def test_a_host_that_does_not_serve(folder, monkeypatch, error, message, error_of):
    answer(monkeypatch, error)
    assert message in error_of(sweep, "--rule", "mean", "--dataset", f"tfds:mnist@{folder}")


URL = "https://pictures.example/all.zip"


class MedjaxPictures(tfds.core.GeneratorBasedBuilder):
    """A set whose code TFDS knows, as it does MNIST's."""

    VERSION = tfds.core.Version("1.0.0")
    url_infos: ClassVar = {URL: tfds.download.checksums.UrlInfo(1, "", "all.zip")}
    trouble = None

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(FEATURES))

    def _split_generators(self, dl_manager):
        print("much")
        if self.trouble is not None:
            raise self.trouble
        return {split: examples(rows, None) for split, rows in SPLITS.items()}

    def _generate_examples(self):
        raise NotImplementedError


def test_a_set_that_can_be_had_is_prepared(folder, monkeypatch, capfd):
    answer(monkeypatch)
    name = f"tfds:medjax_pictures@{folder}"
    data = load(name)
    assert sorted(numbers(data.train_x).tolist()) == list(SPLITS["train"])
    assert capfd.readouterr() == ("", "")
    answer(monkeypatch, AssertionError("nothing is asked for what is there"))
    assert sorted(numbers(load(name).test_x).tolist()) == list(SPLITS["test"])


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (AssertionError("put the files\n\tin a folder"), "can't be: put the files in a folder; by"),
        (
            ImportError("no tensorflow"),
            "can't be: its preparation needs TensorFlow: pip install te",
        ),
    ],
)
def test_a_set_whose_preparation_fails(folder, monkeypatch, error, message, error_of):
    answer(monkeypatch)
    monkeypatch.setattr(MedjaxPictures, "trouble", error)
    # As without TensorFlow, wherever the tests are run.
    monkeypatch.setattr(tfds_find.importlib.util, "find_spec", lambda name: None)
    assert message in error_of(main, "--dataset", f"tfds:medjax_pictures@{folder}")
    assert not list(folder.glob("medjax_pictures/*"))


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


def rows_of(*images, label=0):
    return [(k, {"image": image(x), "label": label}) for k, x in enumerate(images)]


ONE = np.zeros((6, 5), np.uint8)
ANY_SIZE = FEATURES | {"image": tfds.features.Image(shape=(None, None, 1))}


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
            {"train": [(0, {"a": image(ONE), "b": image(ONE), "label": 0})]},
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


def test_natural_is_of_data_that_say_whose_they_are(write, error_of):
    rows = {split: list(examples(rows, None)) for split, rows in SPLITS.items()}
    for name in ("digits", write(FEATURES, rows)):
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
    message = f"dataset '{tiny}' needs %s: pip install \"medjax[experiments]\""
    assert message % "array_record" in error_of(main, "--dataset", tiny)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    assert message % "tensorflow_datasets" in error_of(main, "--dataset", tiny)


@pytest.mark.parametrize("file_format", ["parquet", "tfrecord"])
def test_other_formats(write, file_format, error_of):
    rows = {split: list(examples(rows)) for split, rows in SPLITS.items()}
    if file_format == "parquet":  # is read without TensorFlow too
        name = write(WITH_WRITERS, rows, file_format=file_format)
        assert sorted(numbers(load(name).train_x).tolist()) == list(SPLITS["train"])
        return
    name = write(WITH_WRITERS, rows)
    path = next(Path(name.partition("@")[2]).rglob("dataset_info.json"))
    path.write_text(path.read_text().replace("array_record", file_format))
    assert "Random access data source for file format tfrecord is not s" in error_of(
        main, "--dataset", name
    )


def test_quiet_is_over_afterwards():
    with tfds_find.quiet():
        logging.getLogger("absl").warning("not seen")
        warnings.warn("nor this", stacklevel=1)
        assert not logging.getLogger("absl").isEnabledFor(logging.WARNING)
    assert logging.getLogger("absl").isEnabledFor(logging.ERROR)
    with pytest.raises(UserWarning):
        warnings.warn("seen", stacklevel=1)

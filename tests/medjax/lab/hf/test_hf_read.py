"""Sets of Hugging Face: what is read of their images, texts, labels and clients."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Value
from PIL import Image

from medjax.lab.commands.run import main
from medjax.lab.data import checked, load


def test_images_are_in_their_order_and_split(tiny, made):
    data = load(tiny)
    assert (data.name, data.num_classes) == (tiny, 3)
    assert made.numbers(data.train_x).tolist() == list(range(48))
    assert made.numbers(data.test_x).tolist() == list(range(48, 60))
    assert data.train_y.tolist() == [k % 3 for k in range(48)]
    assert data.test_y.tolist() == [k % 3 for k in range(48, 60)]
    assert data.train_x.shape == (48, 6, 5, 1)
    assert data.authors is None


def test_without_a_test_part_a_fifth_of_every_class_is_held_out(write, made):
    data = load(write(made.images, {"train": made.columns(range(60))}))
    numbers = [made.numbers(x) for x in (data.train_x, data.test_x)]
    assert sorted(np.concatenate(numbers)) == list(range(60))
    assert np.bincount(data.test_y).tolist() == [4, 4, 4]
    np.testing.assert_array_equal(numbers[1] % 3, data.test_y)


def test_validation_stands_in_for_test(write, made):
    parts = {"train": made.columns(range(48)), "validation": made.columns(range(48, 60))}
    assert made.numbers(load(write(made.images, parts)).test_x).tolist() == list(range(48, 60))


def test_arrays_are_kept_until_the_files_change(tiny, made, write, folder, monkeypatch):
    first = load(tiny)
    with monkeypatch.context() as patch:
        patch.setattr("medjax.lab.data.hf._decoded", None)
        np.testing.assert_array_equal(load(tiny).train_x, first.train_x)
    for path in (folder / "tiny").iterdir():
        path.unlink()
    (folder / "tiny").rmdir()
    write(made.images, {"train": made.columns(range(30)), "test": made.columns(range(9))})
    assert made.numbers(load(tiny).train_x).tolist() == list(range(30))


def test_whole_numbers_are_labels_and_others_columns_too(write, made):
    values = made.columns(range(12)) | {"label": [10 + k % 3 for k in range(12)], "id": ["x"] * 12}
    features = {"id": Value("string"), "image": made.images["image"], "label": Value("int16")}
    data = load(write(features, {"train": values, "test": values}))
    assert data.train_y.tolist() == [k % 3 for k in range(12)]


def test_files_that_pyarrow_writes(folder, made):
    def png(k):
        file = io.BytesIO()
        Image.fromarray(made.pixels[k]).save(file, "PNG")
        return {"bytes": file.getvalue(), "path": None}

    (folder / "images").mkdir(parents=True)
    for name, rows in made.splits.items():
        table = pa.table({"img": [png(k) for k in rows], "labels": [k % 3 for k in rows]})
        pq.write_table(table, folder / "images" / f"{name}.parquet")
    data = load(f"hf:x@{folder / 'images'}")
    assert made.numbers(data.train_x).tolist() == list(made.splits["train"])
    assert made.numbers(data.test_x).tolist() == list(made.splits["test"])


def test_grey_images_among_coloured_ones_get_three_channels(write, made):
    colour = Image.fromarray(np.stack([made.pixels[0]] * 2 + [made.pixels[1]], axis=2))
    images = [colour, Image.fromarray(made.pixels[2]), colour.convert("P"), colour.convert("RGBA")]
    parts = {
        "train": {"image": images, "label": [0, 1, 0, 1]},
        "test": {"image": [Image.fromarray(made.pixels[3])], "label": [1]},
    }
    data = load(write(made.images, parts))
    for x, k in ((data.train_x[1], 2), (data.test_x[0], 3)):
        np.testing.assert_array_equal(np.round(255 * x), np.stack([made.pixels[k]] * 3, axis=2))
    np.testing.assert_array_equal(data.train_x[3], data.train_x[0])
    np.testing.assert_array_equal(np.round(255 * data.train_x[0, ..., 2]), made.pixels[1])
    assert data.train_x.shape == (4, 6, 5, 3)


def test_clients_by_a_column(tiny, made):
    data = load(tiny, clients="person")
    assert data.authors is not None
    assert data.authors.tolist() == [sorted(set(made.writers)).index(x) for x in made.writers[:48]]


def test_clients_by_a_usual_name(write, made):
    values = made.columns(range(30))
    values |= {"writer_id": [-k for k in range(30)]}
    data = load(write(made.images | {"writer_id": Value("int64")}, {"train": values}))
    assert data.authors is not None
    assert data.authors.tolist() == [29 - k for k in made.numbers(data.train_x)]


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_a_run_on_natural_clients(tiny, made, capfd):
    arguments = (
        "--model logistic --partition natural --clients person --workers 4 --steps 2 --batch-size 2"
    )
    assert main(["--dataset", tiny, *arguments.split(), "--out", "out"]) == 0
    assert capfd.readouterr().err == ""
    record = json.loads(Path("out/config.json").read_text())
    assert record["config"]["clients"] == "person"
    sizes = np.unique(made.writers[:48], return_counts=True)[1]
    data = record["data"]
    assert (data["smallest_worker"], data["largest_worker"]) == (sizes.min(), sizes.max())


@pytest.fixture
def texts(made):
    """Four texts of each of three labels; of two clients in turn, who begin with their name."""
    rows = [(label, k % 2, made.text_of(label, seed=k)) for k in range(4) for label in range(3)]
    return {
        "text": [text for *_, text in rows],
        "label": [label for label, *_ in rows],
        "who": [client for _, client, _ in rows],
    }


TEXTS = {"text": Value("string"), "label": ClassLabel(names=["x", "y", "z"]), "who": Value("int64")}


def test_texts_become_windows_of_their_label(write, texts, made):
    data = load(write(TEXTS, {"train": texts}))
    assert data.inputs == "characters"
    assert data.num_classes == 10  # the nine letters, and the newline between texts
    # Of each label 4 · 200 characters and 3 newlines are 24 windows of 33, of which 4 are held out.
    assert np.bincount(data.groups).tolist() == [20, 20, 20]
    assert data.test_x.shape == (12, 32)
    np.testing.assert_array_equal(data.train_x[:, 1:], data.train_y[:, :-1])
    # The alphabet is the newline and a to i: 0, and three letters of each label.
    for label in range(3):
        letters = set(np.unique(data.train_x[data.groups == label]))
        assert letters <= {0, 3 * label + 1, 3 * label + 2, 3 * label + 3}
    whole = "\n".join(made.text_of(1, seed=k) for k in range(4))
    window = "".join("\nabcdefghi"[c] for c in data.train_x[np.argmax(data.groups == 1)])
    assert whole.index(window) % 33 == 0


def test_texts_of_clients_and_a_test_part(write, texts):
    test = {key: values[:3] for key, values in texts.items()}
    name = write(TEXTS, {"train": texts, "test": test})
    data = load(name, clients="who")
    # 6 texts of each client: 1205 characters, 36 windows.
    assert np.bincount(data.groups).tolist() == [36, 36]
    assert len(data.test_x) == 602 // 33
    assert len(load(name).test_x) == 3 * (200 // 33)


def test_they_are_data_sets_as_others_are(write, texts, tiny):
    for name in (tiny, write(TEXTS, {"train": texts}, name="texts")):
        checked(load(name), name)

"""Sets of Hugging Face: a line for every name, column or file that won't do, and no network."""

import contextlib
import io
import json
import random
import shutil
import sys
import time

import datasets
import numpy as np
import pytest
from datasets import ClassLabel, Value
from PIL import Image

from medjax.lab.commands.run import main
from medjax.lab.data import hf_find, load

NATURAL = ("--partition", "natural")


@pytest.mark.parametrize("name", ["mnist", "a/b/c", "a b/c", "../x", "x@", "a/b:", "a\nb/c", "@d"])
def test_names_of_no_set(name, error_of):
    error = error_of(main, "--dataset", f"hf:{name}")
    assert f"dataset {f'hf:{name}'!r} is no name; valid: hf:USER/SET of the hub, or hf:N" in error


def test_folders_without_a_set(folder, error_of):
    folder.mkdir()
    assert f"'{folder}/gone': no such directory" in error_of(
        main, "--dataset", f"hf:x@{folder}/gone"
    )
    error = error_of(main, "--dataset", f"hf:x@{folder}")
    assert f"dataset 'hf:x' can't be read from '{folder}': The directory at" in error
    (folder / "train.csv").write_text("text,label\nx,1\n")
    error = error_of(main, "--dataset", f"hf:x@{folder}")
    assert "files of the kind csv; valid: parquet, arrow, imagefolder" in error


def test_a_configuration_that_is_not_there(tiny, error_of):
    error = error_of(main, "--dataset", tiny.replace("@", ":nope@"))
    assert "BuilderConfig 'nope' not found. Available: ['default']" in error


ONE = Image.fromarray(np.zeros((6, 5), np.uint8))
LABEL = ClassLabel(names=["a", "b"])
IMAGE = {"image": datasets.Image(), "label": LABEL}
STRING, NUMBER = Value("string"), Value("int32")


@pytest.mark.parametrize(
    ("features", "values", "message"),
    [
        ({"label": LABEL}, {"label": [0]}, "columns label (ClassLabel); valid: one of images (Im"),
        ({"image": datasets.Image()}, {"image": [ONE]}, "image (Image); valid: one of labels too"),
        (
            {"image": datasets.Image(), "label": STRING},
            {"image": [ONE], "label": ["a"]},
            "image (Image), label (string); valid: one of labels too (ClassLabel or whole numbers)",
        ),
        (
            {"image": datasets.Image(), "fine_label": LABEL, "coarse_label": LABEL},
            {"image": [ONE], "fine_label": [0], "coarse_label": [0]},
            "has several columns of labels, fine_label, coarse_label; valid: one, or one called",
        ),
        (
            {"a": datasets.Image(), "b": datasets.Image(), "label": LABEL},
            {"a": [ONE], "b": [ONE], "label": [0]},
            "several columns of images, a, b; valid: one, or one called image or img",
        ),
        (
            {"question": STRING, "answer": STRING, "label": LABEL},
            {"question": ["x"], "answer": ["y"], "label": [0]},
            "several columns of text, question, answer; valid: one, or one called text or sentence",
        ),
        (IMAGE, {"image": [ONE, None], "label": [0, 1]}, "image is missing in example 1 of its sp"),
        (IMAGE, {"image": [ONE], "label": [None]}, "label is missing in example 0 of its split tr"),
        (
            IMAGE,
            {"image": [ONE, ONE.rotate(90, expand=True)], "label": [0, 1]},
            "has images of 6×5 and of 5×6 in its split train; valid: all of one height and width",
        ),
        (
            IMAGE,
            {"image": [Image.fromarray(np.zeros((6, 5), np.uint16))], "label": [0]},
            "has an image in mode I;16; valid: up to 8 bits a channel",
        ),
        (IMAGE, {"image": [], "label": []}, "dataset 'hf:tiny' has no examples in its split train"),
        (IMAGE, {"image": [ONE] * 4, "label": [0] * 4}, "has no test part and fewer than 5 exa"),
        ({"text": STRING, "label": LABEL}, {"text": ["x" * 32], "label": [0]}, "fewer than 33 ch"),
        (
            {"text": STRING, "label": LABEL},
            {"text": ["x" * 33 * 4], "label": [0]},
            "has no test part and fewer than 5 windows of 33 characters of a class",
        ),
    ],
)  # fmt: skip
def test_sets_that_are_no_classification(write, features, values, message, error_of):
    name = write(features, {"train": values})
    model = ["--model", "transformer"] if "text" in features else []
    assert message in error_of(main, "--dataset", name, *model)


def test_parts_that_do_not_fit(write, made, error_of):
    whole = made.columns(range(9))
    for k, (test, message) in enumerate(
        [
            (
                {"image": [ONE.rotate(90, expand=True)], "label": [0]},
                "to train on and of 5×6 to te",
            ),
            ({"image": [ONE], "label": [-1]}, "label -1 does not occur in the training part"),
        ]
    ):
        name = write(IMAGE | {"label": NUMBER}, {"train": whole, "test": test}, name=f"s{k}")
        assert message in error_of(main, "--dataset", name)
    name = write(IMAGE | {"label": NUMBER}, {"test": whole}, name="no-train")
    assert "has the splits test; valid: train, and perhaps test or val" in error_of(
        main, "--dataset", name
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--clients", "persn", *NATURAL),
            "has no column 'persn' of strings or whole numbers, as --clients names: did you mean "
            "'person'? valid: label, person",
        ),
        (("--clients", "image", *NATURAL), "has in 'image' no strings or whole numbers, as --cl"),
        (("--clients", "person"), "--clients person goes only with --dataset hf:NAME and --partit"),
        (("--clients", "", *NATURAL), "'' names no column"),
    ],
)
def test_clients_that_there_are_none_of(tiny, arguments, message, error_of):
    assert message in error_of(main, "--dataset", tiny, *arguments)


def test_clients_are_of_hugging_face(error_of):
    error = error_of(main, "--dataset", "digits", *NATURAL, "--clients", "x")
    assert "--clients x goes only with --dataset hf:NAME and --partition natural" in error
    with pytest.raises(
        ValueError, match="dataset 'digits' has no columns, such as 'x'; valid: hf:"
    ):
        load("digits", clients="x")


def test_natural_is_of_data_that_say_whose_they_are(write, made, error_of):
    name = write(made.images, {"train": made.columns(range(30))})
    error = error_of(main, "--dataset", name, *NATURAL)
    assert f"dataset '{name}' doesn't; valid: iid, by_label, " in error


@pytest.mark.slow
def test_files_with_a_part_changed(tiny, folder):
    rng, refused = random.Random(0), 0
    for path in sorted((folder / "tiny").iterdir()):
        whole = path.read_bytes()
        for trial in range(40):
            place = rng.randrange(len(whole))
            rest = rng.randbytes(3) + whole[place + 3 :] if trial % 4 else b""
            path.write_bytes(whole[:place] + rest)
            try:
                load(tiny)
            except ValueError as error:
                assert "\n" not in str(error)  # noqa: PT017
                refused += 1
        path.write_bytes(whole)
    assert refused > 20
    load(tiny)


def test_a_host_that_cannot_be_reached_takes_no_time(monkeypatch, error_of):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hf_find, "trouble_with", lambda url: "no answer in 2.5 s")
    start = time.monotonic()
    error = error_of(main, "--dataset", "hf:ylecun/mnist")
    assert time.monotonic() - start < 5
    assert (
        "dataset 'hf:ylecun/mnist' isn't in the cache of Hugging Face, and huggingface.co" in error
    )
    assert "reached (no answer in 2.5 s); valid without a network: digits, mnist5k, idx:" in error
    assert error.endswith("text:FILE, hf:NAME@DIR (see --help)\n")
    assert not datasets.config.HF_HUB_OFFLINE


def test_the_librarys_own_switch_is_respected(monkeypatch, error_of):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hf_find, "trouble_with", None)  # is not asked
    error = error_of(main, "--dataset", "hf:ylecun/mnist")
    assert "isn't in the cache of Hugging Face, and HF_HUB_OFFLINE is set; valid without" in error


def test_what_the_hub_says(monkeypatch, error_of, tiny, folder, made, capsys):
    def missing(path, config):
        assert (path, config) == ("hf://datasets/me/set", "small")
        raise datasets.exceptions.DatasetNotFoundError("Dataset 'me/set'\ndoesn't exist on the Hub")

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hf_find, "trouble_with", lambda url: "")
    builder = datasets.load_dataset_builder(str(folder / "tiny"))
    monkeypatch.setattr(datasets, "load_dataset_builder", missing)
    error = error_of(main, "--dataset", "hf:me/set:small")
    assert (
        "'hf:me/set:small' can't be had (Dataset 'me/set' doesn't exist on the Hub); val" in error
    )
    # And one that is there is downloaded in silence.
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda path, config: builder)
    assert made.numbers(load("hf:me/set").test_x).tolist() == list(range(48, 60))
    assert capsys.readouterr() == ("", "")


def test_a_set_in_the_cache_needs_no_host(monkeypatch, tiny, tmp_path, made):
    builder = datasets.load_dataset_builder(tiny.partition("@")[2])
    with contextlib.redirect_stderr(io.StringIO()):  # a bar of progress
        builder.download_and_prepare()
    # The place where the library keeps the set "set" of the user "me".
    kept = tmp_path / "hf" / "me___set" / "default" / "0.0.0" / "0123"
    shutil.copytree(builder.cache_dir, kept)
    for path in kept.glob("tiny-*.arrow"):
        path.rename(path.with_name(path.name.replace("tiny", "set")))
    info = json.loads((kept / "dataset_info.json").read_text())
    (kept / "dataset_info.json").write_text(json.dumps(info | {"dataset_name": "set"}))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hf_find, "trouble_with", lambda url: "no answer in 2.5 s")
    assert made.numbers(load("hf:me/set").test_x).tolist() == list(range(48, 60))


def test_the_package_that_is_missing(tiny, monkeypatch, error_of):
    monkeypatch.setitem(sys.modules, "datasets", None)
    error = error_of(main, "--dataset", tiny)
    assert f"dataset '{tiny}' needs datasets: pip install \"medjax[hf]\"" in error

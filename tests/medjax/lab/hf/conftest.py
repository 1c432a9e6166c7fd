"""Sets of Hugging Face that the tests write themselves, as parquet."""

import contextlib
import io
import random
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
from datasets import ClassLabel, Features, Value
from PIL import Image

PIXELS = np.random.default_rng(0).integers(0, 256, (60, 6, 5), dtype=np.uint8)
WRITERS = [f"f{k * k % 7}" for k in range(60)]  # four, unequally many
IMAGES = {"image": datasets.Image(), "label": ClassLabel(names=["a", "b", "c"])}
SPLITS = {"train": range(48), "test": range(48, 60)}


def columns(rows):
    """Return images of these numbers, their numbers modulo 3 as labels, and their writers."""
    return {
        "image": [Image.fromarray(PIXELS[k]) for k in rows],
        "label": [k % 3 for k in rows],
        "person": [WRITERS[k] for k in rows],
    }


def numbers(x):
    """Return the number of each image; all of its pixels must agree."""
    found = {pixels.tobytes(): k for k, pixels in enumerate(PIXELS)}
    return np.array([found[np.round(255 * pixels).astype(np.uint8).tobytes()] for pixels in x])


def text_of(label, length=200, seed=0):
    """Return a text of letters that only this label has."""
    return "".join(random.Random(seed).choices("abcdefghi"[3 * label : 3 * label + 3], k=length))


@pytest.fixture(scope="session")
def made():
    """Give the parts that the sets are made of."""
    return SimpleNamespace(
        columns=columns, numbers=numbers, writers=WRITERS, splits=SPLITS, images=IMAGES,
        pixels=PIXELS, text_of=text_of,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder for sets, beside which the caches and the results go."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "sets"


@pytest.fixture
def write(folder):
    """Write a set as parquet, its splits each a mapping of columns."""

    def write(features, splits, name="tiny"):
        (folder / name).mkdir(parents=True)
        for split, values in splits.items():
            chosen = {key: values[key] for key in features}
            part = datasets.Dataset.from_dict(chosen, features=Features(features))
            with contextlib.redirect_stderr(io.StringIO()):  # a bar of progress
                # datasets before 5.2 can't estimate the size of batches of an empty one.
                part.to_parquet(folder / name / f"{split}-00000-of-00001.parquet", batch_size=1000)
        return f"hf:{name}@{folder / name}"

    return write


@pytest.fixture
def tiny(write):
    values = {split: columns(rows) for split, rows in SPLITS.items()}
    return write(IMAGES | {"person": Value("string")}, values)

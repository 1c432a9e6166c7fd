"""Sets of TensorFlow Datasets that the tests write themselves, without TensorFlow."""

import tempfile
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from medjax.lab.data.outside import quiet
from medjax.lab.data.tfds_find import FORMAT

PIXELS = np.random.default_rng(0).integers(0, 256, (60, 6, 5), dtype=np.uint8)
WRITERS = np.array([f"f{k * k % 7}" for k in range(60)])  # of four, unequally many


def examples(rows, writer=WRITERS):
    """Yield images of these numbers, their numbers modulo 3 as labels, and their writers if any."""
    for k in rows:
        example = {"image": Image.fromarray(PIXELS[k]), "label": int(k % 3)}
        yield int(k), example | ({} if writer is None else {"writer_id": writer[k]})


FEATURES = {
    "image": tfds.features.Image(shape=(6, 5, 1)),
    "label": tfds.features.ClassLabel(num_classes=3),
}
WITH_WRITERS = FEATURES | {"writer_id": tfds.features.Text()}
SPLITS = {"train": range(48), "test": range(48, 60)}


def numbers(x):
    """Return the number of each image; all of its pixels must agree."""
    found = {pixels.tobytes(): k for k, pixels in enumerate(PIXELS)}
    return np.array([found[np.round(255 * pixels).astype(np.uint8).tobytes()] for pixels in x])


@pytest.fixture(scope="session")
def made():
    """Give the parts that the sets are made of."""
    return SimpleNamespace(
        pixels=PIXELS,
        writers=WRITERS,
        features=FEATURES,
        with_writers=WITH_WRITERS,
        splits=SPLITS,
        plain={split: list(examples(rows, None)) for split, rows in SPLITS.items()},
        examples=examples,
        numbers=numbers,
        image=Image.fromarray,
    )


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty folder of prepared sets, where the cache and the results go too."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # TFDS leaves an empty temporary folder for every builder of a set that isn't prepared.
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "sets"
    path.mkdir()
    return path


@pytest.fixture
def write(folder):
    """Prepare a set as TFDS does, without TensorFlow."""

    def write(features, splits, name="tiny", config=None, file_format=FORMAT, **described):
        class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
            VERSION = tfds.core.Version("1.0.0")
            BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=config)] if config else []

            def _info(self):
                known = tfds.features.FeaturesDict(features)
                return tfds.core.DatasetInfo(builder=self, features=known, **described)

            def _split_generators(self, dl_manager):
                return {split: iter(rows) for split, rows in splits.items()}

            def _generate_examples(self):
                raise NotImplementedError

        Builder.name = name
        with quiet():
            Builder(data_dir=folder, file_format=file_format).download_and_prepare()
        return f"tfds:{name}@{folder}"

    return write


@pytest.fixture
def tiny(write):
    rows = {split: list(examples(rows)) for split, rows in SPLITS.items()}
    return write(WITH_WRITERS, rows)

"""TensorFlow Datasets: sets that aren't there, with a network and without."""

import logging
import socket
import threading
import time
import urllib.error
import urllib.request
import warnings
from typing import ClassVar

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.shuffle import DuplicatedKeysError

from medjax.lab.commands.run import main
from medjax.lab.commands.sweep import main as sweep
from medjax.lab.data import load, outside, tfds_find


@pytest.fixture
def no_network(monkeypatch):
    """A host that never answers, as behind a firewall, and is looked up for minutes."""

    over = threading.Event()

    def hang(*arguments, **settings):
        over.wait(60)
        raise OSError("given up")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield
    over.set()


@pytest.mark.slow
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
        image = tfds.features.Image(shape=(2, 2, 1))
        label = tfds.features.ClassLabel(num_classes=2)
        features = tfds.features.FeaturesDict({"image": image, "label": label})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        print("much")
        if self.trouble is not None:
            raise self.trouble
        return {"train": self._generate_examples(range(8)), "test": self._generate_examples([8])}

    def _generate_examples(self, greys):
        for grey in greys:
            pixels = np.full((2, 2), grey, np.uint8)
            yield grey, {"image": Image.fromarray(pixels), "label": grey % 2}


def greys_of(x):
    return sorted(np.round(255 * x[:, 1, 0, 0]).astype(int).tolist())


def test_a_set_that_can_be_had_is_prepared(folder, monkeypatch, capfd):
    answer(monkeypatch)
    name = f"tfds:medjax_pictures@{folder}"
    data = load(name)
    assert greys_of(data.train_x) == list(range(8))
    assert capfd.readouterr() == ("", "")
    answer(monkeypatch, AssertionError("nothing is asked for what is there"))
    assert greys_of(load(name).test_x) == [8]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (AssertionError("put the files\n\tin a folder"), "can't be: put the files in a folder; by"),
        (
            ImportError("no tensorflow"),
            "can't be: its preparation needs TensorFlow: pip install te",
        ),
        # Of the set's own code.
        (KeyError("label"), "can't be: its code fails with KeyError: 'label'; by hand: tfds build"),
        (DuplicatedKeysError(1, 2), "its code fails with DuplicatedKeysError: "),
    ],
)
def test_a_set_whose_preparation_fails(folder, monkeypatch, error, message, error_of):
    answer(monkeypatch)
    monkeypatch.setattr(MedjaxPictures, "trouble", error)
    # As without TensorFlow, wherever the tests are run.
    monkeypatch.setattr(tfds_find.importlib.util, "find_spec", lambda name: None)
    assert message in error_of(main, "--dataset", f"tfds:medjax_pictures@{folder}")
    assert not list(folder.glob("medjax_pictures/*"))


def test_quiet_is_over_afterwards():
    with outside.quiet():
        logging.getLogger("others").warning("not seen")
        warnings.warn("nor this", stacklevel=1)
        assert not logging.getLogger("others").isEnabledFor(logging.WARNING)
    assert logging.getLogger("others").isEnabledFor(logging.ERROR)
    with pytest.raises(UserWarning):
        warnings.warn("seen", stacklevel=1)

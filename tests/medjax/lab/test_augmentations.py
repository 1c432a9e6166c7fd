"""Augmentations of images: each crop against NumPy, and who sees which."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import stats

import medjax
from medjax.lab.commands.run import main
from medjax.lab.models.augmentations import crop_flip
from medjax.objectives import Stateful, augmented

IMAGE = np.random.default_rng(0).integers(1, 256, (8, 7, 3)).astype(np.float32)


def variants(image, padding):
    """Return all crops of the framed image, each also mirrored, as bytes."""
    height, width, _ = image.shape
    framed = np.zeros((height + 2 * padding, width + 2 * padding, 3), np.float32)
    framed[padding : padding + height, padding : padding + width] = image
    places = itertools.product(range(2 * padding + 1), repeat=2)
    crops = [framed[i : i + height, j : j + width] for i, j in places]
    return [x.tobytes() for crop in crops for x in (crop, crop[:, ::-1])]


def drawn(seed, count=8100):
    images = jnp.broadcast_to(IMAGE, (count, *IMAGE.shape))
    return np.asarray(jax.jit(crop_flip())(images, jax.random.key(seed)))


@pytest.mark.slow
def test_every_crop_and_its_mirror_image_are_equally_likely():
    places = {variant: k for k, variant in enumerate(variants(IMAGE, 4))}
    assert len(places) == 81 * 2
    found = np.array([places[image.tobytes()] for image in drawn(0)])
    counts = np.bincount(found, minlength=162)  # of 50 each
    assert counts.min() > 0
    assert ((counts - 50) ** 2 / 50).sum() < stats.chi2.isf(1e-6, 161)
    # Neighbours in the batch are independent: rows, columns and flips in pairs.
    for part in (found // 18, found // 2 % 9, found % 2):
        kinds = part.max() + 1
        pairs = np.bincount(kinds * part[:-1] + part[1:], minlength=kinds**2)
        expected = len(part) / kinds**2
        assert ((pairs - expected) ** 2 / expected).sum() < stats.chi2.isf(1e-6, kinds**2 - 1)


@pytest.mark.slow
def test_the_key_fixes_it():
    np.testing.assert_array_equal(drawn(3, 20), drawn(3, 20))
    assert (drawn(3, 20) != drawn(4, 20)).any(axis=(1, 2, 3)).sum() > 15


@pytest.mark.slow
def test_without_padding_there_is_only_the_mirror_image():
    images = jnp.stack([jnp.asarray(IMAGE)] * 50)
    found = np.asarray(crop_flip(padding=0)(images, jax.random.key(0)))
    assert {x.tobytes() for x in found} == set(variants(IMAGE, 0))


# The loss of an image is its product with the parameters: a gradient is the image as it is seen.
# Pixels are whole numbers, so that no sum is rounded.
IMAGES = np.random.default_rng(1).integers(1, 9, (24, 8, 7, 3)).astype(np.float32)
PARTS = np.split(np.arange(24), 4)


def product(params, batch):
    return (params[None] * batch[0]).sum(axis=(1, 2, 3)), {}


def train(steps, **settings):
    data = medjax.stack_workers((IMAGES, np.zeros(24, np.int32)), PARTS)
    optimizer = medjax.mean_sgd(4.0)
    objective = augmented(product, crop_flip(padding=2))

    def run(params, data):
        return medjax.simulate(
            objective, params, data, optimizer, num_steps=steps, key=0, test_data=(IMAGES, 0),
            **settings,
        )  # fmt: skip

    return jax.jit(run)(jnp.ones(IMAGE.shape), data)


@pytest.mark.slow
def test_it_is_the_same_however_the_workers_are_divided():
    whole = train(5, batch_size=4)
    for settings in (
        {"worker_chunk": 3, "streaming": "require"},
        {"streaming": "off"},
        {"mesh": medjax.sharding.make_mesh(4)},
    ):
        other = train(5, batch_size=4, **settings)
        np.testing.assert_array_equal(other.params, whole.params)


@pytest.mark.slow
def test_steps_and_workers_see_other_crops_and_measurements_the_images():
    first, second = (train(steps) for steps in (1, 2))
    mean = IMAGES.mean(axis=0)
    assert np.abs(1 - first.params - 4 * mean).max() > 1
    assert np.abs(first.params - second.params - (1 - first.params)).max() > 1
    for part in ("train_loss", "test_loss"):
        start, end = np.asarray(first.metrics[part])
        assert start == pytest.approx(mean.sum(), rel=1e-6)
        assert end == pytest.approx((np.asarray(first.params) * mean).sum(), rel=1e-4)


def test_objectives_with_a_key_or_a_state_keep_them():
    def noisy(params, batch, key):
        return batch[0] * (0 if key is None else jax.random.uniform(key)), {}

    def counting(params, state, batch, key):
        return batch[0], {}, state + 1

    def double(inputs, key):
        return 2 * inputs

    batch, key = (jnp.ones(2), jnp.zeros(2)), jax.random.key(5)
    losses, _ = augmented(noisy, double)(0, batch, key=key)
    np.testing.assert_allclose(losses, 2 * jax.random.uniform(key) * np.ones(2))
    assert augmented(noisy, double)(0, batch, key=None)[0].tolist() == [0, 0]
    stateful = augmented(Stateful(counting, jnp.zeros(())), double)
    assert stateful.state == 0
    assert [stateful.function(0, 3, batch, k)[0].tolist() for k in (key, None)] == [[2, 2], [1, 1]]
    assert stateful.function(0, 3, batch, key)[2] == 4


QUICK = ["--dataset", "digits", "--model", "logistic", "--rule", "mean", "--steps", "3"]


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_a_run(tmp_path):
    losses = []
    for k, augment in enumerate(("none", "crop_flip", "crop_flip:padding=1")):
        out = tmp_path / str(k)
        assert main([*QUICK, "--eval-every", "3", "--augment", augment, "--out", str(out)]) == 0
        losses.append(pq.read_table(out / "metrics.parquet")["train_loss"].to_pylist())
        record = json.loads((out / "config.json").read_text())["config"]["augment"]
        assert record == (None if augment == "none" else augment)
    assert len({run[0] for run in losses}) == 1  # measured without it
    assert len({run[1] for run in losses}) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "--dataset digits --augment crop_flip:padding=8",
            "crop_flip(padding=8) leaves nothing of images of 8×8 pixels; valid: padding below 8",
        ),
        (
            "--dataset text --model transformer --augment crop_flip",
            "--augment crop_flip is of images, and dataset 'text' is of characters; valid: none",
        ),
        (
            "--dataset digits --augment ./mine.py:halve",
            "./mine.py:halve makes an array of shape (2, 4, 8, 1) and dtype float32; valid: (2, 8",
        ),
        ("--dataset digits --augment ./mine.py:forget", "makes an array of shape None and dtype N"),
    ],
)
def test_what_cannot_be_augmented_gets_one_line(
    arguments, message, tmp_path, monkeypatch, error_of
):
    monkeypatch.chdir(tmp_path)
    mine = "def halve(images, key): return images[:, ::2]\ndef forget(images, key): return None\n"
    (tmp_path / "mine.py").write_text(mine)
    assert message in error_of(main, *arguments.split())

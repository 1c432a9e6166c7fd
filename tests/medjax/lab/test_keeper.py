"""Checkpoints with any file cut, changed or missing: the one before is used instead."""

import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from medjax.lab.storage.keeper import Keeper

STATE = (jnp.arange(6.0).reshape(2, 3), jnp.int32(7))


@pytest.fixture
def folder(tmp_path):
    """Two checkpoints, of steps 1 and 2."""
    path = tmp_path / "checkpoints"
    keeper = Keeper(path, 1)
    for step in (1, 2):
        keeper.update(step, STATE, {"step": [0, step], "loss": [3.0, 1.5]})
    keeper.close()
    return path


def latest(folder):
    keeper = Keeper(folder, 1)
    try:
        return keeper.latest()
    finally:
        keeper.close()


def assert_is(start, step):
    assert start.step == step
    for kept, leaf in zip(start.leaves, STATE, strict=True):
        np.testing.assert_array_equal(kept, np.asarray(leaf), strict=True)
    rows = {name: values.tolist() for name, values in start.rows.items()}
    assert rows == {"step": [0, step], "loss": [3.0, 1.5]}


def test_the_last_is_read(folder):
    assert_is(latest(folder), 2)


def changes(content, rng):
    """Yield the content cut, emptied, changed, and gone."""
    yield b""
    for length in rng.choice(len(content), 8, replace=False):
        yield content[:length]
    for place in rng.choice(len(content), 16, replace=False):
        changed = bytearray(content)
        changed[place] ^= rng.integers(1, 256)
        yield bytes(changed)
    yield None


@pytest.mark.slow
def test_any_damage_to_the_last(folder):
    rng, passed_over = np.random.default_rng(0), 0
    for path in sorted(x for x in (folder / "2").rglob("*") if x.is_file()):
        content = path.read_bytes()
        for changed in changes(content, rng):
            path.unlink() if changed is None else path.write_bytes(changed)
            start = latest(folder)
            assert start is not None
            assert_is(start, start.step)  # the values are right, of whichever it is
            passed_over += start.step == 1
            path.write_bytes(content)
    assert passed_over > 20
    assert_is(latest(folder), 2)


@pytest.mark.parametrize("part", [".", "default"])
def test_a_folder_that_is_empty(folder, part):
    place = folder / "2" / part
    shutil.rmtree(place)
    place.mkdir()
    assert_is(latest(folder), 1)


def test_all_torn(folder):
    for path in folder.rglob("arrays.npz"):
        path.write_bytes(path.read_bytes()[:-1])
    assert latest(folder) is None

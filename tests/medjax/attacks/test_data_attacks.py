from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax import WorkerData, attacks, stack_workers

N, F = 4, 2
SIZES = (3, 5, 4, 5)
RNG = np.random.default_rng(0)
IMAGES = RNG.random((17, 4, 5, 2)).astype(np.float32)
LABELS = RNG.integers(0, 10, 17).astype(np.int32)
PARTS = np.split(np.arange(17), np.cumsum(SIZES)[:-1])
DATA = stack_workers((IMAGES, LABELS), PARTS)


def examples(data: WorkerData, worker: int) -> tuple[np.ndarray, np.ndarray]:
    images, labels = data.examples
    return np.asarray(images[worker]), np.asarray(labels[worker])


def test_label_flip_mirrors_all_labels_of_the_last_workers_and_no_others():
    flipped = attacks.label_flip(10)(DATA, F)
    np.testing.assert_array_equal(flipped.sizes, SIZES)
    np.testing.assert_array_equal(flipped.examples[0], DATA.examples[0])
    labels = np.asarray(DATA.examples[1])
    np.testing.assert_array_equal(flipped.examples[1][:2], labels[:2])
    np.testing.assert_array_equal(flipped.examples[1][2:], 9 - labels[2:])
    assert flipped.examples[1].dtype == jnp.int32


def test_the_trigger_is_a_square_in_the_lower_right_corner():
    images = IMAGES[:3].reshape(3, 1, 4, 5, 2)
    expected = images.copy()
    expected[:, :, 2:, 3:, :] = 0.7
    np.testing.assert_array_equal(attacks.add_trigger(images, 2, 0.7), expected)
    whole = attacks.add_trigger(images[0, 0], 4)
    assert np.all(np.asarray(whole)[:, 1:] == 1)
    np.testing.assert_array_equal(whole[:, 0], images[0, 0, :, 0])


# Of k = 0, 1, 2, ... those where ⌊(k + 1) · share⌋ > ⌊k · share⌋. At 0.5: 1 and 3. At 0.7, with
# ⌊0.7 k⌋ = 0, 0, 1, 2, 2, 3: 1, 2 and 4.
@pytest.mark.parametrize(
    ("share", "chosen"), [(0.5, {1, 3}), (0.7, {1, 2, 4}), (1.0, set(range(5)))]
)
def test_backdoor_poisons_a_share_of_the_own_examples_of_the_last_workers(
    share: float, chosen: set[int]
):
    poisoned = attacks.backdoor(target=7, share=share, size=2, value=0.5)(DATA, F)
    np.testing.assert_array_equal(poisoned.sizes, SIZES)
    for worker in range(N):
        images, labels = examples(DATA, worker)
        images, labels = images.copy(), labels.copy()
        for row in range(len(labels)):
            # A worker's padding is made of its own examples from the first on.
            if worker >= N - F and row % SIZES[worker] in chosen:
                images[row, 2:, 3:, :] = 0.5
                labels[row] = 7
        np.testing.assert_array_equal(examples(poisoned, worker)[0], images)
        np.testing.assert_array_equal(examples(poisoned, worker)[1], labels)


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 7, 10, 100, 999])
@pytest.mark.parametrize("share", [0.01, 0.1, 0.29, 1 / 3, 0.7, 0.9])
def test_the_share_is_exact_and_evenly_spread(share: float, size: int):
    data = stack_workers((np.zeros((size, 1, 1, 1), "f4"), np.zeros(size, int)), [range(size)] * 2)
    labels = np.asarray(attacks.backdoor(1, share, size=1)(data, 1).examples[1][1])
    hundredths = round(share * 100) if share != 1 / 3 else None
    count = size // 3 if hundredths is None else hundredths * size // 100
    assert labels.sum() == count
    gaps = np.diff(np.flatnonzero(labels))
    assert np.all((np.floor(1 / share) <= gaps) & (gaps <= np.ceil(1 / share)))


def test_no_attackers_change_nothing_and_jit_changes_as_much():
    for attack in (attacks.label_flip(10), attacks.backdoor(0)):
        assert attack(DATA, 0) is DATA
        eager = attack(DATA, 3)
        given = jax.jit(lambda data, attack=attack: attack(data, 3))(DATA)
        known = jax.jit(lambda attack=attack: attack(DATA, 3).examples)()
        jax.tree.map(np.testing.assert_array_equal, eager, given)
        jax.tree.map(np.testing.assert_array_equal, eager.examples, known)


def test_the_given_data_are_left_as_they_are():
    before = np.array(DATA.examples[0]), np.array(DATA.examples[1])
    attacks.backdoor(0, 1.0)(DATA, 3)
    np.testing.assert_array_equal(DATA.examples[0], before[0])
    np.testing.assert_array_equal(DATA.examples[1], before[1])


BYTES = tuple(x.astype(np.uint8) for x in map(np.asarray, DATA.examples))


def flat() -> WorkerData:
    return stack_workers((IMAGES.reshape(17, -1), LABELS), PARTS)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: attacks.label_flip(1), ValueError, "num_classes must be at least 2, got 1"),
        (lambda: attacks.label_flip(2.5), TypeError, "num_classes must be an integer, got 2.5"),
        (lambda: attacks.backdoor(-1), ValueError, "target must be at least 0, got -1"),
        (lambda: attacks.backdoor(0, 0), ValueError, "share must be a finite number above 0"),
        (lambda: attacks.backdoor(0, 1.5), ValueError, "share must be at most 1, got 1.5"),
        (lambda: attacks.backdoor(0, size=0), ValueError, "size must be at least 1, got 0"),
        (lambda: attacks.backdoor(0, value="x"), TypeError, "value must be a real number"),
        (lambda: attacks.label_flip(2)(DATA, 1), ValueError, "is of labels from 0 to 1, got "),
        (
            lambda: attacks.backdoor(300)(replace(DATA, examples=BYTES), 1),
            *(ValueError, "target must be at most 255, as uint8 is, got 300"),
        ),
        (
            lambda: attacks.backdoor(3, value=0.5)(replace(DATA, examples=BYTES), 1),
            *(ValueError, "value must be an integer in images of uint8, got 0.5"),
        ),
        (lambda: attacks.label_flip(2)(DATA, 4), ValueError, "f = 4 Byzantine of n = 4 workers"),
        (lambda: attacks.label_flip(2)(DATA, -1), ValueError, "num_byzantine must be at least 0"),
        (lambda: attacks.backdoor(0)(flat(), 1), ValueError, r"needs images .* shape \(4, 5, 40\)"),
        (lambda: attacks.backdoor(0, size=5)(DATA, 1), ValueError, "a trigger of 5×5 pixels needs"),
        (lambda: attacks.add_trigger(IMAGES[0, 0]), ValueError, r"that size, got shape \(5, 2\)"),
        (
            lambda: attacks.label_flip(2)(replace(DATA, examples=IMAGES[None]), 1),
            TypeError,
            r"label_flip\(num_classes=2\) needs examples that are a pair \(inputs, labels\)",
        ),
        (
            lambda: attacks.label_flip(2)(replace(DATA, examples=DATA.examples[::-1]), 1),
            TypeError,
            r"needs integer labels \(n, m\), got float32 of shape \(4, 5, 4, 5, 2\)",
        ),
    ],
)
def test_impossible_settings(make: Callable[[], Any], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        make()

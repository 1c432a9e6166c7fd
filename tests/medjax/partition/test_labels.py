"""Labels as partitions take them: arrays, lists, names; and the errors of every partition."""

import math
import re

import jax.numpy as jnp
import numpy as np
import pytest

from medjax.partition import (
    by_label,
    dirichlet,
    gamma_similarity,
    iid,
    natural,
    power_law,
    shards,
)

TWELVE = np.repeat(np.arange(4), 3)
FOR_FOUR = {"iid": iid(), "by_label": by_label(2), "shards": shards(), "dirichlet": dirichlet(1.0)}
FOR_FOUR |= {"gamma_similarity": gamma_similarity(0.4), "power_law": power_law(1.0)}


every_split = pytest.mark.parametrize(
    "split", [*FOR_FOUR.values(), natural()], ids=[*FOR_FOUR, "natural"]
)


@every_split
@pytest.mark.parametrize(
    "convert",
    [
        np.ndarray.tolist,
        tuple,
        lambda labels: labels.astype(np.float32),
        lambda labels: labels.astype(float).tolist(),
        lambda labels: jnp.asarray(labels, jnp.bfloat16),
        lambda labels: labels.astype(np.uint8),
    ],
    ids=["list", "tuple", "float32", "floats", "bfloat16", "uint8"],
)
def test_labels_of_other_types(split, convert):
    expected = [part.tolist() for part in split(TWELVE, 4, 0)]
    assert [part.tolist() for part in split(convert(TWELVE), 4, 0)] == expected


def test_a_list_of_labels():
    parts = by_label(1)([0, 0, 1, 1], 2, 0)
    assert sorted(part.tolist() for part in parts) == [[0, 1], [2, 3]]


@every_split
def test_names_are_classes_in_alphabetical_order(split):
    names = np.array(["ann", "bob", "eve", "ida"])[TWELVE % 4].tolist()
    parts, expected = (split(x, 4, 0) for x in (names, TWELVE % 4))
    assert [part.tolist() for part in parts] == [part.tolist() for part in expected]


@every_split
def test_booleans_are_the_classes_0_and_1(split):
    booleans = TWELVE < 2
    parts, expected = (split(x, 2, 0) for x in (booleans.tolist(), booleans.astype(int)))
    assert [part.tolist() for part in parts] == [part.tolist() for part in expected]


@every_split
@pytest.mark.parametrize(
    ("labels", "kind", "got"),
    [
        ([0.0, 1.0, 2.0, math.nan], ValueError, "nan at index 3"),
        ([0.0, -math.inf, math.nan, 0.5], ValueError, "-inf at index 1"),
        ([0, 1, 2.5, 1.5], ValueError, "2.5 at index 2"),
        (np.array([0.1, 1, 2, 3], np.float32), ValueError, "0.1 at index 0"),
        ([0.0, 1e19, 2.0, 3.0], ValueError, "1e+19 at index 1"),
        ([0, 1, 2, None], TypeError, "dtype object"),
        ([0j, 1j, 2j, 3j], TypeError, "dtype complex128"),
    ],
)
def test_labels_that_are_not_integers(split, labels, kind, got):
    with pytest.raises(kind, match=f"^labels must be integers( or names)?, got {re.escape(got)}$"):
        split(labels, 2, 0)


@every_split
def test_errors_of_every_partition(split):
    with pytest.raises(ValueError, match="13 workers need at least 13 examples, there are 12"):
        split(TWELVE, 13, 0)
    with pytest.raises(ValueError, match="num_workers must be at least 1, got 0"):
        split(TWELVE, 0, 0)
    with pytest.raises(TypeError, match=r"num_workers must be an integer, got 4\.0"):
        split(TWELVE, 4.0, 0)
    with pytest.raises(ValueError, match=r"labels must be a list, got shape \(4, 3\)"):
        split(TWELVE.reshape(4, 3), 4, 0)
    with pytest.raises(ValueError, match="1 workers need at least 1 examples, there are 0"):
        split([], 1, 0)
    for seed, kind, message in ((-1, ValueError, "at least 0, got -1"), (0.5, TypeError, "an int")):
        with pytest.raises(kind, match="seed must be " + message):
            split(TWELVE, 4, seed)

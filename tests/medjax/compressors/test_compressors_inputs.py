"""What every compressor is given: pytrees, precisions, non-finite numbers, impossible settings."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax import compressors

COMPRESSORS = {
    "sign": compressors.sign(),
    "sign(random)": compressors.sign("random"),
    "scaled_sign": compressors.scaled_sign(),
    "stochastic_sign": compressors.stochastic_sign(),
    "stochastic_sign(bound)": compressors.stochastic_sign(2.0),
    "qsgd": compressors.qsgd(3),
    "terngrad": compressors.terngrad(),
    "top_k": compressors.top_k(4),
    "random_k": compressors.random_k(4),
    "random_mask": compressors.random_mask(0.4),
    "rotation_quantization": compressors.rotation_quantization(2),
    "low_rank": compressors.low_rank(2),
}
TREE = {
    "m": jnp.array([[[1.0], [-2.0]], [[0.5], [0.0]], [[-0.25], [3.0]]]),
    "v": [jnp.array([[1.5, -1.0], [0.75, 0.125], [2.5, -0.5]])],
}


def flat(tree: Any) -> np.ndarray:
    return np.concatenate([np.asarray(x, np.float64).reshape(-1) for x in jax.tree.leaves(tree)])


def test_the_table_has_them_all():
    assert {name.split("(")[0] for name in COMPRESSORS} == set(compressors.COMPRESSORS)
    for name, compressor in COMPRESSORS.items():
        assert compressor.name.split("(")[0] == name.split("(")[0]
    assert compressors.top_k(fraction=0.25).name == "top_k(fraction=0.25)"
    assert compressors.stochastic_sign(2.0).name == "stochastic_sign(bound=2)"


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPRESSORS)
def test_pytrees_precisions_and_non_finite_numbers(name: str):
    compress = jax.jit(COMPRESSORS[name].compress)
    keys = jax.random.split(jax.random.key(2))
    actual = compress(TREE, keys[0])
    assert jax.tree.structure(actual) == jax.tree.structure(TREE)
    assert [x.shape for x in jax.tree.leaves(actual)] == [(3, 2, 1), (3, 2)]
    np.testing.assert_array_equal(flat(actual), flat(compress(TREE, keys[0])))
    other = flat(compress(TREE, keys[1]))
    assert COMPRESSORS[name].needs_key == np.any(flat(actual) != other)
    # All of TREE are numbers of bfloat16: the same is computed, and rounded at last.
    half = compress(jax.tree.map(lambda x: x.astype(jnp.bfloat16), TREE), keys[0])
    for x, expected in zip(jax.tree.leaves(half), jax.tree.leaves(actual), strict=True):
        assert x.dtype == jnp.bfloat16
        np.testing.assert_array_equal(x, expected.astype(jnp.bfloat16))

    for value in (np.nan, np.inf, -np.inf):
        spoilt = {"m": TREE["m"].at[0, 0, 0].set(value), "v": TREE["v"]}
        check_spoilt(name, value, flat(compress(spoilt, keys[0])))


def check_spoilt(name: str, value: float, sent: np.ndarray) -> None:
    """What the docstring says of a non-finite first coordinate."""
    if name in ("scaled_sign", "stochastic_sign", "qsgd"):
        assert not np.any(np.isfinite(sent))
    elif name == "rotation_quantization":
        assert np.all(np.isnan(sent))
    elif name in ("terngrad", "low_rank"):  # the tensor is spoilt; it has one column
        np.testing.assert_array_equal(np.isfinite(sent), np.arange(12) >= 6)
    elif name == "top_k":  # of the others 3, 2.5 and -2 are largest
        np.testing.assert_array_equal(sent, [value, -2, 0, 0, 0, 3, 0, 0, 0, 0, 2.5, 0])
    elif name in ("random_k", "random_mask"):
        assert sent[0] == 0 or not np.isfinite(sent[0])
        assert np.all(np.isfinite(sent[1:]))
    else:
        np.testing.assert_array_equal(np.abs(sent), 2 if "bound" in name else 1)
        assert np.isnan(value) or sent[0] == np.sign(value) * abs(sent[0])


@pytest.mark.slow
def test_zeros_and_leaves_without_coordinates():
    update = {"w": jnp.zeros((5, 0)), "b": jnp.zeros((3, 3), jnp.bfloat16), "c": jnp.zeros(4)}
    keys = jax.random.key(0)
    every = jax.jit(lambda x: {name: c.compress(x, keys) for name, c in COMPRESSORS.items()})
    for name, sent in every(update).items():
        assert jax.tree.map(lambda x: x.dtype, sent) == jax.tree.map(lambda x: x.dtype, update)
        size = {"sign": 1, "sign(random)": 1, "stochastic_sign(bound)": 2}.get(name, 0)
        np.testing.assert_array_equal(np.abs(flat(sent)), size)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qsgd", "rotation_quantization", "low_rank"])
def test_a_single_coordinate(name: str):
    # Of one number the norm, the range or the whole is sent, and nothing is lost.
    sent = COMPRESSORS[name].compress(jnp.float32(-1.7), 3)
    np.testing.assert_allclose(sent, -1.7, rtol=2e-7)


@pytest.mark.slow
def test_64_bits():
    with jax.enable_x64(True):
        update = jnp.array([1.0 + 1e-12, -2.0, 1.0, 0.5])
        np.testing.assert_array_equal(compressors.top_k(2).compress(update), [1 + 1e-12, -2, 0, 0])
        assert compressors.top_k(2).bits(update) == 2 * (64 + 2)
        # The scale is sent as a float32.
        sent = compressors.scaled_sign().compress(update)
        np.testing.assert_array_equal(np.abs(sent), float(np.float32(1.125)))
        assert sent.dtype == jnp.float64


IMPOSSIBLE: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: compressors.sign("zero"), ValueError, "zero must be one of plus, random; got 'zero'"),
    (
        lambda: compressors.scaled_sign("none"),
        ValueError,
        "zero must be one of plus, random; got 'none'",
    ),
    (
        lambda: compressors.stochastic_sign(0.0),
        ValueError,
        "bound must be a finite number above 0, got 0",
    ),
    (lambda: compressors.qsgd(0), ValueError, "levels must be at least 1, got 0"),
    (lambda: compressors.qsgd(1.5), TypeError, "levels must be an integer, got 1.5"),
    (lambda: compressors.top_k(0), ValueError, "k must be at least 1, got 0"),
    (
        lambda: compressors.top_k(),
        ValueError,
        "top_k needs either k or a fraction, got k=None and fraction=None",
    ),
    (
        lambda: compressors.random_k(1, fraction=0.5),
        ValueError,
        "random_k needs either k or a fraction, got k=1 and fraction=0.5",
    ),
    (lambda: compressors.top_k(fraction=1.5), ValueError, "fraction must be at most 1, got 1.5"),
    (
        lambda: compressors.random_mask(0.0),
        ValueError,
        "fraction must be a finite number above 0, got 0",
    ),
    (
        lambda: jax.jit(lambda x: compressors.random_mask(x).bits(jnp.ones(3)))(0.5),
        TypeError,
        "fraction changes how much is sent and must be static, got a traced value",
    ),
    (
        lambda: compressors.rotation_quantization(9),
        ValueError,
        "bits must be at most 8, got 9",
    ),
    (lambda: compressors.rotation_quantization(0), ValueError, "bits must be at least 1, got 0"),
    (lambda: compressors.low_rank(0), ValueError, "rank must be at least 1, got 0"),
    (
        lambda: compressors.top_k(4).compress(jnp.ones(3)),
        ValueError,
        "top_k(k=4) keeps 4 coordinates, got an update of d = 3",
    ),
    (
        lambda: compressors.random_k(4).bits(jnp.ones(3)),
        ValueError,
        "random_k(k=4) keeps 4 coordinates, got an update of d = 3",
    ),
    (
        lambda: compressors.qsgd(4).compress(jnp.ones(3)),
        ValueError,
        "qsgd(levels=4) draws random numbers: give it a key",
    ),
    (
        lambda: compressors.sign().compress(jnp.ones(3, int)),
        TypeError,
        "an update must be floating point, got a leaf of int32",
    ),
    (
        lambda: compressors.sign().bits({"w": jnp.ones((3, 0))}),
        ValueError,
        "an update needs at least 1 coordinate, got shapes [(3, 0)]",
    ),
    (
        lambda: compressors.communication(jnp.ones(3), 0),
        ValueError,
        "num_workers must be at least 1, got 0",
    ),
]


@pytest.mark.parametrize(
    ("build", "error", "message"), IMPOSSIBLE, ids=[case[2] for case in IMPOSSIBLE]
)
def test_errors(build: Callable[[], Any], error: type[Exception], message: str):
    with pytest.raises(error) as info:
        build()
    assert str(info.value) == message

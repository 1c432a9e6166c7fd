"""The models: sizes, the convolution against another implementation, shapes of every data set."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import models
from experiments.models import MODELS, _halve, _patches


@pytest.mark.parametrize(
    ("name", "shape", "classes", "num_params"),
    [
        ("mlp", (28, 28, 1), 10, 784 * 128 + 128 + 128 * 10 + 10),
        ("mlp", (8, 8, 1), 26, 64 * 128 + 128 + 128 * 26 + 26),
        ("logistic", (28, 28, 1), 10, 784 * 10 + 10),
        # Two convolutions, then 7x7x32 features.
        ("cnn", (28, 28, 1), 10, 9 * 16 + 16 + 9 * 16 * 32 + 32 + 7 * 7 * 32 * 10 + 10),
        ("cnn", (5, 3, 3), 2, 9 * 3 * 16 + 16 + 9 * 16 * 32 + 32 + 2 * 1 * 32 * 2 + 2),
    ],
)
def test_sizes_and_shapes(name, shape, classes, num_params):
    images = jnp.ones((4, *shape))
    params, apply = models.build(name, images, classes, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == num_params
    assert apply(params, images).shape == (4, classes)


def test_initial_weights_are_truncated_normals_of_variance_one_over_fan_in():
    params, _ = models.build("mlp", jnp.ones((1, 28, 28, 1)), 10, jax.random.key(0))
    weights = np.asarray(params["params"]["Dense_0"]["kernel"])
    # 100,352 numbers: the standard deviation's own relative error is about 0.2%.
    assert weights.std() == pytest.approx(784**-0.5, rel=0.01)
    # Truncated at 2 standard deviations of the normal before truncation, whose own is 0.87962566.
    assert np.abs(weights).max() <= 2 * 784**-0.5 / 0.87962566 + 1e-6


def test_patches_and_a_dense_layer_are_a_convolution():
    x = jax.random.normal(jax.random.key(0), (2, 7, 6, 3))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, 5))
    expected = jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(_patches(x) @ kernel.reshape(27, 5), expected, atol=1e-4)


def test_halving_is_max_pooling():
    x = jnp.arange(15.0).reshape(1, 3, 5, 1)
    # Rows 0-4, 5-9, 10-14: pairs of rows and columns, the odd last ones alone.
    assert _halve(x)[0, :, :, 0].tolist() == [[6, 8, 9], [11, 13, 14]]


def test_table_is_complete():
    assert set(MODELS) == {"mlp", "logistic", "cnn"}

"""The models: sizes, convolutions against flax's own, shapes of every data set."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from medjax.lab.commands.run import main
from medjax.lab.models.catalogue import MODELS, _halve
from medjax.lab.models.convolution import Conv3x3, convolve
from medjax.lab.models.resnet import Block


@pytest.mark.parametrize(
    ("name", "shape", "classes", "num_params"),
    [
        ("mlp", (28, 28, 1), 10, 784 * 128 + 128 + 128 * 10 + 10),
        ("mlp", (8, 8, 1), 26, 64 * 128 + 128 + 128 * 26 + 26),
        ("logistic", (28, 28, 1), 10, 784 * 10 + 10),
        # Two convolutions, then 7x7x32 features.
        ("cnn", (28, 28, 1), 10, 9 * 16 + 16 + 9 * 16 * 32 + 32 + 7 * 7 * 32 * 10 + 10),
        ("cnn", (5, 3, 3), 2, 9 * 3 * 16 + 16 + 9 * 16 * 32 + 32 + 2 * 1 * 32 * 2 + 2),
        # ResNet-20 has 269,722 with batch normalisation (He et al., 2016: 0.27M), two for each of
        # the 16 + 6 · (16 + 32 + 64) = 688 channels; without it, one bias for each.
        ("resnet20", (32, 32, 3), 10, 269_722 - 688),
        # Fewer of them in the first convolution, on one channel, not three.
        ("resnet20", (28, 28, 1), 10, 269_722 - 688 - 9 * 2 * 16),
        ("resnet20", (5, 3, 3), 2, 269_722 - 688 - 8 * 65),
    ],
)
def test_sizes_and_shapes(name, shape, classes, num_params):
    model, images = MODELS[name](num_classes=classes), jnp.ones((4, *shape))
    params = jax.eval_shape(model.init, jax.random.key(0), images)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == num_params
    assert jax.eval_shape(model.apply, params, images).shape == (4, classes)


@pytest.mark.slow
def test_initial_weights_are_truncated_normals_of_variance_one_over_fan_in():
    params = MODELS["mlp"](num_classes=10).init(jax.random.key(0), jnp.ones((1, 28, 28, 1)))
    weights = np.asarray(params["params"]["Dense_0"]["kernel"])
    # 100,352 numbers: the standard deviation's own relative error is about 0.2%.
    assert weights.std() == pytest.approx(784**-0.5, rel=0.01)
    # Truncated at 2 standard deviations of the normal before truncation, whose own is 0.87962566.
    assert np.abs(weights).max() <= 2 * 784**-0.5 / 0.87962566 + 1e-6


def value_and_gradients(model, params, x, axes):
    """Return the gradients by the parameters and x, and the features, vmapped from the inside."""

    def loss(params, x):
        y = model.apply(params, x)
        return jnp.sum(jnp.sin(y)), y

    function = jax.grad(loss, (0, 1), has_aux=True)
    for each in axes:
        function = jax.vmap(function, each)
    return jax.jit(function)(params, x)


def assert_is_that_of_flax(x, params, filters, stride, axes):
    flax = nn.Conv(filters, (3, 3), stride, padding=1)
    models = (Conv3x3(filters, stride), flax)
    ours, theirs = (value_and_gradients(model, params, x, axes) for model in models)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4, strict=True),
        ours,
        theirs,
    )


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


# With either stride: from fewer channels to more, to as many, to fewer, each of another size.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("channels", "filters", "size", "stride"),
    [
        (2, 5, (7, 6), 1),
        (4, 4, (8, 8), 1),
        (5, 2, (1, 2), 1),
        (3, 5, (8, 8), 2),
        (4, 4, (1, 2), 2),
        (5, 2, (7, 6), 2),
    ],
)
def test_convolution_and_its_workers_gradients_are_those_of_flax(channels, filters, size, stride):
    x = normal(3, 2, *size, channels)  # of 3 workers
    params = {"params": {"kernel": normal(3, 3, channels, filters), "bias": normal(filters)}}
    assert_is_that_of_flax(x, params, filters, stride, [(None, 0)])


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", "accelerator"])
def test_convolution_with_kernels_that_differ_is_that_of_flax(device, request):
    if device == "accelerator":
        request.getfixturevalue("accelerated")
    x = normal(2, 3, 2, 7, 6, 3)  # of 3 workers in each of 2 runs
    params = {"params": {"kernel": normal(2, 3, 3, 3, 5), "bias": normal(2, 5)}}
    assert_is_that_of_flax(x, params, 5, 2, [(None, 0), (0, 0)])


def test_convolution_keeps_no_patches_for_the_gradient():
    x, kernel = jnp.ones((2, 8, 8, 4)), jnp.ones((3, 3, 4, 4))
    _, backward = jax.vjp(convolve, x, kernel)
    assert sum(leaf.size for leaf in jax.tree.leaves(backward)) == x.size + kernel.size


@pytest.mark.slow
def test_a_block_without_its_branch_is_the_shortcut():
    x = jax.random.uniform(jax.random.key(0), (2, 5, 4, 3))
    block = Block(channels=7, stride=2)
    params = jax.tree.map(jnp.zeros_like, block.init(jax.random.key(1), x))
    y = block.apply(params, x)
    assert y.shape == (2, 3, 2, 7)
    np.testing.assert_array_equal(y[..., :3], x[:, ::2, ::2])
    np.testing.assert_array_equal(y[..., 3:], 0)


@pytest.fixture(scope="module")
def resnet():
    """Images, their labels, parameters and the apply function."""
    images = jax.random.uniform(jax.random.key(0), (4, 9, 8, 1))
    model = MODELS["resnet20"](num_classes=10)
    return images, jnp.arange(4), jax.jit(model.init)(jax.random.key(1), images), model.apply


@pytest.mark.slow
def test_resnet_is_the_same_network_of_flax_convolutions(resnet):
    images, _, params, apply = resnet

    def conv(layer, x, stride=1):
        channels = layer["kernel"].shape[-1]
        return nn.Conv(channels, (3, 3), stride, padding=1).apply({"params": layer}, x)

    def flax(parts, images):
        x = nn.relu(conv(parts["Conv3x3_0"], images))
        for k in range(9):
            block, stride = parts[f"Block_{k}"], 2 if k in (3, 6) else 1
            branch = conv(block["Conv3x3_1"], nn.relu(conv(block["Conv3x3_0"], x, stride)))
            shortcut = jnp.zeros_like(branch).at[..., : x.shape[-1]].set(x[:, ::stride, ::stride])
            x = nn.relu(shortcut + branch)
        return x.mean((1, 2)) @ parts["Dense_0"]["kernel"] + parts["Dense_0"]["bias"][None]

    expected = jax.jit(flax)(params["params"], images)
    np.testing.assert_allclose(jax.jit(apply)(params, images), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_resnets_branches_start_with_a_ninth_of_the_variance(resnet):
    _, _, params, _ = resnet
    for k, fan_in in [(1, 9 * 16), (4, 9 * 32), (8, 9 * 64)]:
        block = params["params"][f"Block_{k}"]
        for name, variance in [("Conv3x3_0", 2 / fan_in), ("Conv3x3_1", 1 / 9 / fan_in)]:
            # 2304 numbers at least: the relative error is 3% at most.
            assert np.var(block[name]["kernel"]) == pytest.approx(variance, rel=0.12)


@pytest.mark.slow
def test_padded_channels_learn_unless_the_branches_start_at_zero(resnet):
    images, labels, params, apply = resnet

    def loss(params):
        log_p = jax.nn.log_softmax(apply(params, images))
        return -log_p[jnp.arange(4), labels].mean()

    gradient = jax.jit(jax.grad(loss))

    def slopes(scale):
        """The largest slope among the channels that a shortcut passes on, and that it pads."""
        scaled = jax.tree_util.tree_map_with_path(
            lambda path, p: p * scale if "Conv3x3_1" in jax.tree_util.keystr(path) else p, params
        )
        end = gradient(scaled)["params"]["Block_3"]["Conv3x3_1"]["bias"]
        return jnp.abs(end[:16]).max(), jnp.abs(end[16:]).max()

    assert min(slopes(1.0)) > 0
    passed, padded = slopes(0.0)
    assert passed > 0
    assert padded == 0


def test_halving_is_max_pooling():
    x = jnp.arange(15.0).reshape(1, 3, 5, 1)
    # Rows 0-4, 5-9, 10-14: pairs of rows and columns, the odd last ones alone.
    assert _halve(x)[0, :, :, 0].tolist() == [[6, 8, 9], [11, 13, 14]]


def test_table_is_complete():
    assert set(MODELS) == {"mlp", "logistic", "cnn", "resnet20", "transformer"}


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_resnet_trains(tmp_path):
    settings = "--dataset digits --partition iid --workers 2 --batch-size 16 --steps 100"
    settings += " --examples-per-worker 200 --eval-every 100 --rule mean --lr 0.1"
    out = tmp_path / "run"
    assert main([*f"--model resnet20 {settings}".split(), "--out", str(out)]) == 0
    result = json.loads((out / "summary.json").read_text())
    # It starts at log 10 = 2.3; of the seeds 0 to 2 the worst end at 0.30 and 0.893.
    assert result["train_loss"] < 0.5
    assert result["test_accuracy"] > 0.8

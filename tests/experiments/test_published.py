"""The published tables: the network, the runs, and what is made of their measurements."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest
from jax import lax

from experiments import published
from experiments.published_parts import Network, _drop, krum
from medjax import rules


@pytest.mark.slow
def test_network_is_two_convolutions_and_two_linear_layers():
    images = jax.random.uniform(jax.random.key(0), (3, 28, 28, 1))
    network: Any = Network(10)
    params = network.init(jax.random.key(1), images)["params"]
    biases = [params[f"{name}_bias"][None] for name in ("first", "second", "third", "fourth")]
    assert sum(x.size for x in jax.tree.leaves(params)) == 1_199_882  # PyTorch's
    x = (images - 0.1307) / 0.3081
    for name, bias in zip(("first", "second"), biases, strict=False):
        kernel = params[name]
        bound = (9 * kernel.shape[2]) ** -0.5
        assert 0.98 * bound < np.abs(kernel).max() <= bound
        x = lax.conv_general_dilated(
            x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x += bias[None, None]
        x = jnp.maximum(x, 0) if name == "first" else x
    window = (1, 2, 2, 1)
    x = lax.reduce_window(x, -jnp.inf, lax.max, window, window, "VALID").reshape(3, -1)
    x = jnp.maximum(x @ params["third"] + biases[2], 0)
    expected = x @ params["fourth"] + biases[3]
    np.testing.assert_allclose(network.apply({"params": params}, images), expected, atol=1e-5)


@pytest.mark.slow
def test_dropout_leaves_out_channels_of_an_image_and_the_same_ones_for_every_key():
    images = jax.random.uniform(jax.random.key(0), (2, 28, 28, 1))
    x = jnp.ones((2000, 3, 3, 64))
    dropped = _drop(x, 0.25, jax.random.key(1))
    of_channels = np.asarray(dropped[:, 0, 0])
    np.testing.assert_array_equal(dropped, np.broadcast_to(of_channels[:, None, None], x.shape))
    assert set(np.unique(of_channels)) == {0, np.float32(4 / 3)}
    # Four standard deviations of the share of 128,000 channels.
    assert (of_channels == 0).mean() == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / 128_000) ** 0.5)
    network: Any = Network(10)
    params = network.init(jax.random.key(1), images)
    with_key = [network.apply(params, images, jax.random.key(k)) for k in range(2)]
    np.testing.assert_array_equal(*with_key)
    assert np.abs(with_key[0] - network.apply(params, images)).max() > 0.01


@pytest.mark.slow
def test_krum_takes_fourth_powers():
    # To its two nearest, 0 has the distances 0 and 2.5, 10 has 1.6 and 2: the sums of squares are
    # 6.25 and 6.56, of fourth powers 39 and 22.6.
    x = jnp.array([[0.0], [0.0], [2.5], [8.4], [10.0], [12.0]])
    assert (rules.krum(2)(x), krum(2)(x)) == (0, 10)


CELLS = [("none", "iid", "Krum"), ("bucketing", "sorted", "RFA")]
RUNS = [published.run(cell, seed=k) for k in range(2) for cell in CELLS]
COLUMNS = {
    "run": np.repeat(np.arange(4), 7),
    "step": np.tile(np.arange(7), 4),
    "test_accuracy": np.arange(28) / 100,
}


def test_accuracy_is_the_mean_of_the_last_measurements_and_errors_are_of_the_mean():
    found = published.accuracies(CELLS, RUNS, COLUMNS)
    assert [found[cell] for cell in CELLS] == [
        pytest.approx([4.0, 18.0]),  # the means of 2 to 6 and of 16 to 20
        pytest.approx([11.0, 25.0]),
    ]
    krum, rfa = published.rows(found)
    assert (krum["published"], rfa["published"]) == (90.36, 91.17)
    assert krum["published_error"] == pytest.approx(0.25 / 3**0.5)
    assert (krum["ours"], krum["error"]) == pytest.approx((11.0, 7.0))


def test_picture_has_means_over_the_seeds_and_what_was_published():
    _, axis = published.figure(CELLS, RUNS, COLUMNS).axes
    ours, theirs = axis.lines
    np.testing.assert_allclose(ours.get_xydata(), [(k, 14 + k) for k in range(7)])
    assert set(theirs.get_ydata()) == {91.17}


def test_the_authors_settings():
    run = published.run(("bucketing", "sorted", "CClip"), seed=2)
    assert (run.workers, run.byzantine, run.batch_size, run.lr) == (25, 5, 32, 0.01)
    assert (run.partition, run.shards_per_worker, run.byzantine_data) == ("shards", 1, "copied")
    assert (run.seed, str(run.attack)) == (2, "mimic:worker=7")
    assert str(run.rule) == "centered_clipping_from_last:tau=10,num_steps=3"
    assert str(run.mix) == "bucketing:bucket_size=2"


@pytest.mark.slow
def test_command_trains_and_shows_the_table(tmp_path, capsys):
    arguments = ["--dataset", "digits", "--mixing", "none", "--split", "iid", "--rule", "mean"]
    arguments += ["--seeds", "1", "--steps", "1"]
    assert published.main([*arguments, "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "93.20 ± 0.12" in printed
    assert "nan" not in printed  # one seed has no standard error
    table = pq.read_table(tmp_path / "out/table.parquet").to_pylist()
    assert [row["rule"] for row in table] == ["mean"]
    assert (tmp_path / "out/published.svg").exists()


def test_mistakes(tmp_path, error_of):
    error = error_of(published.main, "--dataset", "text", "--out", str(tmp_path / "out"))
    assert error.startswith("error: dataset 'text' is of text; valid: images")
    error = error_of(published.main, "--rule", "mean", "mean", "--out", str(tmp_path / "out"))
    assert error.startswith("error: argument --rule: mean is there twice")
    assert not (tmp_path / "out").exists()

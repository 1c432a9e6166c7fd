"""The transformer: its size, what it looks at, itself in NumPy; and that it learns."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest

from medjax.lab.commands.run import main
from medjax.lab.commands.sweep import main as sweep
from medjax.lab.data import load
from medjax.lab.models.transformer import Attention, Transformer

K, T = 7, 6
TEXT = ["--dataset", "text", "--model", "transformer"]


@pytest.fixture(scope="module")
def network():
    """Characters, parameters that are all random, and the apply function."""
    characters = jax.random.randint(jax.random.key(0), (3, T), 0, K)
    model = Transformer(num_classes=K)
    params = jax.jit(model.init)(jax.random.key(1), characters)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    moved = [x + 0.1 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    return characters, jax.tree.unflatten(tree, moved), jax.jit(model.apply)


def num_params(k, t, d=64, layers=2):
    """Embedding and positions; two norms, query, key, value and out, and up and down; the end."""
    layer = 2 * 2 * d + 4 * (d * d + d) + (d * 4 * d + 4 * d) + (4 * d * d + d)
    return k * d + t * d + layers * layer + 2 * d + (d * k + k)


@pytest.mark.slow
def test_number_of_parameters(network):
    _, params, _ = network
    assert sum(x.size for x in jax.tree.leaves(params)) == num_params(K, T)
    assert num_params(26, 32) == 105_498  # as its docstring says


@pytest.mark.slow
def test_no_later_character_is_seen(network):
    characters, params, apply = network
    logits = apply(params, characters)
    for t in range(1, T):
        changed = apply(params, characters.at[:, t].set((characters[:, t] + 1) % K))
        np.testing.assert_array_equal(changed[:, :t], logits[:, :t])
        # From there on all are others: each sees itself, and those before.
        assert (np.abs(changed[:, t:] - logits[:, t:]).max(axis=2) > 1e-4).all()


def reference(p, characters, heads=4):
    """One window at a time, one head at a time, one place at a time, in float64."""

    def linear(layer, x):
        return x @ layer["kernel"] + layer.get("bias", 0)

    def norm(layer, x):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return x * layer["scale"] + layer["bias"]

    def attention(layer, x):
        d = x.shape[-1]
        q, k, v = np.split(linear(layer["Dense_0"], x), 3, axis=-1)
        out = np.zeros_like(x)
        for head in np.split(np.arange(d), heads):
            for t in range(len(x)):
                scores = np.exp(k[: t + 1, head] @ q[t, head] / np.sqrt(d / heads))
                out[t, head] = scores / scores.sum() @ v[: t + 1, head]
        return linear(layer["Dense_1"], out)

    def window(row):
        x = p["Dense_0"]["kernel"][row] + p["positions"]
        for i in range(2):
            x = x + attention(p[f"Attention_{i}"], norm(p[f"LayerNorm_{2 * i}"], x))
            hidden = linear(p[f"Dense_{2 * i + 1}"], norm(p[f"LayerNorm_{2 * i + 1}"], x))
            x = x + linear(p[f"Dense_{2 * i + 2}"], np.maximum(hidden, 0))
        return linear(p["Dense_5"], norm(p["LayerNorm_4"], x))

    return np.array([window(row) for row in characters])


@pytest.mark.slow
def test_is_the_network_of_its_formula(network):
    characters, params, apply = network
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params["params"])
    expected = reference(p, np.asarray(characters))
    np.testing.assert_allclose(apply(params, characters), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_equal_scores_average_the_past():
    # Without queries and keys all scores are 0; with the identity for the values and at the end,
    # place t gives the mean of places 0 to t.
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 4)), jnp.float32)
    joint = jnp.concatenate([jnp.zeros((4, 8)), jnp.eye(4)], axis=1)
    params = {
        "Dense_0": {"kernel": joint, "bias": jnp.zeros(12)},
        "Dense_1": {"kernel": jnp.eye(4), "bias": jnp.zeros(4)},
    }
    expected = np.cumsum(x, axis=1) / np.arange(1.0, 6.0, dtype=np.float32)[None, :, None]
    np.testing.assert_allclose(Attention(2).apply({"params": params}, x), expected, atol=1e-6)


def unigram_entropy(labels):
    """-Σ p log p of the characters' shares p: what is lost by who knows only those."""
    shares = np.bincount(labels.ravel()) / labels.size
    return -(shares[shares > 0] * np.log(shares[shares > 0])).sum()


@pytest.mark.slow
def test_learns_more_than_how_often_each_character_occurs(tmp_path, capsys):
    settings = "--rule mean --server adam --lr 0.005 --batch-size 2 --steps 30 --eval-every 30"
    small = "--examples-per-worker 32 --eval-examples 4 --seed 1"
    out = tmp_path / "run"
    assert main([*TEXT, *settings.split(), *small.split(), "--out", str(out)]) == 0
    summary = json.loads((out / "summary.json").read_text())
    table = pq.read_table(out / "metrics.parquet").to_pydict()
    entropy = unigram_entropy(load("text").test_y)
    assert table["test_loss"][0] > entropy
    assert summary["test_loss"] < 0.85 * entropy
    assert summary["num_params"] == 105_498
    sizes = json.loads((out / "config.json").read_text())["data"]
    assert sizes["input_shape"] == [32]
    assert (sizes["inputs"], sizes["num_classes"]) == ("characters", 26)
    assert (out / "curves.png").read_bytes()[:4] == b"\x89PNG"
    assert "(1600 training, 400 test, 26 different characters), by_label" in capsys.readouterr().out


# Of a model that compiles in no time: a sweep maps over that of others as over any.
BIGRAM = """
from flax import linen as nn

class Bigram(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, characters):
        return nn.Embed(self.num_classes, self.num_classes)(characters)
"""


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_text_is_swept_over_as_images(tmp_path):
    (tmp_path / "mine.py").write_text(BIGRAM)
    settings = "--rule sign --lr 0.001 0.01 --batch-size 2 --steps 1 --eval-every 1 --workers 2"
    text = ("--dataset", "text", "--model", f"{tmp_path / 'mine.py'}:Bigram")
    out = tmp_path / "sweep"
    assert sweep([*text, *settings.split(), "--partition", "dirichlet", "--out", str(out)]) == 0
    found = pq.read_table(out / "results.parquet").to_pydict()
    assert len(found["test_loss"]) == 4
    assert np.isfinite(found["test_loss"]).all()

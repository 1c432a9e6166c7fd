"""CONTRIBUTING's examples do what it says: a line in its table each, and all commands have them."""

import doctest
import json
import re
import shlex
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import algorithms
from experiments import list as listing
from experiments.run import main
from experiments.sweep.__main__ import main as sweep
from medjax import attacks, compressors, mixing, rules

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
(COMMAND,) = re.findall(r"^python -m experiments\.run (.*)$", TEXT, re.MULTILINE)
QUICK = ["--dataset", "digits", "--model", "logistic", "--partition", "iid"]


@pytest.fixture(scope="module")
def examples():
    """What the snippets define, one after the other."""
    names = {"__name__": "examples"}
    for snippet in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL):
        exec(snippet, names)
    return names


@pytest.fixture
def added(examples, monkeypatch):
    """A line in each table; that of the command line has the noisy rule from the same."""
    for table, kind in (
        (rules.RULES, "medoid"),
        (algorithms.RULE_TABLE, "medoid"),
        (mixing.MIXINGS, "normalize"),
        (attacks.ATTACKS, "silent"),
        (compressors.COMPRESSORS, "half"),
    ):
        monkeypatch.setitem(table, kind, examples[kind])
    monkeypatch.setitem(algorithms.RULE_TABLE, "noisy_medoid", examples["medoid"])


def medoid(x):
    apart = np.linalg.norm(x[:, None] - x, axis=2)
    return x[apart.sum(axis=1).argmin()]


def test_rule_is_what_it_says(examples):
    rule = examples["medoid"]()
    assert isinstance(rule, rules.Rule)
    jitted = jax.jit(rule)
    for seed in range(10):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(7, 5)).astype(np.float32)
        np.testing.assert_array_equal(jitted(x), medoid(x))
        order = rng.permutation(7)
        np.testing.assert_array_equal(jitted(x[order]), medoid(x))
        honest, x[order[:3]] = np.delete(x, order[:3], axis=0), [[np.nan], [np.inf], [-np.inf]]
        np.testing.assert_array_equal(jitted(x), medoid(honest))
    many = rng.normal(size=(4, 7, 5)).astype(np.float32)
    np.testing.assert_array_equal(jax.jit(jax.vmap(rule))(many), [medoid(x) for x in many])
    tree = {"a": many[0, :, :1], "b": many[0, :, 1:].reshape(7, 2, 2)}
    out = jax.jit(rule)(tree)
    np.testing.assert_array_equal(np.append(out["a"], out["b"]), medoid(many[0]))


def test_others_are_what_they_say(examples):
    x = jnp.array([[3.0, 4.0], [0.0, 0.0], [6.0, 8.0]])
    np.testing.assert_array_equal(examples["silent"]()(x, 2), [[3, 4], [0, 0], [0, 0]])
    mixed = mixing.premixed(rules.mean(), examples["normalize"]())(x)
    np.testing.assert_allclose(mixed, [2 * 0.6 / 3, 2 * 0.8 / 3], rtol=1e-6)
    compressor = examples["half"]()
    # 11 bits of mantissa, of which the first isn't written.
    np.testing.assert_array_equal(compressor.compress(jnp.array([1 + 2**-12, 3.0])), [1, 3])
    assert compressor.bits(x) == 16 * 6


def test_doctests(examples):
    finder = doctest.DocTestFinder()
    (test,) = (t for t in finder.find(examples["medoid"], "medoid", globs=examples) if t.examples)
    assert doctest.DocTestRunner(verbose=False).run(test) == (0, 1)


def test_command(added, tmp_path):
    out = tmp_path / "run"
    arguments = [*shlex.split(COMMAND), *QUICK, "--steps", "5", "--out", str(out)]
    assert main(arguments) == 0
    summary = json.loads((out / "summary.json").read_text())
    # 20 workers send 650 numbers of 16 bits, and get them in full.
    assert summary["bits_up_per_step"] == 20 * 650 * 16
    assert summary["bits_down_per_step"] == 20 * 650 * 32
    assert summary["train_loss"] < 2.4
    config = json.loads((out / "config.json").read_text())["config"]
    assert (config["rule"], config["byzantine"]) == ("medoid", 2)


def test_sweep_of_the_noisy_rule(added, tmp_path):
    grid = ["--rule", "noisy_medoid", "--b", "0", "0.01", "--steps", "2"]
    out = tmp_path / "sweep"
    assert sweep([*QUICK, *grid, "--out", str(out)]) == 0
    assert json.loads((out / "config.json").read_text())["runs"] == 2


def test_attack_on_the_rule(examples):
    (attack,) = algorithms.build_attacks("optimal_alie", examples["medoid"](), {}, 2, 10)
    assert attack.name == "optimal_alie(medoid)"


def test_list(added):
    found = {
        name: listing.row(kind, name) for kind in listing.KINDS.values() for name in kind.table
    }
    assert found["medoid"][1:] == (
        *("Geometric", "The vector nearest to all, x_k with k = argmin_i Σ_j ‖x_i - x_j‖."),
        *("", "", "Kaufman and Rousseeuw, 1987"),
    )
    for name in ("silent", "normalize", "half"):
        assert found[name][-1]


def test_places_exist():
    for place in re.findall(r"`((?:medjax|tests|experiments)/[\w/.]*)`", TEXT):
        assert (ROOT / place).exists(), place
    for name in ("KNOWN", "SETTINGS", "test_every_rule_has_a_reference"):
        assert name in TEXT

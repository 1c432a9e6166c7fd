"""The files of docs/write-your-own: a line in its table each, and all commands have them."""

import doctest
import json
import re
import shlex
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import medjax
from medjax import attacks, compressors, mixing, noise, rules
from medjax.lab import console
from medjax.lab.settings.protocol import ATTACK_TABLE
from medjax.lab.settings.rules import RULE_TABLE

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs/how-to/contributing.md").read_text(encoding="utf-8")
PAGES = {
    "medoid": "rule",
    "silent": "attack",
    "normalize": "mixing",
    "half": "compressor",
    "irwin_hall": "noise",
}
(COMMAND,) = re.findall(r"^medjax run (.*)$", TEXT, re.MULTILINE)
NEW_FILES = {
    "medoid": "rules",
    "silent": "attacks",
    "normalize": "mixing",
    "half": "compressors",
    "irwin_hall": "noise",
}
QUICK = ["--dataset", "digits", "--model", "logistic", "--partition", "iid"]


def page(name: str) -> str:
    return (ROOT / f"docs/write-your-own/{PAGES[name]}.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def examples():
    """The functions of the pages, each from the block that is to be a file."""
    found = {}
    for name in PAGES:
        blocks = re.findall(r"```python\n(.*?)```", page(name), re.DOTALL)
        (file,) = (block for block in blocks if f"def {name}() ->" in block)
        names = {"__name__": "examples"}
        exec(file, names)
        found[name] = names[name]
    return found


@pytest.fixture
def added(examples, monkeypatch):
    """Add a line to each table."""
    for table, kind in (
        (rules.RULES, "medoid"),
        (RULE_TABLE, "medoid"),
        (mixing.MIXINGS, "normalize"),
        (attacks.ATTACKS, "silent"),
        (ATTACK_TABLE, "silent"),
        (compressors.COMPRESSORS, "half"),
        (noise.NOISES, "irwin_hall"),
    ):
        monkeypatch.setitem(table, kind, examples[kind])


def medoid(x):
    apart = np.linalg.norm(x[:, None] - x, axis=2)
    return x[apart.sum(axis=1).argmin()]


@pytest.mark.slow
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


@pytest.mark.slow
def test_others_are_what_they_say(examples):
    x = jnp.array([[3.0, 4.0], [0.0, 0.0], [6.0, 8.0]])
    np.testing.assert_array_equal(examples["silent"]()(x, 2), [[3, 4], [0, 0], [0, 0]])
    mixed = mixing.premixed(rules.mean(), examples["normalize"]())(x)
    np.testing.assert_allclose(mixed, [2 * 0.6 / 3, 2 * 0.8 / 3], rtol=1e-6)
    compressor = examples["half"]()
    # 11 bits of mantissa, of which the first isn't written.
    np.testing.assert_array_equal(compressor.compress(jnp.array([1 + 2**-12, 3.0])), [1, 3])
    assert compressor.bits(x) == 16 * 6


@pytest.mark.slow
def test_noise_is_what_it_says(examples):
    irwin_hall = examples["irwin_hall"]()
    x = np.float32([-np.inf, -4, -3, -2, -1, -0.5, 0, 1, 2, 3, np.inf])
    expected = [0, 0, 0, 1 / 48, 1 / 6, 0.5 - 4.375 / 24, 0.5, 5 / 6, 47 / 48, 1, 1]
    np.testing.assert_allclose(irwin_hall.cdf(x), expected, atol=1e-7)
    np.testing.assert_allclose(irwin_hall.mean_sign(x), 2 * np.array(expected) - 1, atol=2e-7)
    assert irwin_hall.mean_sign(1e-12) == pytest.approx(0.75e-12)
    assert np.isnan(irwin_hall.cdf(np.nan))
    sample, key = irwin_hall.sample, jax.random.key(0)
    draws = np.sort(sample(key, (100_000,)))
    # The variance of ξ² is E ξ⁴ - 1 = 1.6; 5 standard deviations.
    assert (draws**2).mean() == pytest.approx(1, abs=5 * (1.6 / 100_000) ** 0.5)
    steps = np.arange(100_000) / 100_000
    assert abs(irwin_hall.cdf(draws) - steps).max() < 2.5 / 100_000**0.5
    np.testing.assert_array_equal(sample(key, (2, 3)).ravel(), sample(key, (9,))[:6])
    half = sample(key, (6,), jnp.bfloat16)
    np.testing.assert_array_equal(half, sample(key, (6,)).astype(jnp.bfloat16))


@pytest.mark.slow
def test_doctests(examples):
    finder, names = doctest.DocTestFinder(), {**examples, "jnp": jnp}
    (test,) = (t for t in finder.find(examples["medoid"], "medoid", globs=names) if t.examples)
    assert doctest.DocTestRunner(verbose=False).run(test) == (0, 1)


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_command(added, tmp_path):
    out = tmp_path / "run"
    arguments = [*shlex.split(COMMAND), *QUICK, "--steps", "5", "--out", str(out)]
    assert console.main(["run", *arguments]) == 0
    summary = json.loads((out / "summary.json").read_text())
    # 20 workers send 650 numbers of 16 bits, and get them in full.
    assert summary["bits_up_per_step"] == 20 * 650 * 16
    assert summary["bits_down_per_step"] == 20 * 650 * 32
    assert summary["train_loss"] < 2.4
    config = json.loads((out / "config.json").read_text())["config"]
    assert (config["rule"], config["noise"]) == ("noisy_medoid", "irwin_hall")
    assert config["byzantine"] == 2


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_sweep_of_the_noisy_rule(added, tmp_path):
    grid = ["--rule", "noisy_medoid", "--b", "0", "0.01", "--steps", "2"]
    out = tmp_path / "sweep"
    assert console.main(["sweep", *QUICK, *grid, "--out", str(out)]) == 0
    assert json.loads((out / "config.json").read_text())["runs"] == 2


def test_attack_on_the_rule(examples):
    attack = attacks.optimal_alie(rule=examples["medoid"]())
    assert attack.name == "optimal_alie(medoid)"


def test_list(added, capsys):
    assert console.main(["list", "medoid"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "The vector nearest to all, x_k with k = argmin_i Σ_j ‖x_i - x_j‖." in shown
    assert "Kaufman and Rousseeuw, 1987" in shown


def test_places_exist():
    new = {f"medjax/{folder}/_{name}.py" for name, folder in NEW_FILES.items()}
    for text in (TEXT, *map(page, PAGES)):
        for place in re.findall(r"`((?:medjax|tests|experiments)/[\w/.]*)`", text):
            assert place in new or (ROOT / place).exists(), place


@pytest.mark.parametrize("name", PAGES)
def test_pages_say_where_it_goes(name):
    text, folder = page(name), NEW_FILES[name]
    assert f"`medjax/{folder}/_{name}.py`" in text
    assert f'```text\n    "{name}": {name},\n```' in text
    (table,) = re.findall(r"to\s+the table `(\w+)`", text)
    assert isinstance(vars(getattr(medjax, folder))[table], dict)

"""Functions of one's own on the command line: found, used, recorded, and refused in one line."""

import hashlib
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest

from medjax.lab.commands import report
from medjax.lab.commands.run import main
from medjax.lab.commands.sweep import main as sweep
from medjax.lab.data import load
from medjax.lab.settings.config import configure
from medjax.lab.task.setup import prepare

pytestmark = pytest.mark.usefixtures("no_pictures")

QUICK = ["--dataset", "digits", "--model", "logistic", "--steps", "2", "--eval-every", "2"]
MINE = """
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from medjax import lab, mean_sgd, rules
from medjax.workers import Algorithm, Procedure


def average(vectors):
    return vectors.mean(axis=0)


def scaled_mean(scale: float = 1.0):
    return lambda vectors: scale * vectors.mean(axis=0)


def family():
    return rules.CoordinateWise("mine", lambda rows: rows[0])


def told(num_byzantine, num_workers):
    assert (num_byzantine, num_workers) == (2, 10)
    return lambda vectors: vectors.mean(axis=0)


def flip(honest, byzantine, key):
    return -honest.mean(axis=0)


def louder(num_byzantine):
    return lambda honest, byzantine, key: -num_byzantine * honest.mean(axis=0)


def identity(vectors, key):
    return jnp.eye(len(vectors), dtype=vectors.dtype)


def whole(vector, key):
    return vector, 32 * vector.size


def coin(key, shape, dtype):
    return jax.random.rademacher(key, shape, dtype)


def unchanged(images, key):
    return images


def descent(learning_rate):
    return optax.sgd(learning_rate)


class Small(nn.Module):
    num_classes: int
    hidden: int = 3

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.num_classes)(nn.Dense(self.hidden)(x.reshape(len(x), -1)))


class Dropping(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, x, key=None):
        x = nn.Dense(self.num_classes)(x.reshape(len(x), -1))
        return nn.Dropout(0.5, deterministic=key is None)(x, rng=key)


def blobs(rows: int = 40):
    y = np.arange(rows, dtype=np.int32) % 4
    x = np.eye(4, dtype=np.float32)[y].reshape(rows, 2, 2, 1)
    return lab.Dataset("blobs", x, y, x[:8], y[:8], 4)


def missing(vectors):
    return jnp.meen(vectors, axis=0)


def adding(vectors):
    return vectors[0] + None


class Odd(Exception):
    def __call__(self, vectors):
        raise self


class Three(Small):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(x.reshape(len(x), -1)) if self.hidden else self.hiden


def needs(radius):
    return lambda vectors: radius * vectors.mean(axis=0)


def lost():
    raise KeyError("tau")


def stumbling(lr):
    def round(oracle, broadcast, state):
        return oracle.params["nothing"]

    return Algorithm(Procedure(round), mean_sgd(lr))


def three():
    return 3


number = 3
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A file of one's own in the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    return tmp_path / "mine.py"


def losses(*arguments):
    out = f"out{len(list(Path().glob('out*')))}"
    assert main([*QUICK, *arguments, "--out", out]) == 0
    return pq.read_table(f"{out}/metrics.parquet")["train_loss"].to_pylist()


# Parts beside the built ones, or the settings, that do the same.
MEAN = "--rule mean --lr 0.1"
SAME = [
    (
        "--rule ./mine.py:average --server ./mine.py:descent --mix ./mine.py:identity "
        "--compress ./mine.py:whole --augment ./mine.py:unchanged --lr 0.1",
        MEAN,
    ),
    ("--rule mine:scaled_mean --server optax:sgd --lr 0.1", MEAN),
    ("--rule ./mine.py:scaled_mean:scale=0.5 --lr 0.2", MEAN),
    (
        "--rule ./mine.py:told --attack ./mine.py:flip --byzantine 2 --lr 0.1",
        "--rule mean --attack ipm:tau=1 --byzantine 2 --lr 0.1",
    ),
    (
        "--rule ./mine.py:told --declared-byzantine 2 --attack ./mine.py:louder --byzantine 3 "
        "--lr 0.1",
        "--rule mean --attack ipm:tau=3 --byzantine 3 --lr 0.1",
    ),
]


@pytest.mark.slow
@pytest.mark.usefixtures("mine")
def test_own_parts_do_what_the_built_ones_do():
    built = {same: losses(*same.split()) for same in dict.fromkeys(same for _, same in SAME)}
    for own, same in SAME:
        assert losses(*own.split()) == pytest.approx(built[same], rel=1e-5), own


@pytest.mark.usefixtures("mine")
def test_model_of_ones_own_draws_in_training_only():
    task = prepare(configure(rule="mean", model="./mine.py:Dropping"), load("digits"))
    params = {"params": {"Dense_0": {"kernel": jnp.ones((64, 10)), "bias": jnp.zeros(10)}}}
    batch = jnp.ones((5, 8, 8, 1)), jnp.zeros(5, jnp.int32)
    objective: Any = task.objective
    measured, _ = objective(params, batch)
    np.testing.assert_allclose(measured, np.log(10), rtol=1e-5)  # all logits are 64
    first, second = (objective(params, batch, key=jax.random.key(k))[0] for k in range(2))
    assert not np.allclose(first, second)


@pytest.mark.slow
@pytest.mark.usefixtures("mine")
def test_noise_model_and_data_of_ones_own():
    arguments = ["--rule", "noisy_median", "--b", "0.1", "--noise", "./mine.py:coin"]
    data = ["--dataset", "./mine.py:blobs:rows=80", "--model", "./mine.py:Small:hidden=5"]
    assert main([*arguments, *data, "--steps", "1", "--workers", "4", "--out", "out"]) == 0
    record = json.loads(Path("out/config.json").read_text())
    assert record["data"]["train_examples"] == 80
    # (4 + 1) · 5 of the first layer and (5 + 1) · 4 of the second.
    assert record["num_params"] == 25 + 24
    assert record["config"]["noise"] == "./mine.py:coin"
    assert set(record["own_code"]) == {"./mine.py:coin", "./mine.py:blobs", "./mine.py:Small"}
    digest = hashlib.sha256(Path("mine.py").read_bytes()).hexdigest()
    assert set(record["own_code"].values()) == {digest}
    assert report.main(["out", "--out", "page.html"]) == 0
    assert digest in Path("page.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_changed_file_is_another_sweep_and_no_resumed_run(mine, error_of):
    axes = ["--rule", "./mine.py:family", "noisy_./mine.py:family", "--b", "0"]
    assert sweep([*QUICK, *axes, "--out", "sweep"]) == 0
    table = pq.read_table("sweep/results.parquet")
    assert set(table["rule"].to_pylist()) == {"./mine.py:family", "noisy_./mine.py:family"}
    assert (
        main([*QUICK, "--rule", "./mine.py:family", "--checkpoint-every", "1", "--out", "a"]) == 0
    )
    mine.write_text(MINE.replace("rows[0]", "rows[1]"), encoding="utf-8")
    assert "already holds other results" in error_of(sweep, *QUICK, *axes, "--out", "sweep")
    message = "./mine.py:family isn't what it was when 'a' was begun"
    assert message in error_of(main, "--resume", "a")


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--rule ./nime.py:average", "'./nime.py' can't be read: No such file or directory"),
        ("--rule ./mine.py:averag", "'./mine.py' has no 'averag': did you mean 'average'? valid:"),
        ("--rule ./mine.py", "'./mine.py' is a file: name a function in it, as in ./mine.py:three"),
        ("--algorithm ./mine.py:averag", "valid: average, scaled_mean, family, told"),
        ("--rule ./mine.py:number", "'number' in './mine.py' is no function but 3"),
        ("--rule nomodule:average", "unknown rule 'nomodule': valid: mean, median, sign"),
        ("--rule ./mine.py:scaled_mean:scales=1", "takes scale, got 'scales'"),
        ("--rule ./mine.py:three", "--rule ./mine.py:three: "),
        ("--rule time:time", "--rule time:time: rule must be built"),  # of a module without a file
        ("--rule ./broken.py:f", "'./broken.py' can't be imported: NameError: name 'jnp' is not"),
        ("--rule ./torn.py:f", "'./torn.py' can't be imported: SyntaxError: "),
        (
            "--rule ./mine.py:missing",
            "./mine.py:missing: AttributeError: module 'jax.numpy'",
        ),
        ("--rule ./mine.py:adding", "./mine.py:adding: TypeError: unsupported operand type(s)"),
        ("--rule ./mine.py:Odd", "./mine.py:Odd: Odd: (mine.py, line "),
        ("--rule mean --model ./mine.py:Three", "makes an array of shape (2, 3) and dtype"),
        ("--rule mean --model ./mine.py:Three:hidden=0", "./mine.py:Three: AttributeError"),
        ("--rule ./mine.py:needs", "is it a factory that lacks a setting?"),
        ("--rule ./mine.py:lost", "./mine.py:lost: KeyError: 'tau' (mine.py, line "),
        ("--server ./mine.py:three --rule mean", "makes int; valid: a factory of an optax"),
        ("--model ./mine.py:three", "makes int; valid: a flax.linen module"),
        ("--dataset ./mine.py:three", "dataset './mine.py:three' is a int; valid: a Dataset"),
    ],
)
def test_mistake_gets_one_clear_line(arguments, message, error_of, mine):
    (mine.parent / "broken.py").write_text("\n\nx = jnp.zeros(3)\n")
    (mine.parent / "torn.py").write_text("def f(:\n")
    data = [] if "--dataset" in arguments else ["--dataset", "digits"]
    assert message in error_of(main, *data, *arguments.split())


def test_folder_that_the_locale_can_not_name(mine, monkeypatch, error_of):
    folder = mine.parent / "w\udcffrk"  # as Python has a byte that isn't text in the locale
    folder.mkdir()
    shutil.copy(mine, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "ascii")
    message = "in a folder whose name isn't text in this locale; PYTHONUTF8=1 makes Python read it"
    assert message in error_of(main, *QUICK, "--rule", "./mine.py:average")
    assert "PYTHONUTF8=1" in error_of(main, *QUICK, "--out", "w\udcffrk")


@pytest.mark.usefixtures("mine")
def test_step_size_of_ones_own_algorithm_is_no_votes():
    assert configure(algorithm="./mine.py:stumbling").lr == 0.1
    assert configure(algorithm="signum").lr == 0.003


@pytest.mark.slow
@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize("command", [main, sweep])
def test_mistake_in_an_algorithm_gets_one_clear_line(command, capsys):
    with pytest.raises(SystemExit, match="2"):
        command([*QUICK, "--algorithm", "./mine.py:stumbling", "--out", "out"])
    message = "error: ./mine.py:stumbling: KeyError: 'nothing' (mine.py, line 60) (see --help)\n"
    assert re.sub(r"line \d+", "line 60", capsys.readouterr().err) == message
    assert command == sweep or not Path("out").exists()

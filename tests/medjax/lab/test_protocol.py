"""The protocol's options by command: attacks, compression, mixing, servers, bits sent."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest

from medjax.attacks import ATTACKS, add_trigger
from medjax.compressors import COMPRESSORS
from medjax.lab.commands.run import main
from medjax.lab.data import load
from medjax.lab.settings import cli, parts
from medjax.lab.settings.config import configure
from medjax.lab.sweeps import grid
from medjax.lab.sweeps.inputs import Inputs
from medjax.lab.sweeps.plan import make_chunks, make_groups
from medjax.lab.task import communication, program, setup, workers
from medjax.lab.task.interpret import hyperparameters
from medjax.mixing import MIXINGS
from medjax.servers import SERVERS

pytestmark = pytest.mark.usefixtures("no_pictures")

QUICK = ["--dataset", "digits", "--model", "logistic"]
EIGHT = ["--workers", "8", "--classes-per-worker", "2", "--steps", "3", "--eval-every", "2"]

# Every name once, several in a command, as each is traced; test_rules_train.py has every rule. With
# each, the bits that a worker sends: the model has d = 650 parameters, a matrix (64, 10) and a
# vector.
FULL = 32 * 650
COMMANDS = {
    "--rule mean --weights examples --local-steps 2 --attack backdoor:target=3+model_replacement "
    "--participation 6 --compress qsgd:levels=4 --server momentum": 32 + 650 * (1 + 3),
    "--rule median --attack sign_flip --compress sign:zero=random --error-feedback yes "
    "--server adam:b1=0.5": 650,
    "--rule sign --attack nonfinite:value=-inf --worker-momentum 0.9 --mix none "
    "--server nesterov --momentum 0.5": 2 * 650,
    "--rule trimmed_mean --mix nnm --attack alie --compress scaled_sign --server yogi": 650 + 32,
    "--rule geometric_median --mix bucketing --attack ipm:tau=0.5 --compress stochastic_sign "
    "--server adagrad": 650 + 32,
    "--rule phocas --attack fang --compress terngrad --server amsgrad": 8 * 130 + 2 * 32,
    "--rule krum --mix arc --attack optimal_alie --compress top_k:k=13 --error-feedback yes "
    "--local-steps 2 --local-lr 0.01": 13 * (32 + 10),
    "--rule multi_krum:num_selected=3 --mix clip:max_norm=1+nnm --attack optimal_ipm:num_rounds=1 "
    "--compress random_k:fraction=0.1 --server sgd": 32 * 65 + 32,
    "--rule noisy_mean --b 0.1 --attack min_max:direction=unit --compress "
    "random_mask:fraction=0.1 --worker-momentum undamped:0.5 --server lion": 32 * (64 + 1) + 32,
    "--rule centered_clipping_from_last:tau=1 --attack min_sum --mix bucketing --participation 6 "
    "--compress rotation_quantization:bits=2 --server muon": 2 * 1024 + 96,
    # B is (2, 10); the vector is sent as it is.
    "--rule mean --attack mimic:worker=2 --compress low_rank:rank=2 --error-feedback yes": (
        32 * 2 * 10 + 32 * 10 + 32
    ),
    "--rule caf --attack label_flip+gaussian:scale=10 --participation 6 "
    "--worker-momentum 0.9": FULL,
    "--rule clipped_clustering --attack optimal_turn:num_points=4,num_rounds=1": FULL,
    "--rule fltrust:examples=20 --attack balanced_flip --mix nnm": FULL,
}


def run(out, *arguments):
    assert main([*QUICK, *arguments, "--out", str(out)]) == 0
    return json.loads((out / "summary.json").read_text())


def columns_of(out):
    return pq.read_table(out / "metrics.parquet").to_pydict()


# Those that run: averaged, voted on, and chosen. The others are traced.
RUN = ("--rule mean --weights", "--rule sign", "--rule krum")


def bits_of(command):
    """All bits of a step, up and down."""
    asked = 6 if "--participation" in command else 8
    return asked * COMMANDS[command], asked * (2 * 650 if "--rule sign" in command else FULL)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.split()[1])
def test_every_name_is_taken_in_a_sweep(command):
    parser = cli.Parser("sweep", "")
    grid.add_grid_options(parser)
    several = ("--seeds", "2", "--lr", "0.1", "0.2")
    _, axes = grid.read_axes(parser, [*QUICK, *EIGHT, *command.split(), *several])
    (group,) = make_groups(grid.expand(axes), {("digits", None): load("digits")})
    assert group.runs.shape == (2, 2)
    (chunk,) = make_chunks(group, 4)
    values, data, *_ = Inputs().of(group, chunk)
    runs = program.many_runs(group.task)
    state = jax.eval_shape(runs.init, values)
    after = jax.eval_shape(runs.advance, state, values, data, jnp.int32(1))
    assert jax.tree.map(lambda x: x.shape, after) == jax.tree.map(lambda x: x.shape, state)
    each = hyperparameters(group.settings[0], group.task.num_params)
    assert communication.per_step(group.task, each.b) == bits_of(command)


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [command for command in COMMANDS if command.startswith(RUN)], ids=RUN
)
def test_a_run(command, tmp_path, capsys):
    summary = run(tmp_path / "run", *EIGHT, *command.split())
    up, down = bits_of(command)
    assert (summary["bits_up_per_step"], summary["bits_down_per_step"]) == (up, down)
    columns = columns_of(tmp_path / "run")
    assert columns["step"] == [0, 2, 3]
    assert columns["bits_up"] == [0, 2 * up, 3 * up]
    assert columns["bits_down"] == [0, 2 * down, 3 * down]
    assert np.isfinite(columns["train_loss"]).all()
    assert columns["train_loss"][0] != columns["train_loss"][-1]
    (plan,) = (x for x in capsys.readouterr().out.splitlines() if x.startswith("protocol "))
    for flag, value in itertools.pairwise(command.split()):
        if flag in ("--attack", "--compress", "--mix", "--server", "--worker-momentum"):
            assert value in plan or value in ("none", "sgd")


@pytest.mark.parametrize(
    ("arguments", "up", "down"),
    # For a worker and a coordinate: two symbols are one bit, three are two.
    [
        ({"rule": "sign"}, 2, 2),
        ({"rule": "sign", "tie": "random"}, 2, 1),
        ({"rule": "sign", "zero": "plus"}, 1, 1),
        ({"rule": "sign", "zero": "random", "workers": 8}, 1, 2),
        ({"rule": "sign", "zero": "random", "workers": 8, "participation": 3}, 1, 1),
        ({"rule": "noisy_sign", "b": 0.1}, 1, 1),
        ({"rule": "noisy_sign", "b": 0.0}, 2, 2),
        ({"rule": "noisy_sign", "b": "theory", "workers": 8}, 1, 2),
        ({"rule": "noisy_sign", "b": "adaptive:0.1"}, 2, 2),
        # The noise is drawn, and g + bξ may be 0.
        ({"rule": "noisy_sign", "b": 0.1, "attack": "ipm"}, 2, 2),
        ({"rule": "noisy_sign", "b": 0.1, "mix": "nnm"}, 32, 2),
        ({"rule": "noisy_mean", "b": 0.1}, 32, 32),
    ],
)
def test_bits_of_votes(arguments, up, down):
    settings = {"dataset": "digits", "model": "logistic", "workers": 7} | arguments
    config = configure(**settings, classes_per_worker=2)
    task = setup.prepare(config, load("digits"))
    n = config.participation or config.workers
    b = hyperparameters(config, task.num_params).b
    assert communication.per_step(task, b) == (n * 650 * up, n * 650 * down)


def test_bits_of_several_runs():
    config = configure(dataset="digits", model="logistic", rule="noisy_sign", workers=7)
    task = setup.prepare(config, load("digits"))
    bits = communication.per_step(task, np.float32([[0, 0.1]]))
    np.testing.assert_array_equal(bits, 7 * 650 * np.array([[[2, 1]], [[2, 1]]]))


def test_no_name_is_missing():
    words = [command.split() for command in COMMANDS]

    def names(flag):
        given = [dict(itertools.pairwise(line)).get(flag, "none") for line in words]
        return {part.partition(":")[0] for text in given for part in parts.links(text)} - {"none"}

    assert names("--attack") == set(ATTACKS)
    assert names("--compress") == set(COMPRESSORS)
    assert names("--mix") == set(MIXINGS)
    assert names("--server") == set(SERVERS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "loss", "norm"),
    # What these gave at commit 89054a5, before there were any of the options.
    [
        ("--rule mean", 1.970328688621521, 0.40199512243270874),
        pytest.param(
            "--rule noisy_trimmed_mean --partition dirichlet --attack alie --byzantine 0 "
            "--declared-byzantine 1",
            2.2574450969696045,
            0.586530327796936,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_without_them_nothing_has_changed(arguments, loss, norm, tmp_path):
    summary = run(tmp_path / "run", *arguments.split(), "--steps", "20")
    assert summary["train_loss"] == pytest.approx(loss, rel=1e-4)
    assert summary["grad_norm"] == pytest.approx(norm, rel=1e-3)


@pytest.mark.slow
def test_byzantine_workers_are_not_measured(tmp_path):
    settings = {"dataset": "digits", "model": "logistic", "rule": "median", "workers": 10}
    config = configure(**settings, attack="label_flip", byzantine=3, steps=0, seed=4)
    built = workers.build(config)
    state = jax.jit(program.one_run(built.task).init)(built.values)
    weights = jax.tree.map(np.asarray, state.params["params"]["Dense_0"])
    losses = []
    for k in range(10):
        size = built.workers.sizes[k]
        x, y = (np.asarray(part[k, :size], np.float64) for part in built.workers.examples)
        logits = x.reshape(size, 64) @ weights["kernel"] + weights["bias"]
        right = logits[np.arange(size), y.astype(int)]
        losses.append((np.log(np.exp(logits).sum(axis=1)) - right).mean())
    attacked = run(tmp_path / "a", "--rule", "median", "--attack", "label_flip", "--byzantine", "3",
                   "--steps", "0", "--seed", "4")  # fmt: skip
    assert attacked["train_loss"] == pytest.approx(np.mean(losses[:7]), rel=1e-5)
    assert abs(np.mean(losses[:7]) - np.mean(losses)) > 1e-3


@pytest.mark.slow
def test_success_of_a_backdoor_is_measured(tmp_path, capsys):
    attack = "backdoor:target=3,size=2,share=1"
    settings = {"dataset": "digits", "model": "logistic", "attack": attack, "byzantine": 2}
    task = setup.prepare(configure(rule="mean", **settings), load("digits"))
    (clean, labels), (images, targets) = task.held_out["test"], task.held_out["backdoor"]
    others = np.asarray(labels) != 3
    assert np.all(np.asarray(targets) == 3)
    np.testing.assert_array_equal(images, add_trigger(np.asarray(clean)[others], 2))
    # Replacement makes the mean learn it; the median of iid workers doesn't.
    arguments = ("--partition", "iid", "--steps", "60", "--lr", "0.5", "--byzantine", "2",
                 "--eval-every", "60", "--attack")  # fmt: skip
    learnt = run(tmp_path / "mean", "--rule", "mean", *arguments, f"{attack}+model_replacement")
    assert "backdoor_success" in capsys.readouterr().out
    withstood = run(tmp_path / "median", "--rule", "median", *arguments, attack)
    assert learnt["backdoor_success"] > 0.9
    assert withstood["backdoor_success"] < 0.2
    assert columns_of(tmp_path / "mean")["backdoor_success"][0] < 0.9

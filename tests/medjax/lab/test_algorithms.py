"""Algorithms on the command line: `--algorithm NAME:setting=value`."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest

from medjax.algorithms import ALGORITHMS
from medjax.lab.commands import list as list_command
from medjax.lab.commands.run import main
from medjax.lab.data import load
from medjax.lab.settings import cli, parts
from medjax.lab.settings.config import configure
from medjax.lab.settings.field import plain
from medjax.lab.sweeps import grid, plan, select
from medjax.lab.task import communication, privacy, workers
from medjax.lab.task.program import one_run

pytestmark = pytest.mark.usefixtures("no_pictures")

QUICK = ["--dataset", "digits", "--model", "logistic", "--workers", "7", "--batch-size", "4"]
QUICK += ["--partition", "dirichlet", "--alpha", "0.1", "--steps", "2"]
D, N = 650, 7
FULL = 32
QSGD = 3 + 2 * FULL / D  # a norm for each of two leaves, and 5 levels with their signs

# Of each algorithm a command, and the bits that a worker sends and gets, for each parameter.
COMMANDS = {
    "fedavg:local_steps=2 --local-optimizer adam --rule median": (FULL, FULL),
    "fedprox:local_steps=2,mu=0.1 --participation 5": (FULL, FULL),
    "scaffold:local_steps=2 --lr 0.5 --rule noisy_median --b 0.001 --mix nnm --attack ipm "
    "--participation 5": (FULL, 2 * FULL),
    "feddyn:local_steps=2,alpha=0.1 --local-lr 0.05": (FULL, FULL),
    "fednova:local_steps=1/2/3/4/5/6/7": (FULL, FULL),
    "mime:local_steps=2,beta=0.9": (2 * FULL, 3 * FULL),
    "mime_lite:local_steps=2,beta=0.9 --weights examples": (2 * FULL, 2 * FULL),
    "diloco:local_steps=2 --lr-schedule cosine": (FULL, FULL),
    "distributed_lion:zero=plus,average=true": (1, 3),
    "signum": (2, 2),
    "z_sign_fedavg:local_steps=2,sigma=0.1,z=inf": (1, FULL),
    "sign_fv:epsilon=0.1": (2, 2),
    "ef21 --compress scaled_sign": (1 + FULL / D, FULL),
    "diana:alpha=0.5 --compress qsgd:levels=2": (QSGD, FULL),
    "marina:probability=0.25 --compress qsgd:levels=2": (0.25 * FULL + 0.75 * QSGD, FULL),
    "byz_vr_marina:probability=1 --compress qsgd:levels=2 --rule krum": (FULL, FULL),
    "dasha:momentum=0.5 --compress qsgd:levels=2": (QSGD, FULL),
    "storm:momentum=0.5 --rule sign": (2, 2),
    "delayed_sgd:delays=0/1/2/0/1/2/0": (FULL, FULL),
    "fedbuff:local_steps=2,delays=2": (FULL, FULL),
    "d_psgd:adapt_first=true --topology star": (12 / 7 * FULL, 12 / 7 * FULL),
    "gradient_tracking --attack ipm --byzantine 2": (4 * FULL, 4 * FULL),
    "choco_sgd:consensus_step=0.3 --compress qsgd:levels=2 --attack label_flip": (
        *(2 * QSGD, 2 * QSGD),
    ),
    "clipped_gossip:tau=1 --topology complete --attack dissensus:epsilon=2": (
        *(6 * FULL, 6 * FULL),
    ),
    "dp_fedavg:local_steps=2,clip=1,noise_multiplier=0.1 --compress top_k:k=13 "
    "--error-feedback yes": (13 * (FULL + 10) / D, FULL),
}


# Those that run: nodes, votes, a state of the workers, privacy. The others are traced.
RUN = ("scaffold", "z_sign_fedavg", "d_psgd", "dp_fedavg")


def runs_of(*argv):
    parser = cli.Parser("sweep", "")
    grid.add_grid_options(parser)
    _, axes = grid.read_axes(parser, argv)
    return grid.expand(axes)


def assert_sent(command, up, down):
    asked = 5 if "--participation" in command else N
    assert [up / asked / D, down / asked / D] == pytest.approx(COMMANDS[command], rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.split(":")[0])
def test_every_name_is_built(command):
    (config,) = runs_of("--algorithm", *command.split(), *QUICK)
    built = workers.build(config)
    values, program = built.values, one_run(built.task)
    state = jax.eval_shape(program.init, values)
    after = jax.eval_shape(program.advance, state, values, built.workers, jnp.int32(1))
    assert jax.tree.map(lambda x: x.shape, after) == jax.tree.map(lambda x: x.shape, state)
    assert_sent(command, *communication.per_step(built.task, values.b))


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [command for command in COMMANDS if command.startswith(RUN)], ids=RUN
)
def test_a_run(command, tmp_path):
    assert main(["--algorithm", *command.split(), *QUICK, "--out", str(tmp_path / "run")]) == 0
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert_sent(command, summary["bits_up_per_step"], summary["bits_down_per_step"])
    losses = pq.read_table(tmp_path / "run/metrics.parquet")["train_loss"].to_pylist()
    assert losses[0] != losses[-1] < 100


def test_a_vote_has_the_step_size_of_votes():
    assert configure(algorithm="fedavg:local_steps=2", rule="sign").lr == 0.003
    assert configure(algorithm="fedavg:local_steps=2", rule="krum").lr == 1.0


def test_no_name_is_missing():
    assert {command.split()[0].partition(":")[0] for command in COMMANDS} == set(ALGORITHMS)


def test_a_sweep_of_algorithms_chooses_the_step_sizes_of_each():
    axes = ["--algorithm", "none", "fedprox:local_steps=2,mu=0.1", "signum"]
    runs = runs_of(*axes, "--rule", "mean", "median", "--local-lr", "0.1", "0.01", *QUICK)
    fedprox = "fedprox:local_steps=2,mu=0.1"
    assert {(plain(run.algorithm), plain(run.rule), run.local_lr) for run in runs} == {
        *((None, "mean", None), (None, "median", None), ("signum", None, None)),
        *((fedprox, rule, lr) for rule in ("mean", "median") for lr in (0.1, 0.01)),
    }
    accuracy = np.random.default_rng(0).random(len(runs))
    columns = {"run": np.arange(len(runs)), "step": np.full(len(runs), 2)}
    columns |= {name: accuracy for name in ("train_loss", "validation_accuracy", "test_accuracy")}
    best = select.best(select.candidates(runs, columns), columns)
    chosen = [(plain(each.run.algorithm), plain(each.run.rule)) for each in best]
    assert len(chosen) == len(set(chosen)) == 5
    rates = {plain(each.run.rule): each.run.local_lr for each in best if each.run.local_lr}
    for rule, rate in rates.items():
        own = [k for k, run in enumerate(runs) if run.local_lr and plain(run.rule) == rule]
        assert rate == runs[max(own, key=lambda k: accuracy[k])].local_lr


def test_what_workers_keep_is_foreseen():
    def foreseen(algorithm):
        config = configure(dataset="digits", model="logistic", algorithm=algorithm)
        (group,) = plan.make_groups([config], {("digits", None): load("digits")})
        (chunk,) = plan.make_chunks(group, 1)
        return plan.estimate_bytes(group, chunk)

    usual = foreseen("fedprox:local_steps=2,mu=1")
    assert foreseen("scaffold:local_steps=2") - usual == 4 * 10 * D
    assert foreseen("d_psgd") - usual == 4 * 10 * D
    assert foreseen("gradient_tracking") - usual == 4 * 10 * 3 * D


def test_the_list_tells_their_settings(capsys):
    assert list_command.main(["--kind", "algorithms"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (line,) = (line for line in lines if line.startswith("fedbuff "))
    assert "local_steps=VALUE, delays=VALUE, drawn=true, --local-lr 0.1, --rule NAME" in line
    assert "Nguyen et al., 2022" in line
    (line,) = (line for line in lines if line.startswith("ef21 "))
    assert "--compress none" in line


@pytest.mark.slow
def test_one_of_ones_own(tmp_path, capsys):
    (tmp_path / "mine.py").write_text(
        "import medjax\n"
        "from medjax.workers import Algorithm, Procedure, Sent\n"
        "def half(lr, factor):\n"
        "    def round(oracle, broadcast, state):\n"
        "        g, model_state = oracle.gradient(oracle.params, 0, oracle.model_state)\n"
        "        return Sent({'params': {k: {j: factor * x for j, x in v.items()}\n"
        "                     for k, v in g['params'].items()}}, state, model_state)\n"
        "    return Algorithm(Procedure(round), medjax.mean_sgd(lr))\n"
    )
    mine = f"{tmp_path / 'mine.py'}:half:factor=0.5"
    for name, given in (("mine", ["--algorithm", mine]), ("mean", ["--rule", "mean"])):
        lr = "0.2" if name == "mine" else "0.1"
        command = [*given, *QUICK, "--lr", lr, "--out", str(tmp_path / name)]
        assert main(command) == 0
    ours, theirs = (
        pq.read_table(tmp_path / name / "metrics.parquet")["train_loss"].to_pylist()
        for name in ("mine", "mean")
    )
    assert ours == pytest.approx(theirs, rel=1e-5)
    config = json.loads((tmp_path / "mine/config.json").read_text())
    assert config["own_code"].keys() == {f"{tmp_path / 'mine.py'}:half"}


def test_a_value_for_each_worker_is_a_sequence():
    parse = parts.one_of("algorithm", ALGORITHMS)
    assert parse("delayed_sgd:delays=0/1/2").settings == {"delays": (0, 1, 2)}
    assert parse("delayed_sgd:delays=2").settings == {"delays": 2}


@pytest.mark.parametrize(
    ("arguments", "epsilon", "reason"),
    [
        # By hand of 3 steps at sensitivity 2c: see tests/medjax/lab/test_privacy.py.
        ("noise_multiplier=4 --delta 1e-4", privacy.epsilon(4, 3, 7, None, 1e-4), ""),
        ("noise_multiplier=4 --participation 2", privacy.epsilon(4, 3, 7, 2, 1e-5), ""),
        ("noise_multiplier=4 --attack ipm", None, "attackers know what the others send"),
        ("noise_multiplier=0", None, "no noise"),
        (
            "noise_multiplier=4 --compress scaled_sign",
            *(None, "what is decoded of a compressed move may be longer than c"),
        ),
    ],
)
def test_privacy_of_a_run(arguments, epsilon, reason):
    command = f"--algorithm dp_fedavg:local_steps=1,clip=1,{arguments}".split()
    (config,) = runs_of(*command, *QUICK)
    found = privacy.of_run(config, 3)
    assert (found.epsilon, found.reason) == (pytest.approx(epsilon), reason)
    assert found.delta == (1e-4 if "--delta" in command else 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "epsilon", "told"),
    [
        ("noise_multiplier=4 --delta 1e-4", privacy.epsilon(4, 3, 7, None, 1e-4), "at δ = 0.0001"),
        ("noise_multiplier=0", None, "no ε: no noise"),
    ],
)
def test_privacy_is_in_the_summary(arguments, epsilon, told, tmp_path, capsys):
    command = f"--algorithm dp_fedavg:local_steps=1,clip=1,{arguments}".split()
    assert main([*command, *QUICK, "--steps", "3", "--out", str(tmp_path / "run")]) == 0
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["epsilon"] == pytest.approx(epsilon)
    assert told in capsys.readouterr().out


def test_without_the_package_the_privacy_is_unknown(monkeypatch):
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    config = configure(algorithm="dp_fedavg:local_steps=1,clip=1,noise_multiplier=1")
    found = privacy.of_run(config, 10)
    assert found == (1e-5, None, found.reason)
    assert 'pip install "medjax[privacy]"' in found.reason
    assert privacy.of_run(configure(algorithm="fedavg:local_steps=1"), 10) is None

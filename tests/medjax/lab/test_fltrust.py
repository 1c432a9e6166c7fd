"""The rule FLTrust on the command line: the server's own examples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.lab.commands import run as run_command
from medjax.lab.data import load
from medjax.lab.settings.config import as_record, configure, from_record
from medjax.lab.sweeps import grid
from medjax.lab.sweeps.inputs import values
from medjax.lab.sweeps.plan import make_chunks, make_groups
from medjax.lab.task.program import compile_program, one_run
from medjax.lab.task.workers import build
from medjax.objectives import gradient_on
from medjax.rules import fltrust

DIGITS = {"dataset": "digits", "model": "logistic", "workers": 5, "partition": "iid"}


def setup(**settings):
    return build(configure(**DIGITS | {"rule": "fltrust:examples=30"} | settings))


def one_step(built):
    """The states before and after the first step."""
    program = one_run(built.task)
    state = jax.jit(program.init)(built.values)
    return state, jax.jit(program.advance)(state, built.values, built.workers, 1)


def rows(server, train):
    """The places of the server's examples among the training data."""
    images = train[0].reshape(len(train[0]), -1)
    return [int(np.flatnonzero((images == x.ravel()).all(axis=1))[0]) for x in server[0]]


@pytest.mark.slow
def test_examples_are_drawn_by_the_seed_from_clean_training_data():
    built = setup(attack="label_flip", byzantine=2, seed=3)
    inputs, labels = built.values.server
    assert inputs.shape == (30, 8, 8, 1)
    chosen = rows((inputs, labels), built.task.train)
    assert len(set(chosen)) == 30
    np.testing.assert_array_equal(labels, built.task.train[1][chosen])
    np.testing.assert_array_equal(setup(seed=3).values.server[0], inputs)
    assert (setup(seed=4).values.server[0] != inputs).any()
    assert setup(rule="mean").values.server is None


def test_draws_are_uniform_over_the_training_data():
    built = setup(rule="fltrust:examples=1442")
    assert sorted(built.values.server[1]) == sorted(built.task.train[1])


@pytest.mark.slow
def test_a_step_is_the_rules():
    built = setup(lr=0.5, batch_size="full", local_steps=2, local_lr=0.1)
    state, after = one_step(built)
    own = gradient_on(built.task.objective, built.values.server, 2, 0.1)
    examples, labels = jax.device_get(built.workers.examples)

    @jax.jit
    def expected(params):
        sent = [
            gradient_on(built.task.objective, (examples[i][:size], labels[i][:size]), 2, 0.1)(
                params
            )["params"]["Dense_0"]
            for i, size in enumerate(np.asarray(built.workers.sizes))
        ]
        stacked = {name: jnp.stack([g[name] for g in sent]) for name in ("kernel", "bias")}
        rule = fltrust(lambda _: own(params)["params"]["Dense_0"])
        return rule.update(stacked, rule.init(None), stacked)[0]

    for name, update in expected(state.params).items():
        before, moved = (s.params["params"]["Dense_0"][name] for s in (state, after))
        np.testing.assert_allclose(moved, before - 0.5 * update, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_sweeps_runs_have_the_examples_of_their_seeds():
    axes = {name: [value] for name, value in DIGITS.items()} | {"validation": [0.1]}
    axes |= {"rule": ["fltrust:examples=30"], "lr": [0.1, 0.2], "seed": [0, 1]}
    (group,) = make_groups(grid.expand(axes), {("digits", None): load("digits")})
    (chunk,) = make_chunks(group, 4)
    inputs, labels = values(group, chunk).server
    assert inputs.shape == (2, 2, 30, 8, 8, 1)
    for k, seed in enumerate(group.seeds):
        single = setup(validation=0.1, seed=seed).values.server
        for h in range(2):
            np.testing.assert_array_equal(inputs[k, h], single[0])
            np.testing.assert_array_equal(labels[k, h], single[1])


@pytest.mark.slow
def test_programs_of_other_numbers_of_examples_are_told_apart():
    # Nothing but the shape of an argument that `init` doesn't use tells theirs apart.
    done = {}
    for count in (30, 20):
        built = setup(rule=f"fltrust:examples={count}")
        inputs = (built.values, built.workers, built.measured, built.task.held_out)
        program = compile_program(one_run(built.task), *inputs, done).program
        program.init(built.values)


OWN = """
import jax
from medjax.rules import StatefulRule

def follow(server_gradient, examples: int = 5):
    update = lambda updates, state, params: (server_gradient(params), state)
    return StatefulRule("follow", lambda params: (), update)

def mean(server_gradient):
    return lambda updates: updates.mean(axis=0)
"""


@pytest.mark.slow
def test_a_rule_of_ones_own_may_ask_for_the_servers_gradient(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(OWN)
    built = setup(rule="./mine.py:follow", lr=0.5)
    assert len(built.values.server[1]) == 5
    state, after = one_step(built)
    update = gradient_on(built.task.objective, built.values.server)(state.params)
    for x, y, g in zip(*map(jax.tree.leaves, (state.params, after.params, update)), strict=True):
        np.testing.assert_allclose(y, x - 0.5 * g, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="takes server_gradient: it must make a StatefulRule"):
        setup(rule="./mine.py:mean")


def test_it_is_recorded():
    config = configure(rule="noisy_fltrust:examples=7")
    assert as_record(config)["rule"] == "noisy_fltrust:examples=7"
    assert from_record(as_record(config)) == config


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "fltrust:examples=1443",
            "gives the server 1443 examples of its own, there are 1442 train",
        ),
        ("fltrust:examples=0", "examples must be at least 1, got 0"),
        ("fltrust:examples=half", "examples must be an integer, got 'half'"),
        ("fltrust:server_gradient=1", "rule fltrust takes examples, got 'server_gradient'"),
        ("fltrust --attack optimal_turn", "is on rules without memory, got fltrust"),
    ],
)
def test_mistakes(arguments, message, error_of, tmp_path):
    words = ["--rule", *arguments.split(), "--dataset", "digits", "--out", str(tmp_path / "run")]
    assert message in error_of(run_command.main, *words)
    assert not (tmp_path / "run").exists()

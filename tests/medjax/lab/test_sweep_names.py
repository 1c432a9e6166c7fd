"""Every name of the library is a value of a sweep's axis: its programs are built."""

import jax
import jax.numpy as jnp
import pytest

from medjax.attacks import ATTACKS
from medjax.compressors import COMPRESSORS
from medjax.lab.data import load
from medjax.lab.settings import parts
from medjax.lab.settings.rules import RULE_TABLE
from medjax.lab.sweeps import grid
from medjax.lab.sweeps.inputs import Inputs
from medjax.lab.sweeps.plan import make_chunks, make_groups
from medjax.lab.task.program import many_runs
from medjax.mixing import MIXINGS

DATASETS = {("digits", None): load("digits")}
BASE = {"dataset": ["digits"], "model": ["logistic"], "workers": [8], "partition": ["iid"]}
# What has no default; and a fraction, for compressors that need it or another number.
VALUES = {
    "tau": "1",
    "max_norm": "1",
    "fraction": "0.5",
    "target": "3",
    "gradient_bound": "1",
    "product_threshold": "100",
    "sum_threshold": "100",
}


def written(kind, table):
    """Each name of a table as on the command line."""
    texts = []
    for name, factory in table.items():
        needed = [
            f"{key}={VALUES[key]}"
            for key, setting in parts.settings_of(kind, factory).items()
            if setting.default is setting.empty or key == "fraction"
        ]
        texts.append(f"{name}:{','.join(needed)}" if needed else name)
        assert str(parts.one_of(kind, table)(texts[-1])) == texts[-1]
    return texts


ATTACKED = {"attack": ["ipm"], "byzantine": [1]}
MEAN = {"rule": ["mean"]}
AXES = {
    "rule": ATTACKED | {"rule": [*written("rule", RULE_TABLE), "noisy_median"]},
    "mix": ATTACKED | MEAN | {"mix": written("mixing", MIXINGS)},
    "attack": ATTACKED | MEAN | {"attack": written("attack", ATTACKS)},
    "compress": MEAN | {"compress": written("compressor", COMPRESSORS)},
}
# With a state, with noise, and drawing: every other name is traced in test_protocol.py, or as here
# beside those that it comes from.
TRACED = ("byzantine_sgd", "noisy_median", "dnc")


@pytest.mark.slow
@pytest.mark.parametrize("axis", AXES)
def test_every_name_is_a_value_of_an_axis(axis):
    runs = grid.expand(BASE | AXES[axis] | {"seed": [0, 1], "lr": [0.1, 0.2]})
    groups = make_groups(runs, DATASETS)
    assert [str(getattr(group.task.config, axis)) for group in groups] == AXES[axis][axis]
    for group in groups:
        assert group.runs.shape == (2, 2)
        if not str(group.task.config.rule).startswith(TRACED):
            continue
        (chunk,) = make_chunks(group, 4)
        values, data, *_ = Inputs().of(group, chunk)
        program = many_runs(group.task)
        state = jax.eval_shape(program.init, values)
        after = jax.eval_shape(program.advance, state, values, data, jnp.int32(1))
        assert jax.tree.map(lambda x: x.shape, after) == jax.tree.map(lambda x: x.shape, state)

"""The claim of the paper on real training: sign stalls on one class per worker, noise helps."""

import pyarrow.parquet as pq
import pytest

from medjax.lab.commands.sweep import main

pytestmark = pytest.mark.slow

SETTINGS = (
    "--dataset digits --model mlp --workers 10 --classes-per-worker 1 --examples-per-worker 50 "
    "--batch-size full --rule sign noisy_sign --b 1e-2 --lr 0.003 0.01 --seeds 2 --validation 0 "
    "--steps 150 --eval-every 150"
)


@pytest.fixture(scope="module")
def last(tmp_path_factory):
    """The last measurements of each rule, by step size and seed."""
    out = tmp_path_factory.mktemp("acceptance") / "sweep"
    assert main([*SETTINGS.split(), "--out", str(out)]) == 0
    table = pq.read_table(out / "results.parquet").to_pandas()
    table = table[table["step"] == 150].set_index(["rule", "lr", "seed"]).sort_index()
    return {rule: table.loc[rule] for rule in ("sign", "noisy_sign")}


# Of the seeds 0 to 5 the worst are 0.31 and 0.84, and a ratio of 0.51.
def test_noise_makes_sign_accurate(last):
    assert last["sign"]["test_accuracy"].max() < 0.4
    assert last["noisy_sign"].loc[0.01, "test_accuracy"].min() > 0.75


def test_noise_makes_the_gradient_small(last):
    ratio = last["noisy_sign"]["grad_norm"] / last["sign"]["grad_norm"]
    assert len(ratio) == 4
    assert ratio.max() < 0.7

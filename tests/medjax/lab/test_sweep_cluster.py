"""Sweeps on a cluster: the table of one machine bit for bit, whatever is lost on the way."""

import json

import pyarrow.parquet as pq
import pytest

from medjax.lab.commands.sweep import main
from medjax.lab.sweeps import plan
from medjax.lab.sweeps.cluster import dispatch

QUICK = ("--dataset", "digits", "--model", "logistic", "--steps", "400", "--eval-every", "100")
MINE = """
import jax.numpy as jnp

def my_mean(updates):
    return jnp.mean(updates, axis=0)
"""

pytestmark = pytest.mark.usefixtures("no_sweep_pictures")


def table(folder):
    return pq.read_table(folder / "results.parquet")


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of a core each, on this machine."""
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
    found = Cluster(initialize_head=True, head_node_args=small)
    found.add_node(num_cpus=1, object_store_memory=80 << 20)
    yield found
    found.shutdown()


@pytest.mark.slow
def test_a_node_is_lost_and_the_table_is_that_of_one_machine(
    cluster, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.setattr(plan, "_MOST_SIDE_BY_SIDE", 2)  # four chunks of each program
    grid = (
        *QUICK,
        "--rule",
        "noisy_sign",
        "./mine.py:my_mean",
        "--lr",
        "0.01",
        "0.1",
        "--seeds",
        "4",
    )
    assert main([*grid, "--out", "alone"]) == 0
    (second,) = cluster.worker_nodes
    news, killed = dispatch._news, []

    def killing(connected, folder, job):
        yield from news(connected, folder, job)
        if job.worker.node == second.node_id and job.steps and not killed:
            killed.append(job.chunk)
            cluster.remove_node(second, allow_graceful=False)

    monkeypatch.setattr(dispatch, "_news", killing)
    capsys.readouterr()
    assert main([*grid, "--out", "cluster", "--ray", cluster.address]) == 0
    printed = capsys.readouterr()
    assert "is lost: its chunk is run again" in printed.out
    assert printed.err == ""
    assert table(tmp_path / "cluster").equals(table(tmp_path / "alone"))
    (session,) = json.loads((tmp_path / "cluster/config.json").read_text())["sessions"]
    assert [node["platform"] for node in session["cluster"]] == ["cpu"] * 2

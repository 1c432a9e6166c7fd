"""Sweeps on a cluster: the table of one machine bit for bit, whatever is lost on the way."""

import gc
import json
import signal
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from benchmarks import clusters
from medjax.lab.commands.sweep import main
from medjax.lab.sweeps import plan
from medjax.lab.sweeps.cluster import dispatch, workers

MINE = """
import jax.numpy as jnp

def my_mean(updates):
    return jnp.mean(updates, axis=0)
"""
# Eight runs of one program, with noise before a rule of one's own.
GRID = (
    *("--dataset", "digits", "--model", "logistic", "--steps", "200", "--eval-every", "50"),
    *("--rule", "noisy_./mine.py:my_mean", "--b", "0.1", "--lr", "0.01", "0.1", "--seeds", "4"),
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("no_pictures"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Ray leaves files to the collector
    pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning"),  # in which a node begins
]


def table(folder):
    return pq.read_table(f"{folder}/results.parquet")


@pytest.fixture
def cluster(monkeypatch):
    """Two nodes of a core each, on this machine."""
    monkeypatch.setattr(workers, "_SECONDS_TO_GATHER", 300.0)  # on a machine that is busy
    with clusters.two_nodes() as found:
        yield found
    del found
    gc.collect()  # not in the tests that come next, where a warning fails


def test_nodes_may_be_lost_and_a_stopped_sweep_goes_on_on_one_machine(
    cluster, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(plan, "_MOST_SIDE_BY_SIDE", 2)
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(MINE)
    assert main([*GRID, "--out", "alone"]) == 0
    capsys.readouterr()

    nodes = {node.node_id: node for node in cluster.worker_nodes}
    lost, news = {}, dispatch._news

    def watched(connected, folder, job):
        """Kill the first node at work; ask to stop once the other is at work on what it had."""
        yield from news(connected, folder, job)
        if not job.steps or job.worker.stream is None:
            return
        if not lost:
            lost[job.chunk] = job.worker.node
            cluster.remove_node(nodes[job.worker.node], allow_graceful=False)
        elif lost.get(job.chunk, job.worker.node) != job.worker.node:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(dispatch, "_news", watched)
        assert main([*GRID, "--out", "stopped", "--ray", cluster.address]) == 130
    printed = capsys.readouterr()
    assert printed.err == "stopped; the same command goes on where this was\n"
    assert "is lost: its chunk is run again" in printed.out
    assert 1 <= len(list(Path("stopped/parts").iterdir())) < 4

    assert main([*GRID, "--out", "stopped"]) == 0
    assert "runs of them, " in capsys.readouterr().out
    assert table("stopped").equals(table("alone"))
    sessions = json.loads(Path("stopped/config.json").read_text())["sessions"]
    assert [len(session.get("cluster", ())) for session in sessions] == [2, 0]
    assert sessions[0]["device"]["platform"] == "cpu"

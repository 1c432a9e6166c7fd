"""Sweeps on a cluster: the table of one machine bit for bit, whatever is lost on the way."""

import gc
import json
import shutil
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
    pytest.mark.promotes,
    pytest.mark.usefixtures("no_sweep_pictures"),
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


def interrupted_by(monkeypatch, interrupt):
    """Call a function with each of a worker's jobs that has begun."""
    news = dispatch._news

    def watched(connected, folder, job):
        yield from news(connected, folder, job)
        interrupt(folder, job)

    monkeypatch.setattr(dispatch, "_news", watched)


def test_a_stopped_sweep_goes_on_on_any_machines_and_nodes_may_be_lost(
    cluster, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(plan, "_MOST_SIDE_BY_SIDE", 2)
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(MINE)
    assert main([*GRID, "--out", "alone"]) == 0
    capsys.readouterr()

    stopped = []

    def stop(folder, job):
        if list(folder.glob("parts/*.parquet")) and not stopped:
            stopped.append(job.chunk)
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        interrupted_by(patch, stop)
        on_cluster = ("--ray", cluster.address)
        assert main([*GRID, "--out", "stopped", *on_cluster]) == 130
    assert capsys.readouterr().err == "stopped; the same command goes on where this was\n"
    assert 1 <= len(list(Path("stopped/parts").iterdir())) < 4
    shutil.copytree("stopped", "alone-again")
    assert main([*GRID, "--out", "alone-again"]) == 0
    assert table("alone-again").equals(table("alone"))

    (second,) = cluster.worker_nodes
    killed = []

    def kill(folder, job):
        if job.worker.node == second.node_id and job.steps and not killed:
            killed.append(job.chunk)
            cluster.remove_node(second, allow_graceful=False)

    interrupted_by(monkeypatch, kill)
    capsys.readouterr()
    assert main([*GRID, "--out", "stopped", *on_cluster]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "runs of them, " in printed.out
    assert "is lost: its chunk is run again" in printed.out
    assert table("stopped").equals(table("alone"))
    sessions = json.loads(Path("stopped/config.json").read_text())["sessions"]
    assert [len(session["cluster"]) for session in sessions] == [2, 2]
    assert sessions[0]["device"]["platform"] == "cpu"

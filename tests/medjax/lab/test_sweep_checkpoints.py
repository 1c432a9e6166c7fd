"""A sweep that is stopped within a chunk goes on there, bit for bit."""

import json
import shutil
import signal

import pyarrow.parquet as pq
import pytest
from matplotlib.figure import Figure

from medjax.lab.commands.sweep import main
from medjax.lab.storage.keeper import FOLDER, Keeper
from medjax.lab.sweeps import execute, pictures
from medjax.lab.task import training

pytestmark = pytest.mark.usefixtures("no_pictures")

# Seeds and settings side by side; two programs; a state with momenta.
GRID = (
    *("--dataset", "digits", "--model", "logistic", "--batch-size", "8", "16"),
    *("--rule", "noisy_sign", "--b", "0", "0.1", "--momentum", "0.9", "--seeds", "2"),
    *("--steps", "40", "--eval-every", "20"),
)
KEPT = ("--checkpoint-every", "10")


def sweep(*arguments):
    return main([*map(str, arguments)])


def table(folder):
    return pq.read_table(folder / "results.parquet")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "sweep"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "draw", lambda *_: {"curves": Figure((1, 1))})
        assert sweep(*GRID, "--out", folder) == 0
    return folder


def stopped(folder, monkeypatch, chunk, at, *flags):
    """Run the sweep, and ask it to stop at a step of a chunk."""
    added_to, begun = training.Progress.added_to, []

    def asked(self, rows):
        begun.extend(["chunk"] * (self.step == 0))
        if len(begun) == chunk and self.step >= at:
            signal.raise_signal(signal.SIGTERM)
        return added_to(self, rows)

    with monkeypatch.context() as patch:
        patch.setattr(training.Progress, "added_to", asked)
        assert sweep(*GRID, *flags, "--out", folder) == 130


@pytest.mark.slow
def test_a_chunk_goes_on_or_begins_anew(whole, tmp_path, monkeypatch, capsys):
    folder, torn = tmp_path / "sweep", tmp_path / "torn"
    stopped(folder, monkeypatch, 2, 20, *KEPT)
    shutil.copytree(folder, torn)
    assert capsys.readouterr().err == "stopped; the same command goes on where this was\n"
    (kept,) = (folder / FOLDER).iterdir()
    assert kept.name == "0001-00000"
    keeper = Keeper(kept, 1)
    start = keeper.latest()
    keeper.close()
    assert start.step < 40
    assert start.rows["train_loss"].shape == (len(start.rows["step"]), 2, 2)

    begun, train = [], execute.train

    def watched(*arguments, start, **settings):
        begun.append(0 if start is None else start.step)
        return train(*arguments, start=start, **settings)

    monkeypatch.setattr(execute, "train", watched)
    assert sweep(*GRID, "--out", folder) == 0  # --checkpoint-every is known
    assert begun == [start.step]
    assert table(folder).equals(table(whole))
    assert {x.name for x in folder.iterdir()} == {x.name for x in whole.iterdir()}
    record = json.loads((folder / "config.json").read_text())
    assert record["checkpoint_every"] == 10
    assert len(record["sessions"]) == 2

    # A checkpoint that is torn is passed over: the chunk begins anew.
    for path in (torn / FOLDER).rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    assert sweep(*GRID, "--out", torn) == 0
    assert begun == [start.step, 0]
    assert table(torn).equals(table(whole))
    assert not (torn / FOLDER).exists()


def test_of_no_steps_is_a_mistake(error_of):
    message = error_of(main, *GRID, "--checkpoint-every", "0")
    assert "'0' is not a whole number of at least 1" in message

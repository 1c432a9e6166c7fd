"""Runs that are stopped or torn go on, bit for bit as if nothing had happened."""

import json
import shutil
import signal

import pyarrow.parquet as pq
import pytest
from matplotlib.figure import Figure

from medjax.lab import plots
from medjax.lab.commands.run import main
from medjax.lab.machine import memory
from medjax.lab.storage.keeper import FOLDER, Keeper
from medjax.lab.storage.locks import alone_in
from medjax.lab.task import training

pytestmark = pytest.mark.usefixtures("no_pictures")

# With states of all kinds: the server's and the workers' momenta, errors, noise, mini-batches.
SETTINGS = (
    *("--dataset", "digits", "--model", "logistic", "--rule", "noisy_mean", "--batch-size", "8"),
    *("--worker-momentum", "0.9", "--server", "adam", "--compress", "scaled_sign"),
    *("--error-feedback", "yes", "--steps", "60", "--eval-every", "20"),
)
KEPT = ("--checkpoint-every", "10")


def run(*arguments):
    return main([*map(str, arguments)])


def table(folder):
    return pq.read_table(folder / "metrics.parquet").to_pydict()


def last(folder):
    """Return step and state of the last checkpoint."""
    keeper = Keeper(folder / FOLDER, 1)
    try:
        start = keeper.latest()
        assert start is not None
        return start
    finally:
        keeper.close()


def assert_same(folder, other):
    assert table(folder) == table(other)  # to the last bit
    one, two = last(folder), last(other)
    assert one.step == two.step
    assert [x.tobytes() for x in one.leaves] == [x.tobytes() for x in two.leaves]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An undisturbed run."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert run(*SETTINGS, *KEPT, "--out", folder) == 0
    return folder


def stop(folder, asked_at):
    """Run, and ask it to stop at a step."""
    update = Keeper.update

    def asked(self, step, state, rows, *, now):
        update(self, step, state, rows, now=now)
        if step >= asked_at:
            signal.raise_signal(signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Keeper, "update", asked)
        # However slow the machine, steps are taken up to the next measurement.
        patch.setattr(training, "_SECONDS_PER_CHUNK", 60)
        assert run(*SETTINGS, *KEPT, "--out", folder) == 130


@pytest.fixture(scope="module")
def stopped_once(tmp_path_factory):
    """A run that was asked to stop at step 20."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "run_figure", lambda _: Figure((1, 1)))
        stop(folder, 20)
    assert last(folder).step == table(folder)["step"][-1] == 40  # the next that can be heard
    return folder


@pytest.fixture
def stopped(stopped_once, tmp_path):
    """A copy of it to go on with."""
    return shutil.copytree(stopped_once, tmp_path / "run")


@pytest.mark.slow
def test_a_checkpointed_run_is_as_one_without(whole, tmp_path):
    assert run(*SETTINGS, "--out", tmp_path / "run") == 0
    assert table(tmp_path / "run") == table(whole)
    assert not (tmp_path / "run" / FOLDER).exists()


@pytest.mark.slow
def test_a_stopped_run_goes_on_and_what_was_half_done_is_removed(stopped, whole):
    for path in ("9.orbax-checkpoint-tmp/state", "7/about", "mine"):  # half written, half removed
        (stopped / FOLDER / path).mkdir(parents=True)
    (stopped / ".metrics.parquet.123.tmp").write_bytes(b"half")
    (stopped / ".lock").touch()
    assert run("--resume", stopped, *SETTINGS) == 0  # the same settings may be given
    assert_same(stopped, whole)
    assert len(list((stopped / FOLDER).iterdir())) == 3  # and a folder that isn't ours
    assert {x.name for x in stopped.iterdir()} == {x.name for x in whole.iterdir()}
    record, summary = (
        json.loads((stopped / f"{x}.json").read_text()) for x in ("config", "summary")
    )
    assert len(record["resumed"]) == 1
    assert summary["stopped_early"] is False
    assert summary["step"] == 60


@pytest.mark.slow
def test_a_run_that_was_stopped_between_measurements_goes_on(whole, tmp_path):
    stop(tmp_path / "run", 0)
    assert last(tmp_path / "run").step == 1
    assert run("--resume", tmp_path / "run") == 0
    assert_same(tmp_path / "run", whole)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["cut", "changed", "emptied"])
def test_a_torn_checkpoint_is_passed_over(stopped, damage):
    earlier, torn = sorted(int(x.name) for x in (stopped / FOLDER).iterdir() if x.name.isdigit())
    for path in (x for x in (stopped / FOLDER / str(torn)).rglob("*") if x.is_file()):
        content = path.read_bytes()
        if damage == "cut":
            path.write_bytes(content[: len(content) // 2])
        elif damage == "changed":
            path.write_bytes(bytes(255 - x for x in content))
        else:
            path.unlink()
    assert last(stopped).step == earlier


@pytest.mark.slow
def test_a_run_goes_on_from_the_checkpoint_before_a_torn_one(stopped, whole):
    latest = max(int(x.name) for x in (stopped / FOLDER).iterdir() if x.name.isdigit())
    for path in (stopped / FOLDER / str(latest)).rglob("*"):
        if path.is_file():
            path.unlink()
    assert run("--resume", stopped) == 0
    assert_same(stopped, whole)


@pytest.mark.slow
def test_without_any_whole_checkpoint_it_begins_anew(stopped, whole):
    for path in (stopped / FOLDER).rglob("*"):
        if path.is_file() and path.name != ".lock":
            path.write_bytes(b"")
    assert run("--resume", stopped) == 0
    assert_same(stopped, whole)


@pytest.mark.slow
def test_what_is_missing_at_the_end_is_written(whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    (folder / "summary.json").unlink()
    (folder / "curves.png").unlink()
    assert run("--resume", folder) == 0
    assert_same(folder, whole)
    assert (folder / "curves.png").exists()
    assert json.loads((folder / "summary.json").read_text())["step"] == 60


@pytest.mark.slow
def test_the_same_command_begins_anew_what_has_not_measured_anything(whole, tmp_path, error_of):
    folder = tmp_path / "run"
    folder.mkdir()
    command = (*SETTINGS, *KEPT, "--out", str(folder))
    shutil.copy(whole / "config.json", folder)
    (folder / ".lock").touch()
    message = error_of(main, *command, "--lr", "0.5")
    assert (
        f"already holds a run: name a new one with --out, or go on with it by --resume {folder}"
        in (message)
    )
    assert run(*command) == 0
    assert_same(folder, whole)
    assert "already holds a run" in error_of(main, *command)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--resume {run} --lr 0.5", "--lr 0.5 isn't what {run!r} was begun with, 0.1: leave it"),
        ("--resume {run} --workers 11", "--workers 11 isn't what {run!r} was begun with, 10"),
        ("--resume {run}", "the run in {run!r} has finished its 60 steps"),
        ("--resume {run} --out x", "--resume goes on in the run's own folder: without --out"),
        ("--resume nowhere", "'nowhere' isn't the folder of a run with checkpoints"),
        ("--checkpoint-every 0", "'0' is not a whole number of at least 1"),
    ],
)
def test_mistakes_get_one_line(flags, message, whole, capsys):
    before = {x: x.is_file() and x.read_bytes() for x in whole.rglob("*")}
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_info:
        run(*(flag.format(run=whole) for flag in flags.split()))
    assert exit_info.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message.format(run=str(whole)) in error
    assert error.count("\n") == 1
    assert {x: x.is_file() and x.read_bytes() for x in whole.rglob("*")} == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("steps", "abc", "--steps: 'abc' is not a whole number of at least 0"),
        ("rule", 5, "--rule: unknown rule '5'"),
        ("colour", "red", "has a setting that runs don't have, 'colour'"),
    ],
)
def test_an_edited_configuration_gets_one_line(stopped, name, value, message, capsys):
    path = stopped / "config.json"
    record = json.loads(path.read_text())
    record["config"][name] = value
    path.write_text(json.dumps(record))
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_info:
        run("--resume", stopped)
    assert exit_info.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.slow
def test_what_does_not_fit_the_memory_leaves_what_was_there(stopped, tmp_path, monkeypatch, capsys):
    before = table(stopped), (stopped / "config.json").exists()

    def refuse(*_):
        raise ValueError("a step takes more than there is")

    monkeypatch.setattr(memory, "check_program", refuse)
    for arguments in (("--resume", stopped), (*SETTINGS, *KEPT, "--out", tmp_path / "new")):
        with pytest.raises(SystemExit) as exit_info:
            run(*arguments)
        assert exit_info.value.code == 2
        assert capsys.readouterr().err.startswith("error: a step takes more")
    assert (table(stopped), (stopped / "config.json").exists()) == before
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_two_processes_are_not_at_one_run(stopped, capsys):
    before = table(stopped)
    with alone_in(stopped), pytest.raises(SystemExit) as exit_info:
        run("--resume", stopped)
    assert exit_info.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: another process is at work in")
    assert error.count("\n") == 1
    assert table(stopped) == before

"""Writing and deleting stay in the folder of the run, whatever files there say."""

import json

import pytest

from medjax.lab.commands import run
from medjax.lab.commands.run import main
from medjax.lab.commands.sweep import main as sweep
from medjax.lab.storage import keeper, results

QUICK = ["--dataset", "digits", "--model", "logistic", "--rule", "mean", "--steps", "2"]


@pytest.fixture
def there(tmp_path, monkeypatch):
    """A folder to work in beside one that isn't to change; gives what is in the latter."""
    (tmp_path / "work").mkdir()
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/file").write_text("as it was")
    monkeypatch.chdir(tmp_path / "work")

    def there():
        assert {path.name for path in tmp_path.iterdir()} == {"work", "precious"}
        assert [path.name for path in (tmp_path / "precious").iterdir()] == ["file"]
        return (tmp_path / "precious/file").read_text()

    return there


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_a_resumed_run_writes_where_it_is(there, tmp_path, capsys):
    assert main([*QUICK, "--checkpoint-every", "1", "--out", "run"]) == 0
    record = json.loads((tmp_path / "work/run/config.json").read_text())
    # Moved, and its record changed to say that it is elsewhere.
    (tmp_path / "work/run").rename(tmp_path / "work/moved")
    record["folder"] = str(tmp_path / "precious")
    (tmp_path / "work/moved/config.json").write_text(json.dumps(record))
    assert there() == "as it was"
    with pytest.raises(SystemExit):
        main(["--resume", "moved"])
    assert "'moved' has finished its 2 steps" in capsys.readouterr().err
    assert {path.name for path in (tmp_path / "work").iterdir()} == {"moved"}
    assert there() == "as it was"


@pytest.mark.parametrize("name", ["out", "folder", "resume", "grid", "out\n", "OUT", "--out"])
def test_no_setting_of_a_record_names_a_folder(name, there, error_of):
    results.write_json(results.Path("run/config.json"), {
        "config": {"dataset": "idx:nowhere", name: "../precious"}, "checkpoint_every": 1,
    })  # fmt: skip
    error = error_of(main, "--resume", "run")
    assert "a setting that runs don't have" in error
    assert there() == "as it was"


@pytest.mark.parametrize("value", ["--out=../precious/x", "--out", "-h", "../precious/x"])
@pytest.mark.parametrize("key", ["rule", "dataset", "attack", "out", "--out"])
def test_no_value_of_a_grid_names_a_folder(key, value, there, error_of):
    results.write_text(results.Path("grid.toml"), f"{key} = ['sign', '{value}', '../precious/y']\n")
    error_of(sweep, "--grid", "grid.toml")
    assert there() == "as it was"
    assert [path.name for path in results.Path().iterdir()] == ["grid.toml"]


@pytest.mark.parametrize("folder", ["~", "~root", "~/x", "$HOME", "%TEMP%"])
@pytest.mark.usefixtures("no_pictures")
def test_a_folder_is_the_one_that_is_named(folder, there, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "precious"))
    columns = {"step": [0], "loss": [1.0]}
    results.write_table(results.Path(folder) / "t.parquet", columns)
    assert results.read_table(results.Path(folder) / "t.parquet").to_pydict() == columns
    assert there() == "as it was"


def test_giving_up_deletes_no_more_than_the_run_made(tmp_path):
    """A link in place of the checkpoints isn't followed, and what others put there stays."""
    folder, precious = tmp_path / "run", tmp_path / "precious"
    for path in (folder, precious):
        path.mkdir()
        (path / "config.json").write_text("{}")
    (folder / keeper.FOLDER).symlink_to(precious)
    run._give_up(folder)
    assert (precious / "config.json").exists()
    assert [x.name for x in folder.iterdir()] == [keeper.FOLDER]


def test_no_name_of_a_run_has_a_separator(there, error_of):
    # The default folder is named after the rule and its settings, which may be numbers alone.
    for rule in ("krum:num_neighbors=../../x", "centered_clipping:tau=1/2", "mean/../.."):
        error_of(main, *QUICK, "--rule", rule)
        error_of(sweep, *QUICK[:4], "--rule", rule)
    assert not list(results.Path().iterdir())
    assert there() == "as it was"

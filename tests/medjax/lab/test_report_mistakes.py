"""A report of what can't be shown gets one line, and nothing is half-written."""

import shutil

import pytest

from medjax.lab.commands.report import main
from medjax.lab.storage import results


@pytest.fixture(scope="module")
def folders(tmp_path_factory, make_run, make_sweep):
    """Two runs and a sweep."""
    base = tmp_path_factory.mktemp("folders")
    make_run(base / "sign", rule="sign")
    make_run(base / "noisy", rule="noisy_sign")
    make_sweep(base / "attacks", rule=["mean"], lr=[0.1, 0.3])
    return base


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", b"{", "config.json' can't be read"),
        ("config.json", b"[]", "it holds no JSON object"),
        ("config.json", b"{}", "doesn't hold a run or a sweep: it has no config.json"),
        (
            "config.json",
            b'{"x": 1}',
            "doesn't hold a run or a sweep: its config.json is of neither",
        ),
        ("config.json", b'{"config": 3}', "doesn't hold a run"),
        (
            "config.json",
            b'{"config": {"rule": "mean"}}',
            "doesn't hold a run: 'workers'",
        ),
        ("config.json", b'{"grid": "0"}', "can't be read"),
        ("metrics.parquet", b"PAR1 and nothing else PAR1", "doesn't hold a run"),
        ("metrics.parquet", b"", "doesn't hold a run"),
        ("summary.json", b"\xff", "summary.json' can't be read"),
    ],
)
def test_broken_runs(folders, tmp_path, name, content, message, error_of):
    shutil.copytree(folders / "sign", tmp_path / "run")
    (tmp_path / "run" / name).write_bytes(content)
    out = tmp_path / "page.html"
    assert message in error_of(
        main, str(folders / "noisy"), str(tmp_path / "run"), "--out", str(out)
    )
    assert not out.exists()


@pytest.mark.parametrize("table", ["results.parquet", "parts/0000-00000.parquet", "runs.parquet"])
@pytest.mark.parametrize("damage", ["cut", "of something else"])
def test_broken_sweeps(folders, tmp_path, table, damage, error_of):
    shutil.copytree(folders / "attacks", tmp_path / "sweep")
    if table != "results.parquet":
        (tmp_path / "sweep/results.parquet").unlink()
    path = tmp_path / "sweep" / table
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        results.write_table(path, {"x": ["y"]})
    out = tmp_path / "page.html"
    assert "'s files can't be read" in error_of(main, str(tmp_path / "sweep"), "--out", str(out))
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: DIR"),
        (["nowhere"], "'nowhere' isn't a folder"),
        (["{run}/.."], "it has no config.json, but folders in it have: name those, as in "),
        (["{run}", "{run}/."], "is there twice"),
        (["{run}", "--out", "page.txt"], "the name must end in .html"),
        (["{run}", "--out", "{run}/mine.html"], "is there, and isn't a page of this command"),
        (["{run}", "--out", "{run}/config.json/page.html"], "Not a directory"),
    ],
)
def test_mistakes(folders, arguments, message, error_of):
    mine = folders / "sign/mine.html"
    mine.write_text("mine")
    arguments = [argument.format(run=folders / "sign") for argument in arguments]
    assert message in error_of(main, *arguments)
    assert mine.read_text() == "mine"

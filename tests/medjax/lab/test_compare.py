"""Several runs in one picture, by command."""

import shutil

import pytest

from medjax.lab.commands.compare import main
from medjax.lab.settings.wording import labels
from medjax.lab.storage import results


@pytest.fixture(scope="module")
def runs(tmp_path_factory, make_run):
    base = tmp_path_factory.mktemp("runs")
    for rule in ("sign", "noisy_sign"):
        make_run(base / rule, rule=rule)
    return base


@pytest.mark.slow
@pytest.mark.parametrize(("suffix", "start"), [("png", b"\x89PNG"), ("pdf", b"%PDF")])
def test_picture_and_table(runs, suffix, start, tmp_path, capsys):
    out = tmp_path / f"picture.{suffix}"
    assert main([str(runs / "sign"), str(runs / "noisy_sign"), "--out", str(out)]) == 0
    assert out.read_bytes().startswith(start)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["run", "sign", "noisy_sign,"]


def test_labels_name_what_differs():
    base = {"rule": "noisy_sign", "b": 0.01, "noise": "normal", "lr": 0.1, "workers": 10}
    silent = base | {"rule": "sign", "b": None, "noise": None}
    assert labels([base, base | {"lr": 0.01}], ["a", "b"]) == [
        "noisy_sign, δ = 0.1",
        "noisy_sign, δ = 0.01",
    ]
    assert labels([base, silent], ["a", "b"]) == ["noisy_sign, b = 0.01", "sign"]
    assert labels([base], ["a"]) == ["noisy_sign"]
    assert labels([base, base], ["a", "b"]) == ["noisy_sign (a)", "noisy_sign (b)"]
    trimmed = base | {"rule": "trimmed_mean", "declared_byzantine": 1}
    other = trimmed | {"declared_byzantine": 3}
    assert labels([trimmed, other], ["a", "b"]) == ["trimmed_mean, f = 1", "trimmed_mean, f = 3"]


def test_sweep_is_for_a_report(make_sweep, tmp_path, error_of):
    make_sweep(tmp_path / "sweep", rule=["mean"], seed=[0, 1])
    message = error_of(main, str(tmp_path / "sweep"), "--out", str(tmp_path / "picture.png"))
    assert "it holds a sweep, of which `medjax report` makes a page" in message


def test_run_without_a_metric_is_refused(runs, tmp_path, error_of):
    (tmp_path / "config.json").write_bytes((runs / "sign/config.json").read_bytes())
    results.write_table(tmp_path / "metrics.parquet", {"step": [0], "train_loss": [1.0]})
    message = error_of(main, str(tmp_path), "--out", str(tmp_path / "picture.png"))
    assert "lacks grad_norm, median_mean_gap, test_accuracy" in message


@pytest.mark.slow
def test_names_are_shown_as_they_are_and_differ(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folders = ["[bold]/run", "[red]/run"]
    for folder in folders:
        shutil.copytree(runs / "sign", folder)
    # Neither brackets nor $ are markup.
    assert main([*folders, "--out", "picture.png", "--title", "$\\foo$ costs $5"]) == 0
    printed = capsys.readouterr().out
    assert "sign ([bold]/run)" in printed
    assert "sign ([red]/run)" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "'nowhere' doesn't hold a run"),
        ([], "required: DIR"),
        (["x", "--out", "picture.exe"], "must end in .png, .svg or .pdf"),
    ],
)
def test_mistakes(arguments, message, error_of):
    assert message in error_of(main, *arguments)


def test_picture_that_cannot_be_written(runs, error_of):
    message = error_of(main, str(runs / "sign"), "--out", "/proc/nowhere/picture.png")
    assert "No such file or directory" in message


@pytest.mark.slow
def test_a_full_disk_leaves_the_old_picture(runs, tmp_path, full_disk, capsys):
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"old")
    full_disk()
    assert main([str(runs / "sign"), "--out", str(picture)]) == 1
    assert capsys.readouterr().err == f"error: {picture}: No space left on device\n"
    assert picture.read_bytes() == b"old"
    assert [x.name for x in tmp_path.iterdir()] == ["picture.png"]

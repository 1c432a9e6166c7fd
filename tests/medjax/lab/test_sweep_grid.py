"""Grids: what runs they have, and what is said of those that aren't meant."""

import pytest

from medjax.lab.commands.sweep import main
from medjax.lab.settings import cli, wording
from medjax.lab.sweeps import grid


def runs_of(*argv, file=None, tmp_path=None):
    parser = cli.Parser("sweep", "")
    grid.add_grid_options(parser)
    arguments, axes = grid.read_axes(parser, argv)
    return grid.expand(axes, yes=arguments.yes)


def test_all_combinations():
    runs = runs_of("--b", "0", "1e-3", "--lr", "0.1", "0.01", "--seeds", "3", "--workers", "10")
    assert [(run.b, run.lr, run.seed) for run in runs] == [
        (b, lr, seed) for lr in (0.1, 0.01) for b in (0.0, 1e-3) for seed in (0, 1, 2)
    ]
    assert {str(run.rule) for run in runs} == {"noisy_sign"}
    assert {run.validation for run in runs} == {0.1}


def test_a_setting_is_left_out_where_it_does_not_apply():
    runs = runs_of("--rule", "sign", "noisy_sign", "median", "--b", "0", "0.1", "--noise", "normal")
    assert [(str(run.rule), run.b, str(run.noise), run.tie) for run in runs] == [
        ("sign", None, "None", "zero"),
        ("noisy_sign", 0.0, "normal", "zero"),
        ("noisy_sign", 0.1, "normal", "zero"),
        ("median", None, "None", None),
    ]
    # So b tells the runs apart, and the kind of noise or vote doesn't.
    assert grid.varied(runs) == ["rule", "lr", "b", "noise", "zero", "tie", "worker_chunk"]
    assert wording.telling([vars(run) for run in runs]) == ["rule", "lr", "b"]


def test_defaults_depend_on_the_combination():
    runs = runs_of("--rule", "sign", "mean", "--steps", "100", "4000")
    assert {(str(run.rule), run.lr) for run in runs} == {("sign", 0.003), ("mean", 0.1)}
    assert {(run.steps, run.eval_every) for run in runs} == {(100, 2), (4000, 100)}


def test_file_says_the_same_as_the_command_line(tmp_path):
    path = tmp_path / "grid.toml"
    path.write_text(
        'rule = ["sign", "noisy_sign"]\nb = [0, 1e-5, 0.1]\nseeds = 2\n'
        'classes-per-worker = 2\nbatch_size = ["full", 8]\nworkers = 5\n'
    )
    line = "--rule sign noisy_sign --b 0 1e-5 0.1 --seeds 2 --classes-per-worker 2 --workers 5"
    assert runs_of("--grid", str(path)) == runs_of(*line.split(), "--batch-size", "full", "8")
    more = runs_of("--grid", str(path), "--lr", "0.1", "0.2")
    assert len(more) == 2 * len(runs_of("--grid", str(path)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--b -1", "--b: '-1' is not a finite number of at least 0"),
        ("--b 0 1e-3 nan", "--b: 'nan' is not a finite number"),
        ("--b", "--b: expected at least one argument"),
        ("--bee 1 2", "unrecognized arguments: --bee 1 2"),
        ("--rule sign noisy_sing", "unknown rule 'noisy_sing': did you mean 'noisy_sign'?"),
        ("--lr 0.1 0.1", "--lr: 0.1 is there twice"),
        ("--lr 0.1 --lr 0.2", "--lr: given twice: name all its values at once"),
        ("--seed 1 2 --seeds 3", "--seed and --seeds both name the seeds"),
        ("--seeds 0", "--seeds: '0' is not a whole number of at least 1"),
        ("--rule sign median --b 0 1", "--b 0.0 goes only with a noisy rule"),
        ("--alpha 0.1 1", "--alpha 0.1 goes only with --partition dirichlet"),
        ("--seeds 1000000", "up to 1,000,000 runs: add --yes"),
        ("--seeds 1000 --lr 0.1 0.2 --b 1 2 3 4 5 6", "up to 12,000 runs: add --yes"),
        ("--workers 10 5", "cover at most 5 of the 10 classes"),
        ("--batch-size 8 100000", "batch size 100000 is more than the"),
        ("--dataset digits mnits", "unknown dataset 'mnits'"),
        (
            "--rule noisy_mean --b theory",
            "--b theory goes only with --rule noisy_median, noisy_sign",
        ),
        ("--validation 1", "'1' is not a finite number of at least 0 and below 1"),
        ("--dataset digits --validation 0.001", "a validation part of 0.001 is 0 of the"),
        ("--examples-per-worker 9999", "9999 examples per worker are more than the"),
        ("--lr-schedule 10:2,5:3", "'10:2,5:3': each step must be after the one before it"),
        ("--lr-schedule 1:2,1:4", "'1:2,1:4': each step must be after the one before it"),
        ("--lr-schedule 10", "'10' is no schedule ('' is not a finite number above 0); valid: con"),
        ("--lr-schedule 4294967296:2", "'4294967296' is not a whole number of at least 0 and bel"),
        ("--lr-schedule warmup:0", "'warmup:0' is no schedule ('0' is not a whole number of at l"),
        ("--lr-schedule cosine,5:2", "'cosine,5:2' is no schedule ('cosine' is not a whole numb"),
        ("--lr-schedule cosine,warmup:5", "'cosine,warmup:5' is no schedule"),
        ("--lr-schedule constant warm:5", "'warm:5' is no schedule ('warm' is not a whole number"),
        ("--grid nowhere.toml", "grid file 'nowhere.toml': no such file"),
    ],
)
def test_mistake_gets_one_clear_line(arguments, message, error_of, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base = [] if "--dataset" in arguments else ["--dataset", "digits"]
    assert message in error_of(main, *base, "--model", "logistic", *arguments.split())
    assert not list(tmp_path.iterdir()), "a mistake leaves nothing behind"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("b = []", "b = []; valid: a number, a name, or a list of them"),
        ("b = [true]", "b = [True]; valid"),
        ("b = [[0, 1]]", "b = [[0, 1]]; valid"),
        ("lr = [0.1, -1]", "--lr: '-1' is not a finite number above 0"),
        ("mode = 1", "unknown setting 'mode': did you mean 'model'?"),
        ("out = 'x'", "unknown setting 'out'"),
        ("workers = [10", "isn't TOML"),
        ("steps = [1, 2]", "--steps is both on the command line and in the grid file"),
    ],
)
def test_mistake_in_a_file(content, message, error_of, tmp_path):
    (tmp_path / "grid.toml").write_text(content)
    error = error_of(main, "--grid", str(tmp_path / "grid.toml"), "--steps", "3")
    assert message in error


@pytest.mark.slow
def test_so_many_runs_when_they_are_meant():
    assert len(runs_of("--seeds", "10001", "--yes")) == 10_001

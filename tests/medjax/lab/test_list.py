"""What `python -m experiments.list` says of every name, against the tables and the papers."""

import inspect
import re

import pytest

from medjax.lab.commands.list import KINDS, main, row
from medjax.lab.settings.cli import Parser
from medjax.lab.settings.flags import add_settings
from medjax.lab.settings.rules import RULE_TABLE

NAMES = [(kind, name) for kind in KINDS for name in KINDS[kind].table]
OF_KIND = {
    kind: pytest.mark.parametrize("name", KINDS[kind].table)
    for kind in ("rules", "algorithms", "mixings", "attacks", "compressors")
}


def printed(capsys, *arguments):
    assert main(list(arguments)) == 0
    return capsys.readouterr().out


@pytest.fixture
def lines(capsys):
    """By kind's flag and name, what is printed of all names where nobody looks at it."""
    found, flag = {}, ""
    for line in printed(capsys).splitlines():
        if line.startswith("--"):
            flag = line.split()[0]
        elif line.strip():
            found[flag, line.split()[0]] = line
    return found


def test_every_name_has_a_line(lines):
    for kind, name in NAMES:
        line = lines[KINDS[kind].flag, name]
        assert all(cell in line for cell in row(KINDS[kind], name)[2:])


def test_every_name_of_the_command_line_is_there():
    # What the flags' help lists: all that their types take, noisy rules apart.
    parser = Parser("", "")
    add_settings(parser)
    flags = {flag: action for action in parser._actions for flag in action.option_strings}
    for kind in KINDS.values():
        for name in kind.table:
            assert name in (flags[kind.flag].help or "")
    assert set(KINDS["rules"].table) == set(RULE_TABLE)
    assert set(KINDS) == {
        *("rules", "algorithms", "topologies", "mixings", "attacks", "compressors", "servers"),
        *("partitions", "noises", "models", "datasets", "augmentations"),
    }


@pytest.mark.parametrize(("kind", "name"), NAMES)
def test_every_name_is_described(kind, name):
    _, _, what, *_ = row(KINDS[kind], name)
    assert len(what) > 20
    assert what[-1] in ".:"
    assert "(" not in what or what.count("(") == what.count(")")


@pytest.mark.parametrize(
    ("kind", "name"), [(k, name) for k, name in NAMES if k in OF_KIND], ids=lambda x: x
)
def test_every_method_has_a_source(kind, name):
    source = row(KINDS[kind], name)[-1]
    assert source
    for one in source.split("; "):
        authors, year = one.rsplit(", ", 1)
        assert authors[0].isupper()
        assert 1980 <= int(year) <= 2026


@pytest.mark.parametrize(
    ("kind", "name", "cells"),
    # As in the papers, and in medjax's README.
    [
        ("rules", "sign", ("Additive", "--zero zero, --tie zero", "", "Bernstein et al., 2018")),
        ("rules", "trimmed_mean", ("CoordinateWise", "", "2f < n", "Yin et al., 2018")),
        (
            "rules",
            "multi_krum",
            (
                "Geometric",
                "num_selected=none, num_neighbors=none",
                "2f < n, m ≤ n, k < n",
                "Blanchard et al., 2017",
            ),
        ),
        (
            "rules",
            "centered_clipping_from_last",
            ("stateful", "tau=VALUE, num_steps=1", "", "Karimireddy et al., 2021"),
        ),
        ("rules", "cge", ("Geometric", "", "f < n", "Gupta, Liu and Vaidya, 2020")),
        ("rules", "bulyan", ("Selected", "", "n ≥ 4f + 3", "El Mhamdi et al., 2018")),
        ("rules", "mda", ("Geometric", "", "2f < n", "Rousseeuw, 1985; El Mhamdi et al., 2018")),
        ("rules", "clipped_clustering", ("Geometric", "", "n ≥ 2", "Li, Ngai and Voigt, 2023")),
        ("mixings", "bucketing", ("Mixing", "bucket_size=2", "s ≤ n", "Karimireddy et al., 2022")),
        ("mixings", "clip", ("Mixing", "max_norm=VALUE", "", "Pascanu et al., 2013")),
        ("attacks", "alie", ("Attack", "tau=1.5", "", "Baruch et al., 2019")),
        (
            "attacks",
            "label_flip",
            ("DataAttack", "", "", "Fang et al., 2020; Karimireddy et al., 2022"),
        ),
        (
            "compressors",
            "top_k",
            ("Compressor", "k=none, fraction=none", "k ≤ d", "Stich et al., 2018"),
        ),
        ("partitions", "dirichlet", ("Partition", "--alpha 0.1", "", None)),
        ("noises", "student_t", ("Noise", "--df 5", "", "Bailey, 1994")),
        ("models", "resnet20", ("", "", "", "He et al., 2016")),
    ],
)
def test_cells(kind, name, cells):
    _, family, _, *others = row(KINDS[kind], name)
    for actual, expected in zip((family, *others), cells, strict=True):
        assert expected in (actual, None)


def test_description_is_the_docstrings_first_sentence_without_the_source():
    assert row(KINDS["attacks"], "ipm")[2] == "Inner product manipulation: -τμ."


@pytest.mark.parametrize(
    ("kind", "name"),
    [(k, name) for k, name in NAMES if k in OF_KIND or k == "servers"],
    ids=lambda x: x,
)
def test_every_method_has_a_formula(kind, name):
    words_alone = {"nonfinite", "backdoor"}
    what = row(KINDS[kind], name)[2]
    formula = re.search(r"[=←→Σ±·∈μγ‖√]|x_worker|N\(0, |x_\(|/B", what)
    assert (formula is None) == (name in words_alone)


def test_formula_that_stands_by_itself_is_shown(capsys):
    what = "The mean of the n - f vectors nearest to x_reference, itself included."
    formula = (
        "(1/(n - f)) Σ_{i ∈ S} x_i, S = the indices of the n - f smallest ‖x_i - x_reference‖."
    )
    assert row(KINDS["rules"], "monna")[2] == f"{what} {formula}"
    assert f"{what}\n\n    {formula}\n\nIt is a step" in printed(capsys, "monna")


def test_kind_alone(capsys):
    text = printed(capsys, "--kind", "mixings")
    assert text.startswith("--mix NAME (several are joined by +)")
    assert len(text.strip().splitlines()) == 2 + len(KINDS["mixings"].table)


def test_one_name_is_explained(capsys):
    text = printed(capsys, "centered_clipping")
    factory = RULE_TABLE["centered_clipping"]
    assert text.startswith("--rule centered_clipping:tau=VALUE,num_steps=1\n\n")
    assert inspect.getdoc(factory) in text
    assert printed(capsys, "student_t").startswith("--noise student_t --df 5\n")


def test_noisy_rule_is_explained(capsys):
    text = printed(capsys, "noisy_median")
    assert text.startswith("--rule noisy_median\n\nb·ξ is added to every local gradient first.\n")
    assert "The coordinate-wise median" in text


def test_name_of_several_kinds(capsys):
    text = printed(capsys, "sign")
    assert "--rule sign --zero zero --tie zero\n" in text
    assert "--compress sign:zero=plus\n" in text
    assert "--rule" not in printed(capsys, "sign", "--kind", "compressors")


def test_terminal_gets_two_columns(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "70")
    text = re.sub("\x1b\\[.*?m", "", printed(capsys, "--kind", "attacks"))
    assert all(len(line) <= 70 for line in text.splitlines())
    assert "alie               A little is enough: μ + τσ." in text
    assert "Attack; tau=1.5; Baruch et al., 2019" in text
    # Of servers all are of one family, which isn't told.
    assert "GradientTransformation" not in printed(capsys, "--kind", "servers")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "--kind rulez",
            "unknown kind 'rulez': did you mean 'rules'? valid: rules, algorithms, topologies",
        ),
        ("kurm", "unknown name 'kurm': did you mean 'krum'? valid: mean, median, sign"),
        ("krum --kind attacks", "unknown name 'krum': valid: sign_flip, ipm"),
        ("krum alie", "unrecognized arguments: alie"),
    ],
)
def test_mistake_gets_one_clear_line(arguments, message, error_of):
    assert message in error_of(main, *arguments.split())

"""Every Python snippet of the README runs as it stands, and every command of the docs exists."""

import re
import shlex
from pathlib import Path

import pytest
from medjax.lab.settings.options import add_options, add_out

from experiments.paper.__main__ import EXPERIMENTS as EXPERIMENTS_OF_THE_PAPER
from medjax.lab.machine.devices import add_machine
from medjax.lab.machine.processes import add_processes
from medjax.lab.settings import cli
from medjax.lab.settings.config import RunConfig, resolve
from medjax.lab.storage.checkpoints import add_checkpoints
from medjax.lab.sweep import grid

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXPERIMENTS = (ROOT / "experiments/README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
COMMANDS = re.findall(r"python -m experiments\.run(.*)$", README, re.MULTILINE)
SWEEPS = re.findall(r"python -m experiments\.sweep( --.*)$", README + EXPERIMENTS, re.MULTILINE)
for page in sorted((ROOT / "docs").rglob("*.md")):
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    COMMANDS += re.findall(r"python -m experiments\.run(.*)$", text, re.MULTILINE)
PAPER = re.findall(r"python -m experiments\.paper ([a-z0-9-]+)", README + EXPERIMENTS)


def test_optax_example_trains(output_of):
    (snippet,) = (s for s in SNIPPETS if "medjax.perturb" in s)
    loss = float(re.fullmatch(r"loss (\d\.\d+)\n", output_of(snippet))[1])
    assert loss < 0.2  # from ln 10 = 2.303, where 1.76 is as far as it comes without noise


def test_rule_example(output_of):
    (snippet,) = (s for s in SNIPPETS if "rules.median()(" in s)
    assert output_of(snippet) == "[2. 5.]\n"


def test_grid_example(output_of):
    (snippet,) = (s for s in SNIPPETS if "jax.vmap(jax.vmap" in s)
    grid = [float(x) for x in output_of(snippet).strip("[]\n").split()]
    # 2 without noise; 13/3 - 1.16 and 13/3 - 0.172 by quadrature for b = 3 and 10. The variance of
    # the median of three is at most b², so x's about δ/2 · b² = 0.5 for b = 10, correlated over
    # 1/δ = 100 steps: the average of 4 runs of 19,000 steps is good to 0.05.
    assert grid == pytest.approx([2, 3.17, 4.161], abs=0.15)


def test_attack_example(output_of):
    (snippet,) = (s for s in SNIPPETS if "medjax.attack" in s)
    robust, average = (float(x) for x in output_of(snippet).split(", "))
    # With x's distance r from the honest mean: the mean of 16 honest and 4 forged vectors is
    # (16 - 40)/20 of the honest one, so that r grows by about 1 + 0.1 · 1.2 a step (less at first,
    # with the momentum), from √50 = 7.
    assert average > 1e4
    # Honest workers' optima have a standard deviation of 0.1 in 50 coordinates: their average over
    # the 16 that nearest-neighbour mixing takes can't be farther off than one of them, 0.1 · √50.
    assert robust < 0.71


def test_every_snippet_is_tested():
    assert len(SNIPPETS) == 4


# The medoid is only there once the reader of docs/first-study.md has added it: see test_docs.py.
@pytest.mark.parametrize("command", [c for c in COMMANDS if not re.search("--help|medoid", c)])
def test_run_commands_parse(command):
    arguments = shlex.split(command.split("#")[0].split("&&")[0].strip("` "))
    parser = cli.Parser("run", "")
    add_options(parser)
    add_machine(parser)
    add_processes(parser)
    add_checkpoints(parser)
    add_out(parser)
    resolve(parser.parse_args(arguments))


def grid_of(*arguments: str) -> list[RunConfig]:
    parser = cli.Parser("sweep", "")
    grid.add_grid_options(parser)
    add_machine(parser)
    return grid.expand(grid.read_axes(parser, arguments)[1])


def test_sweeps_are_those_that_they_seem(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (toml,) = re.findall(r"```toml\n(.*?)```", EXPERIMENTS, re.DOTALL)
    Path("grid.toml").write_text(toml, encoding="utf-8")
    assert len(SWEEPS) == 6
    attacks, first, spread, *others, strengths = (
        grid_of(*shlex.split(command)) for command in SWEEPS
    )
    # Two rules, with and without a mixing, under two attacks and none, of two numbers of workers.
    assert len(attacks) == 2 * 2 * 3 * 2
    # Five seeds and two step sizes, of sign and of noisy_sign with three values of b.
    assert len(first) == 5 * 2 * (1 + 3)
    assert others == [first, first]
    # Five seeds, with and without a mixing, of three strengths of an attack.
    assert len(strengths) == 5 * 2 * 3
    # Four seeds of three values of b.
    assert len(spread) == 4 * 3


def test_experiments_of_the_paper_exist():
    assert set(PAPER) <= {*EXPERIMENTS_OF_THE_PAPER, "all"}


def test_pictures_exist():
    for text, folder in ((README, ROOT), (EXPERIMENTS, ROOT / "experiments")):
        for picture in re.findall(r"!\[.*?\]\((.*?)\)", text):
            assert (folder / picture).is_file(), picture

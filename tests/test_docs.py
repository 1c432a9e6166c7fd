"""The documentation: its examples do what it says."""

import importlib
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType

import pytest

from experiments.paper.__main__ import EXPERIMENTS as FIGURES
from medjax.lab import console
from medjax.lab.commands import list as listing
from medjax.lab.commands import run, sweep
from medjax.lab.settings import flags
from medjax.lab.settings.config import Settings, resolve
from medjax.lab.sweeps import grid

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
NUMBER = r"-?\d+(?:\.\d*)?"


def settings_of(command: str, arguments: list[str]) -> list[Settings]:
    """Read the settings of a run, or of a sweep's runs, as the command does."""
    if command == "sweep":
        return grid.expand(grid.read_axes(sweep.make_parser(), arguments)[1])
    return [resolve(flags.given(run.make_parser().parse_args(arguments)))]


def shell_lines(page: Path) -> list[str]:
    """Return the lines of the page's blocks of bash, without comments."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = re.findall(r"^ *```bash\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    return [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]


def commands(page: Path) -> list[tuple[str, str]]:
    """Return the page's commands: `medjax run` or a module, and the arguments."""
    pattern = r"\b(medjax (?:run|sweep|compare|report|list|reproduce)|python -m \w+\.\w+)\b(.*)"
    return [
        (found[1].removeprefix("python -m "), " ".join(found[2].split()))
        for line in shell_lines(page)
        for found in re.finditer(pattern, line)
    ]


def files(page: Path) -> dict[str, str]:
    """Return the files that a reader of the page is to save, each with its text."""
    text = page.read_text(encoding="utf-8")
    return dict(re.findall(r"ave this as `(\w+\.py)`:\n\n```python\n(.*?)```", text, re.DOTALL))


def snippets(page: Path) -> list[tuple[str, str]]:
    """Return the page's Python, without its files: blocks, each with the output below it, or ''."""
    text = page.read_text(encoding="utf-8")
    pattern = r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?"
    blocks = re.findall(pattern, text, re.DOTALL)
    return [block for block in blocks if block[0] not in files(page).values()]


COMMANDS = sorted({c for page in [*PAGES, ROOT / "README.md"] for c in commands(page)})
OWN_PARTS = DOCS / "write-your-own/on-the-command-line.md"
FIRST_STUDY = DOCS / "first-study.md"


@pytest.fixture
def own_files(tmp_path, monkeypatch):
    """A folder with the files that the pages tell their readers to save."""
    monkeypatch.chdir(tmp_path)
    for page in (OWN_PARTS, FIRST_STUDY):
        for name, text in files(page).items():
            Path(name).write_text(text, encoding="utf-8")
    text = (DOCS / "how-to/sweeps.md").read_text(encoding="utf-8")
    (toml,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    Path("grid.toml").write_text(toml, encoding="utf-8")


@pytest.mark.slow
@pytest.mark.promotes
@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("page", [p for p in PAGES if snippets(p)], ids=lambda p: p.stem)
def test_python_prints_what_stands_below(page, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, shown = zip(*snippets(page), strict=True)
    module = ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)  # where a class of the page looks for itself
    exec("\n".join(code), vars(module))
    printed = capsys.readouterr().out
    assert re.sub(NUMBER, "#", printed) == re.sub(NUMBER, "#", "".join(shown))
    numbers = [[float(x) for x in re.findall(NUMBER, s)] for s in (printed, "".join(shown))]
    assert numbers[0] == pytest.approx(numbers[1], abs=0.02)


def test_training_loop_shows_the_truth():
    votes, rule, grid = (shown for _, shown in snippets(DOCS / "how-to/training-loop.md"))
    without, noisy = (float(x) for x in votes.split(", "))
    assert noisy < 0.2 < 1.5 < without < 2.303  # which is ln 10, where they start
    assert rule == "[2. 5.]\n"
    # 2 without noise; 13/3 - 1.16 and 13/3 - 0.172 by quadrature for b = 3 and 10. The variance of
    # the median of three is at most b², so x's about δ/2 · b² = 0.5 for b = 10, correlated over
    # 1/δ = 100 steps: the average of 4 runs of 19,000 steps is good to 0.05.
    assert [float(x) for x in grid.strip("[]\n").split()] == pytest.approx(
        [2, 3.17, 4.161], abs=0.15
    )


def test_the_field_shows_the_truth():
    ((_, shown),) = snippets(DOCS / "how-to/field.md")
    robust, average = (float(x) for x in shown.split(", "))
    # With x's distance r from the honest mean: the mean of 16 honest and 4 forged vectors is
    # (16 - 40)/20 of the honest one, so that r grows by about 1 + 0.1 · 1.2 a step (less at first,
    # with the momentum), from √50 = 7.
    assert average > 1e4
    # Honest workers' optima have a standard deviation of 0.1 in 50 coordinates: their average over
    # the 16 that nearest-neighbour mixing takes can't be farther off than one of them, 0.1 · √50.
    assert robust < 0.71


# test_contributing.py adds the names that contributing.md speaks of.
@pytest.mark.parametrize(
    ("command", "arguments"),
    [c for c in COMMANDS if "noisy_medoid" not in c[1]],
)
def test_commands_parse(command, arguments, own_files, capsys):
    words = shlex.split(arguments)
    name = command.removeprefix("medjax ").removeprefix("experiments.")
    if name in ("run", "sweep"):
        assert settings_of(name, words)
        return
    if command.startswith("medjax "):
        main, words = console.main, [name, *words]
    else:
        assert name != "paper" or words[0] in {*FIGURES, "all"}
        module = importlib.import_module(command)
        main = getattr(module, "main", None) or importlib.import_module(f"{command}.__main__").main
    with pytest.raises(SystemExit):
        main([name, "--help"] if command.startswith("medjax ") else ["--help"])
    flags = {word for word in words if word.startswith("--")}
    assert flags - set(re.findall(r"--[\w-]+", capsys.readouterr().out)) == set()


def test_commands_are_found():
    assert {f"medjax {name}" for name in console.COMMANDS} <= {name for name, _ in COMMANDS}
    assert len(COMMANDS) > 50


def test_sweeps_are_those_that_they_seem(own_files):
    def sizes(page: str) -> list[int]:
        found = [shlex.split(c[1]) for c in commands(DOCS / page) if c[0] == "medjax sweep"]
        return [len(settings_of("sweep", words)) for words in found]

    # Two rules, with and without a mixing, under two attacks and none, of two numbers of workers.
    assert sizes("how-to/field.md") == [2 * 2 * 3 * 2]
    # Five seeds and two step sizes, of sign and of noisy_sign with three values of b.
    assert sizes("how-to/sweeps.md") == 2 * [5 * 2 * (1 + 3)]
    # Twenty seeds of three values of b, twice, and those of the grid above.
    assert sizes("how-to/cluster.md") == [20 * 3, 20 * 3, 5 * 2 * (1 + 3)]
    # Five seeds, with and without a mixing, of three strengths of an attack.
    assert sizes("studies/robustness.md") == [5 * 2 * 3]
    # Four seeds of three values of b.
    assert sizes("how-to/devices.md") == [4 * 3]


@pytest.mark.slow
@pytest.mark.promotes
@pytest.mark.usefixtures("no_pictures")
def test_first_study(own_files, capsys):
    done = []
    for command, arguments in commands(FIRST_STUDY):
        name = command.removeprefix("medjax ")
        words = shlex.split(re.sub(r"--steps \d+", "--steps 2", arguments))
        assert console.main([name, *words]) == 0
        done.append((name, words))
    assert [name for name, _ in done] == ["run", "run", "compare", "run", "sweep", "report"]
    assert "medoid" in capsys.readouterr().out
    assert all(Path(words[words.index("--out") + 1]).exists() for _, words in done)


@pytest.mark.slow
@pytest.mark.promotes
@pytest.mark.usefixtures("no_pictures")
def test_own_parts_run(own_files):
    quick = {"--model": "logistic", "--dataset": "digits", "--steps": "2"}
    runs = [shlex.split(x) for command, x in commands(OWN_PARTS) if command == "medjax run"]
    assert len(runs) == 6
    for words in runs:
        others = [x for flag, value in quick.items() if flag not in words for x in (flag, value)]
        assert console.main(["run", *words, *others]) == 0


def test_page_of_the_settings_is_what_their_declarations_say(capsys):
    assert listing.main(["--kind", "settings"]) == 0
    printed = "\n".join(line.rstrip() for line in capsys.readouterr().out.strip().splitlines())
    (shown,) = re.findall(
        r"```text\n(.*?)\n```", (DOCS / "reference/settings.md").read_text(), re.DOTALL
    )
    assert shown == printed, "medjax list --kind settings prints the page's block"

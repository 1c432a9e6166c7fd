"""The documentation: the site builds, has every public name, and its examples do what it says."""

import ast
import importlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from medjax import rules
from medjax.lab.settings import algorithms

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").rglob("*.md"))
FIRST_STUDY = (ROOT / "docs/first-study.md").read_text(encoding="utf-8").replace("\\\n", " ")
COMMANDS = re.findall(r"^python -m (experiments\.\w+) ?(.*)$", FIRST_STUDY, re.MULTILINE)
NUMBER = r"-?\d+(?:\.\d*)?"


class Tags(HTMLParser):
    """The attributes of every tag of a page."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The pages as they are published; a warning fails."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {page.relative_to(out): Tags(page).found for page in out.rglob("*.html")}


def public_names(module: Path) -> Iterator[str]:
    """What a module defines, or imports under its own name to be had from it (PEP 484)."""
    for node in ast.parse(module.read_text(encoding="utf-8")).body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                names = [name]
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                names = [name]
            case ast.ImportFrom(module=origin, names=imported):
                names = [x.name for x in imported if x.name == x.asname and origin != "medjax"]
            case _:
                names = []
        yield from (name for name in names if not name.startswith("_"))


def test_every_public_name_is_in_the_reference(site):
    documented = {tag.get("id") for page in site.values() for _, tag in page}
    modules = [path for path in (ROOT / "medjax").glob("[a-z]*.py")]
    modules += (ROOT / "medjax").glob("*/__init__.py")
    names = {
        f"medjax.{path.parent.name if path.name == '__init__.py' else path.stem}.{name}"
        for path in modules
        if not path.parent.name.startswith("_")
        for name in public_names(path)
    }
    names |= {f"medjax.{name}" for name in public_names(ROOT / "medjax/__init__.py")}
    assert names - documented == set()
    assert {"medjax.simulate", "medjax.rules.krum", "medjax.theory.median_gap"} - names == set()


def test_pages_need_no_other_host(site):
    assert len(site) > 20
    for page, tags in site.items():
        for tag, attributes in tags:
            loaded = [attributes.get("src")] + [attributes.get("href")] * (tag == "link")
            for address in filter(None, loaded):
                assert not re.match(r"(\w+:)?//", address), (page, address)


def test_what_is_included_is_there():
    """The plugin says nothing where it isn't."""
    directives = [
        (page, file, delimiter.replace("\\n", "\n"))
        for page in PAGES
        for file, settings in re.findall(
            r'{% include-markdown "(.+?)" (.+) %}', page.read_text("utf-8")
        )
        for delimiter in re.findall(r'(?:start|end)="(.+?)"', settings)
    ]
    assert len(directives) > 20
    for page, file, delimiter in directives:
        found = (page.parent / file).read_text(encoding="utf-8").count(delimiter)
        assert found == 1, (page.name, file, delimiter)


def snippets(page: Path) -> list[tuple[str, str]]:
    """Blocks of Python, each with the block of output below it, or nothing."""
    text = page.read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", text, re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if snippets(p)], ids=lambda p: p.stem)
def test_python_prints_what_stands_below(page, output_of):
    code, shown = zip(*snippets(page), strict=True)
    printed = output_of("\n".join(code))
    assert re.sub(NUMBER, "#", printed) == re.sub(NUMBER, "#", "".join(shown))
    numbers = [[float(x) for x in re.findall(NUMBER, s)] for s in (printed, "".join(shown))]
    assert numbers[0] == pytest.approx(numbers[1], abs=0.02)


@pytest.fixture
def medoid(monkeypatch):
    """The rule of the first study, where it says."""
    names = {}
    blocks = snippets(ROOT / "docs/write-your-own/rule.md")
    exec(next(code for code, _ in blocks if "def medoid()" in code), names)
    monkeypatch.setitem(rules.RULES, "medoid", names["medoid"])
    monkeypatch.setitem(algorithms.RULE_TABLE, "medoid", names["medoid"])


@pytest.mark.slow
def test_first_study(medoid, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, flags in COMMANDS:
        arguments = shlex.split(re.sub(r"--steps \d+", "--steps 2", flags))
        module = importlib.import_module(name)
        if not hasattr(module, "main"):
            module = importlib.import_module(f"{name}.__main__")
        assert module.main(arguments) == 0
    assert "medoid" in capsys.readouterr().out
    written = [re.search(r"--out (\S+)", flags) for _, flags in COMMANDS]
    assert all(Path(out[1]).exists() for out in written if out)
    assert len(COMMANDS) == 7

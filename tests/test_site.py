"""The site: both generators build it, with every public name and every picture."""

import ast
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PICTURES = {".png", ".svg", ".jpg", ".gif"}


class Tags(HTMLParser):
    """The attributes of every tag of a page."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


@pytest.fixture(scope="module", params=["mkdocs", "zensical"])
def site(request, tmp_path_factory):
    """The pages as they are published; a warning fails, such as a link or a picture to nowhere."""
    folder = tmp_path_factory.mktemp("site")  # Zensical writes only beside what it reads
    shutil.copy(ROOT / "mkdocs.yml", folder)
    shutil.copytree(DOCS, folder / "docs", ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run(
        [sys.executable, "-m", request.param, "build", "--strict"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {page: Tags(page).found for page in (folder / "site").rglob("*.html")}


def public_names(module: Path) -> Iterator[str]:
    """Yield what a module defines, or imports under its own name to be had from it (PEP 484)."""
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_pages_need_no_other_host(site):
    assert len(site) > 20
    for page, tags in site.items():
        for tag, attributes in tags:
            loaded = [attributes.get("src")] + [attributes.get("href")] * (tag == "link")
            for address in filter(None, loaded):
                assert not re.match(r"(\w+:)?//", address), (page, address)


@pytest.mark.slow
def test_pictures_exist(site):
    pictures = [
        page.parent / attributes["src"]
        for page, tags in site.items()
        for tag, attributes in tags
        if tag == "img" and page.name != "404.html"
    ]
    assert len(pictures) > 10
    assert [picture for picture in pictures if not picture.is_file()] == []


@pytest.mark.slow
def test_search_finds_functions(site):
    (home,) = (page for page in site if page.name == "index.html" and page.parent.name == "site")
    (index,) = home.parent.rglob("search*.json")
    assert "geometric_median" in index.read_text(encoding="utf-8")


@pytest.mark.slow
def test_examples_of_docstrings_are_code(site):
    (page,) = (page for page in site if page.match("reference/rules.html"))
    text = page.read_text(encoding="utf-8")
    assert text.count('class="gp">&gt;&gt;&gt; </span>') > 20
    assert "<blockquote>" not in text


def test_gallery_has_every_picture_once():
    text = (DOCS / "gallery.md").read_text(encoding="utf-8")
    shown = Counter(re.findall(r"!\[[^]]*\]\(([^)]+)\)", text))
    existing = {
        path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*") if path.suffix in PICTURES
    }
    assert len(existing) > 10
    assert {name: shown[name] for name in existing} == dict.fromkeys(existing, 1)

"""Sources that run nothing that they read, and don't let it choose where to write."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted(
    path for part in ("medjax", "experiments", "benchmarks") for path in
    (ROOT / part).rglob("*.py")
)  # fmt: skip

MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml"}
CALLS = {"eval", "exec", "compile", "__import__"}
# Where something isn't escaped: our own files, and matplotlib's drawings once parsed as XML.
UNESCAPED = {"medjax/lab/report/page.py", "medjax/lab/report/svg.py"}
EXTRACTIONS = {"extract", "extractall", "unpack_archive"}  # to where an archive says


def forbidden(tree: ast.AST) -> list[str]:
    """List what could run, or obey, what it reads, each with its line."""
    found = []
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        found += [f"{node.lineno}: {x}" for x in names if x.partition(".")[0] in MODULES]
        if isinstance(node, ast.Call):
            found += [f"{node.lineno}: {what}" for what in _of_call(node)]
    return found


def _of_call(node: ast.Call) -> list[str]:
    given = {word.arg: ast.unparse(word.value) for word in node.keywords}
    called = ast.unparse(node.func)
    found = [called] if called in CALLS else []
    if called in ("np.load", "numpy.load", "jnp.load") and given.get("allow_pickle") != "False":
        found.append(f"{called} without allow_pickle=False")
    if "allow_pickle" in given and given["allow_pickle"] != "False":
        found.append(f"allow_pickle={given['allow_pickle']}")
    if given.get("shell", "False") != "False" or called in ("os.system", "os.popen"):
        found.append(f"{called} by a shell")
    _, _, name = called.rpartition(".")
    if name in EXTRACTIONS:
        found.append(f"{called} writes where an archive says")
    if name in ("Environment", "Template") and given.get("autoescape") != "True":
        found.append(f"{called} without autoescape=True")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_runs_what_it_reads(path):
    assert forbidden(ast.parse(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import os, pickle as p",
        "from pickle import loads",
        "from joblib.externals import x",
        "import yaml",
        "x = eval('1')",
        "exec(open('x').read())",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "np.save(path, x, allow_pickle=flag)",
        "subprocess.run(x, shell=True)",
        "subprocess.Popen(x, shell=flag)",
        "os.system('ls')",
        "tarfile.open(path).extractall(folder)",
        "members.extract(member)",
        "shutil.unpack_archive(path, folder)",
        "Environment(loader=loader)",
        "jinja2.Environment(autoescape=select_autoescape())",
        "Template(text)",
    ],
)
def test_what_would_is_found(source):
    assert forbidden(ast.parse(source))


def test_only_our_own_markup_is_not_escaped():
    found = {
        str(path.relative_to(ROOT))
        for path in SOURCES
        if "Markup(" in path.read_text(encoding="utf-8")
    }
    assert found == UNESCAPED
    (template,) = (ROOT / "medjax").rglob("*.j2")
    assert not re.search(r"\|\s*safe|autoescape", template.read_text(encoding="utf-8"))

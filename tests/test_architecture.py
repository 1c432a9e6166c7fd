"""The structure of the library: imports point down, and it needs few packages."""

import ast
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALL = sorted((ROOT / "medjax").rglob("*.py"))
LAB = [path for path in ALL if path.is_relative_to(ROOT / "medjax/lab")]
FILES = [path for path in ALL if path not in LAB]  # the library itself
PROSE = [*ALL, *sorted((ROOT / "experiments").rglob("*.py"))]
PROSE += sorted((ROOT / "benchmarks").rglob("*.py"))

FLOORS = (
    {"_engine.kernels"},
    {"_engine"},
    {"noise", "compressors", "partition", "workers", "servers", "objectives", "topologies"},
    {"rules", "theory", "sharding"},
    {"mixing", "attacks", "optimizers"},
    {"algorithms"},
    {"training"},
    {""},  # medjax itself, which everybody imports from
)
"""The rooms of the library from the ground up: each imports from the floors below it only."""

LAB_FLOORS = (
    {"data", "plots", "tables"},
    {"models"},
    {"settings"},
    {"machine"},
    {"storage"},
    {"task"},
    {"sweeps"},
    {"report"},
    {"commands"},
    {"study"},
    {"console", ""},
)
"""The rooms of the lab, likewise."""

PACKAGES = {"jax", "jaxtyping", "numpy", "optax"}


def room(module: str) -> str:
    """Return the room of a module given by its dotted name, 'rules' for medjax.rules._krum."""
    parts = module.split(".")[1:]
    if parts[:2] == ["_engine", "kernels"]:
        return "_engine.kernels"
    return parts[0] if parts else ""


def floor(name: str, floors: Sequence[set[str]] = FLOORS) -> int:
    (found,) = (i for i, rooms in enumerate(floors) if name in rooms)
    return found


def imports(path: Path) -> list[str]:
    """Return the dotted names that a file imports, those of names in packages included."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, path
            of = node.module or ""
            inner = of in ("medjax", "medjax.lab", "medjax._engine", "medjax._engine.kernels")
            found += [f"{of}.{alias.name}" if inner else of for alias in node.names]
    return found


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path):
    own = room(module_of(path))
    for name in imports(path):
        if name.partition(".")[0] == "medjax":  # of the lab nothing: it has no floor here
            other = room(name)
            assert other == own or floor(other) < floor(own), f"{own or 'medjax'} imports {name}"


@pytest.mark.parametrize("path", LAB, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_of_the_lab_point_down(path):
    own = room(module_of(path).removeprefix("medjax."))
    for name in imports(path):
        if name.startswith("medjax.lab"):
            other = room(name.removeprefix("medjax."))
            down = floor(other, LAB_FLOORS) < floor(own, LAB_FLOORS)
            assert other == own or down, f"{own or 'lab'} imports {name}"


def test_the_library_needs_few_packages():
    found = {name.partition(".")[0] for path in FILES for name in imports(path)}
    assert found - set(sys.stdlib_module_names) - {"medjax"} == PACKAGES


def test_every_room_has_a_floor():
    rooms = {room(module_of(path)) for path in FILES}
    assert rooms == set().union(*FLOORS)


# A summary line that begins like this is a riddle or half a sentence.
RIDDLE = re.compile(r"(What|Of|As|Whether|Who|Whose|How|Where|Which|When|That|Those|To)\b")


@pytest.mark.parametrize("path", PROSE, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_begin_with_an_imperative_or_a_noun_phrase(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, kinds):
            text = ast.get_docstring(node) or ""
            assert not RIDDLE.match(text), f"{getattr(node, 'name', 'module')}: {text[:60]}"


def test_no_exception_is_caught_blindly():
    pattern = re.compile(r"suppress\(Exception|except Exception|except:")
    assert [p for p in PROSE if pattern.search(p.read_text(encoding="utf-8"))] == []

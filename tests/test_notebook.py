"""The notebook: its cells run, print what is stored below them, and show the truth."""

import json
import re
from pathlib import Path
from types import ModuleType

import pytest
from matplotlib import pyplot

NOTEBOOK = Path(__file__).parent.parent / "docs/medjax.ipynb"
CELLS = [
    cell
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    if cell["cell_type"] == "code"
]
NUMBER = r"\d+\.\d+"


def stored(cell: dict) -> str:
    """Return what a cell has printed."""
    return "".join("".join(x["text"]) for x in cell["outputs"] if x["output_type"] == "stream")


@pytest.fixture
def figures():
    """Return the function that takes the figures drawn so far; none is left open."""
    pyplot.switch_backend("agg")
    yield lambda: [pyplot.figure(number) for number in pyplot.get_fignums()]
    pyplot.close("all")


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_cells_print_what_stands_below(figures, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    install, *cells = CELLS
    assert install["source"] == ['%pip install -q "medjax[lab]"']
    module = ModuleType("notebook")
    for cell in cells:
        exec("".join(cell["source"]), vars(module))
        printed = capsys.readouterr().out
        assert re.sub(NUMBER, "#", printed) == re.sub(NUMBER, "#", stored(cell))
        numbers = [[float(x) for x in re.findall(NUMBER, s)] for s in (printed, stored(cell))]
        assert numbers[0] == pytest.approx(numbers[1], abs=0.03)
    (figure,) = figures()
    (axis,) = figure.axes
    assert [line.get_label() for line in axis.lines] == ["mean", "sign", "noisy sign"]


def test_cells_show_the_truth():
    """Only noise, or the mean, gets beyond one class of ten."""
    found = dict(re.findall(rf"^(.+): ({NUMBER})$", "".join(map(stored, CELLS)), re.MULTILINE))
    assert float(found["sign"]) < 0.2
    assert all(float(found[name]) > 0.8 for name in ("mean", "noisy sign", "clipped mean"))


def test_the_figure_is_stored_once():
    kinds = [kind for cell in CELLS for x in cell["outputs"] for kind in x.get("data", ())]
    assert kinds.count("image/png") == 1

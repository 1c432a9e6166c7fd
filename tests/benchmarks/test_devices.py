"""Tables and exit codes of `benchmarks.devices`, and its check of the results."""

import json
import math
import re
from dataclasses import replace

import pytest

from benchmarks import _point, devices, report, workload
from benchmarks.spread import Row, rows
from medjax import sharding

TINY = ("--devices", "4", "2", "--workers", "6", "--workers-per-device", "3")


@pytest.fixture
def pretend(monkeypatch):
    """Replace measurements by functions of the point: its ms, and its difference."""

    def pretend(ms, difference=lambda point: 0.0):
        def measure_in_subprocess(point):
            if math.isnan(ms(point)):
                raise RuntimeError("out of memory")
            return _point.Measurement(ms(point), 0.5, 1e8, difference(point))

        monkeypatch.setattr(_point, "measure_in_subprocess", measure_in_subprocess)

    return pretend


def test_rows_by_hand():
    # Strong: 6 workers take 2 ms on one device, 3 ms on two. Weak: 3 take 1.5 ms on one, 6 on two
    # 3 ms, which is twice as long, for twice the work.
    ms = {("mean", 6, 1): 2.0, ("mean", 6, 2): 3.0, ("mean", 3, 1): 1.5}
    measured = {point: _point.Measurement(t, 0.5, 1e8, 1e-6) for point, t in ms.items()}
    assert rows("strong", ["mean"], {1: 6, 2: 6}, measured) == [
        Row("mean", 1, 6, 2.0, 1.0, 1.0, 0.5, 1e-6),
        Row("mean", 2, 6, 3.0, 1.5, 1.5, 0.5, 1e-6),
    ]
    assert rows("weak", ["mean"], {1: 3, 2: 6}, measured) == [
        Row("mean", 1, 3, 1.5, 1.0, 1.0, 0.5, 1e-6),
        Row("mean", 2, 6, 3.0, 2.0, 1.0, 0.5, 1e-6),
    ]


def test_one_device_is_always_measured(pretend, capsys, tmp_path):
    pretend(lambda point: point.workers * (1 + point.devices))
    assert devices.main([*TINY, "--rule", "mean", "sign", "--json", str(tmp_path / "a.json")]) == 0
    record = json.loads((tmp_path / "a.json").read_text())
    strong = [(r["rule"], r["devices"], r["relative"]) for r in record["figures"]["strong"]]
    # (1 + k)/2, of the same workers.
    assert strong == [(name, k, (1 + k) / 2) for name in ("mean", "sign") for k in (1, 2, 4)]
    assert [r["per_worker"] for r in record["figures"]["weak"]] == 2 * [1, 1.5, 2.5]
    assert record["settings"]["workers"] == 6
    out = capsys.readouterr().out
    assert re.search(r"^mean +4 +12 +60 +10\.00× +2\.50× +0\.0e\+00$", out, re.MULTILINE)


@pytest.mark.parametrize("difference", [1.1e-4, math.nan, math.inf])
def test_another_result_is_a_failure(pretend, capsys, difference):
    pretend(lambda point: 1.0, lambda point: difference if point.devices == 4 else 1e-4)
    assert devices.main([*TINY, "--rule", "mean"]) == 1
    assert "Not every result is within 0.0001 of one device's." in capsys.readouterr().err


def test_a_point_that_fails_is_left_out(pretend, capsys, tmp_path):
    pretend(lambda point: math.nan if point.devices == 4 else 1.0)
    assert devices.main([*TINY, "--rule", "mean", "--plot", str(tmp_path / "a.svg")]) == 1
    out, err = capsys.readouterr()
    assert "mean, 12 workers on 4 devices failed: out of memory\n" in err
    assert re.search(r"^mean +4 +12 +— +— +— +—$", out, re.MULTILINE)
    assert re.search(r"^mean +2 +6 +1 +1\.00×", out, re.MULTILINE)
    assert b"<svg" in (tmp_path / "a.svg").read_bytes()


@pytest.mark.slow
def test_difference_is_seen(monkeypatch):
    work, mesh = workload.build(8, 2, hidden=3), sharding.make_mesh(workers=4)
    assert workload.difference(work, "mean", 8, mesh) < devices.TOLERANCE
    place = sharding.place_workers

    def wrong(data, mesh):  # one worker has another one's labels
        if mesh is None:
            return data
        images, labels = data.examples
        labels = labels.at[0].set((labels[0] + 1) % workload.CLASSES)
        return place(replace(data, examples=(images, labels)), mesh)

    monkeypatch.setattr(workload.sharding, "place_workers", wrong)
    assert workload.difference(work, "mean", 8, mesh) > 100 * devices.TOLERANCE


def test_cells():
    assert report.cells(("{}", "{:.1f}", "{}"), ("a", math.nan, 2)) == ["a", "—", "2"]

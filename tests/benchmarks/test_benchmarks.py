"""Commands `python -m benchmarks.NAME` at their smallest: output, files, errors."""

import json
import math
import re
from types import SimpleNamespace
from typing import get_type_hints

import pytest

from benchmarks import _point, devices, kernels, scaling, step, sweep, wire
from benchmarks.report import optional
from medjax import rules

QUICK = {
    step: "--workers 3 --batch-size 2 --steps 2 --repeats 1",
    kernels: "--workers 4 --dims 50 --repeats 1",
    sweep: "--dataset digits --batch-size 4 --steps 2 --repeats 1 --processes 1",
    scaling: "--rule mean --workers 2 --dims --batch-size 2 --repeats 1",
    devices: "--rule sign --devices 2 --workers 2 --workers-per-device 1 --dimension 805 "
    "--batch-size 1 --repeats 1",
}
COMMANDS = pytest.mark.parametrize("command", QUICK, ids=lambda command: command.__name__)


@pytest.fixture
def measured(tmp_path, capsys):
    """Run a command at a tiny size, and return its output and its figures."""

    def measured(command, arguments=""):
        file = tmp_path / "figures.json"
        flags = [*QUICK[command].split(), *arguments.split(), "--json", str(file)]
        assert command.main(flags) == 0
        record = json.loads(file.read_text())
        assert record["device"]["cores"] > 0
        assert record["settings"]["repeats"] == 1
        printed = capsys.readouterr().out
        for name in ("python", "jax", "jaxlib", "numpy", "optax"):
            assert f"{name} {record['versions'][name]}" in printed
        return printed, record["figures"]

    return measured


@pytest.mark.slow
def test_step_leaves_out_the_others(measured):
    _, figures = measured(step, "--rules mean --only-medjax")
    assert {row: set(columns) for row, columns in figures.items()} == {
        step.BARE: {"medjax"},
        "mean": {"medjax"},
    }


@pytest.mark.slow
def test_step_compares_rules_with_bare_gradients_and_others(measured):
    rules = ("noisy_sign", "noisy_trimmed_mean", "nnm+mean")
    printed, figures = measured(step, f"--rules {' '.join(rules)}")
    assert set(figures) == {step.BARE, step.EXACT, *rules}
    bare = figures[step.BARE]["medjax"]
    assert bare["times_bare"] == 1
    for row, columns in figures.items():
        ours = columns["medjax"]
        assert ours["times_bare"] == ours["ms"] / bare["ms"]
        assert ours["compile_s"] > 0
        assert ours["turns"] == 1
        assert ours["calls"] in (1, 2)
        assert re.search(rf"^{re.escape(row)} +\d", printed, re.MULTILINE)
    has = {"medjax", "obvious JAX"} | ({"PyTorch"} if optional("torch") else set())
    assert set(figures["noisy_sign"]) == has
    assert set(figures["noisy_trimmed_mean"]) == has | ({"ByzFL"} if optional("byzfl") else set())
    ours, obvious = (figures["noisy_trimmed_mean"][name] for name in ("medjax", "obvious JAX"))
    assert obvious["times_medjax"] == obvious["ms"] / ours["ms"]
    for name, package in (("PyTorch", "torch"), ("ByzFL", "byzfl")):
        left_out = f"{name} is left out: it needs the package {package}." in printed
        assert left_out == (optional(package) is None)


@pytest.mark.slow
def test_step_on_a_gpu_leaves_out_what_would_run_on_the_cpu(measured, monkeypatch):
    monkeypatch.setattr(step, "jax", SimpleNamespace(default_backend=lambda: "gpu"))
    printed, figures = measured(step, "--rules sign")
    assert set(figures["sign"]) == {"medjax", "obvious JAX"}
    assert "PyTorch and ByzFL are left out: their steps would run on the CPU." in printed


@pytest.mark.slow
def test_step_can_have_all_its_rules_with_many_workers():
    named = {part.partition(":")[0] for rule in step.GRAM for part in rule.split("+")}
    family = {
        name
        for name, factory in rules.RULES.items()
        if get_type_hints(factory)["return"] is rules.Geometric
    }
    assert named - {"mean", "trimmed_mean", "bulyan"} >= family - {"mda", "smea"}
    step.optimizers((*step.GRAM, *step.RULES), 100)  # checks n


@pytest.mark.slow
def test_kernels_compare_libraries(measured):
    printed, figures = measured(kernels)
    sizes = [(row["kernel"], row["n"], row["d"]) for row in figures]
    assert sizes == [(kernel, 4, 50) for kernel in kernels.KERNELS]
    libraries = {"medjax", "jnp", "NumPy"} | ({"PyTorch"} if optional("torch") else set())
    for row in figures:
        assert set(row["figures"]) == libraries
        assert all(figure["ms"] > 0 for figure in row["figures"].values())
    assert "times slower than medjax" in printed


def test_kernels_leave_out_what_takes_too_much(measured):
    flags = "--kernels median --workers 5 --dims 60000 10000000 --budget 1e-9 --max-gigabytes 0.1"
    printed, figures = measured(kernels, flags)
    (row,) = figures
    assert row["d"] == 60_000
    assert set(row["figures"]) == {"medjax"}
    assert min(row["estimated_s"].values()) > 1e-9
    assert "Left out: n = 5, d = 10000000, a matrix of 0.2 GB." in printed
    assert "— above --budget 1e-09 seconds a call." in printed


@pytest.mark.slow
def test_scaling_measures_points_apart(measured, tmp_path):
    picture = tmp_path / "scaling.png"
    printed, figures = measured(scaling, f"--worker-chunk 2 --plot {picture}")
    (row,) = figures["n"]
    assert "d" not in figures
    assert (row["n"], row["d"], row["relative"]) == (2, 101_770, 1)
    assert row["ms"] > 0
    assert row["compile_s"] > 0
    baseline = figures["baseline"]["peak_bytes"]
    assert 5e7 < baseline < 2e9
    assert row["beyond_mb"] == pytest.approx(row["peak_mb"] - baseline / 1e6)
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert "101770" in printed


@pytest.mark.slow
def test_scaling_goes_on_after_a_point_that_fails(monkeypatch, capsys, tmp_path):
    def measure_in_subprocess(point):
        if point.workers == 5 and point.hidden > 1:
            raise RuntimeError("out of memory")
        return _point.Measurement(2.0 * point.workers * point.hidden, 0.5, 1e8)

    for module in (scaling, _point):
        monkeypatch.setattr(module, "measure_in_subprocess", measure_in_subprocess)
    files = ["--json", str(tmp_path / "a.json"), "--plot", str(tmp_path / "a.svg")]
    assert scaling.main(["--workers", "5", "20", "--dims", "10000", "2000", *files]) == 1
    out, err = capsys.readouterr()
    assert "n = 5, d = 101770 failed: out of memory\n" in err
    assert re.search(r"^5 +101770 +— +— +— +— +—$", out, re.MULTILINE)
    figures = json.loads((tmp_path / "a.json").read_text())["figures"]
    assert [(row["n"], row["relative"]) for row in figures["n"]] == [(5, None), (20, 1)]
    assert [(row["n"], row["d"]) for row in figures["d"]] == [(10, 2395), (10, 10_345)]
    assert figures["d"][0]["relative"] == pytest.approx((3 / 2395) / (13 / 10_345))
    assert b"<svg" in (tmp_path / "a.svg").read_bytes()


@pytest.mark.slow
def test_devices_are_compared_with_one(measured, tmp_path):
    picture = tmp_path / "devices.png"
    printed, figures = measured(devices, f"--plot {picture}")
    assert [(row["devices"], row["workers"]) for row in figures["strong"]] == [(1, 2), (2, 2)]
    assert [(row["devices"], row["workers"]) for row in figures["weak"]] == [(1, 1), (2, 2)]
    for kind, same_work in (("strong", 1), ("weak", 2)):
        one, two = figures[kind]
        assert one["relative"] == one["per_worker"] == 1
        assert two["relative"] == two["ms"] / one["ms"] > 0
        assert two["per_worker"] == two["relative"] / same_work
        assert max(one["difference"], two["difference"]) <= devices.TOLERANCE
    assert figures["strong"][1]["ms"] == figures["weak"][1]["ms"]  # one point, measured once
    assert "All devices share this machine's cores" in printed
    assert picture.read_bytes()[:4] == b"\x89PNG"


@pytest.mark.slow
def test_point_that_fails_says_why():
    with pytest.raises(RuntimeError, match=r"^argparse.ArgumentTypeError: unknown rule 'no_rule'"):
        _point.measure_in_subprocess(_point.Point("no_rule", 1, 1, batch_size=1, repeats=1))


@pytest.mark.parametrize("size", [805, 10_000, 10_000_000])
def test_network_has_about_so_many_parameters(size):
    assert math.isclose(
        scaling.workload.num_params(scaling.workload.hidden(size)), size, rel_tol=0.05
    )


@COMMANDS
def test_help(command, capsys):
    with pytest.raises(SystemExit) as exit_info:
        command.main(["--help"])
    assert exit_info.value.code == 0
    text = capsys.readouterr().out
    assert command.__name__ in text
    for flag in ("workers", "repeats", "json"):
        assert f"--{flag} " in text


@COMMANDS
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--workers 0", "--workers: '0' is not a whole number of at least 1"),
        ("--repeats 0", "--repeats: '0' is not a whole number of at least 1"),
        ("--json nowhere/a.json", "--json: 'nowhere/a.json' can't be written: No such file"),
        ("--json .", "--json: '.' is a folder"),
        ("--frobnicate", "unrecognized arguments: --frobnicate"),
    ],
)
def test_mistake_gets_one_clear_line(command, arguments, message, error_of, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in error_of(command.main, *arguments.split())
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        (step, "--rules noisy_sing", "unknown rule 'noisy_sing': did you mean 'noisy_sign'?"),
        (step, "--rules nmn+krum", "unknown mixing 'nmn': did you mean 'nnm'?"),
        (step, "--rules krum --gram", "not allowed with argument --rules"),
        (step, "--rules centered_clipping", "rule centered_clipping needs a value for tau, as in"),
        (step, "--rules mda --workers 100", "looks at every subset of n - f workers: of n = 100"),
        (step, "--steps 0", "--steps: '0'"),
        (kernels, "--kernels medain", "unknown kernel 'medain': did you mean 'median'?"),
        (kernels, "--budget 0", "--budget: '0' is not a finite number above 0"),
        (kernels, "--max-gigabytes 1e-9", "every matrix has more than --max-gigabytes 1e-09"),
        (scaling, "--rule noisy_sing", "did you mean 'noisy_sign'?"),
        (scaling, "--dims 804", "--dims: '804' is not a whole number of at least 805"),
        (scaling, "--workers --dims", "nothing to measure"),
        (scaling, "--plot a.doc", "--plot: 'a.doc' must end in .png, .svg or .pdf"),
        (scaling, "--worker-chunk 0", "--worker-chunk: '0'"),
        (devices, "--rule krun", "unknown rule 'krun': did you mean 'krum'?"),
        (devices, "--rule mda", "looks at every subset of n - f workers: of n = "),
        (devices, "--devices 0", "--devices: '0' is not a whole number of at least 1"),
        (devices, "--dimension 804", "--dimension: '804' is not a whole number of at least 805"),
        (devices, "--plot a.doc", "--plot: 'a.doc' must end in .png, .svg or .pdf"),
    ],
)
def test_mistake_of_one_command(command, arguments, message, error_of, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in error_of(command.main, *arguments.split(), "--json", "a.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_sweep_is_compared_with_its_runs_one_by_one(measured, monkeypatch):
    monkeypatch.setattr(sweep, "AXES", {"b": (1e-2,), "seed": (0, 1)})
    printed, figures = measured(sweep)
    for name, ratio in figures["ratio"].items():
        assert re.search(rf"^{name} .* {ratio:.2f} ", printed, re.MULTILINE)
    whole, one = figures["processes"]["sweep"], figures["processes"]["one by one"]
    assert figures["ratio"]["as processes"] == whole / one
    assert [len(times) for times in figures["loops"].values()] == [1, 1]


@pytest.mark.slow
def test_wire_counts_bits_and_fails_above_the_closed_form(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(wire, "RULES", {k: wire.RULES[k] for k in ("mean", "majority_vote")})
    flags = ["--devices", "8", "--workers", "8", "--json", str(tmp_path / "a.json")]
    assert wire.main([*flags, "--dimension", "100000"]) == 0
    bits = json.loads((tmp_path / "a.json").read_text())["bits"]
    # All but an eighth crosses: of a mean 32 bits each way; of a vote 1 bit, and 2 back for a tie.
    assert bits["mean"]["least"] == pytest.approx(64 * 7 / 8, rel=0.01)
    assert bits["majority_vote"]["least"] == pytest.approx(3 * 7 / 8, rel=0.01)
    assert re.search(r"^mean +56 +56 +56 +1$", capsys.readouterr().out, re.MULTILINE)
    # Where there are few coordinates, what is sent besides them counts.
    assert wire.main([*flags, "--dimension", "1000"]) == 1

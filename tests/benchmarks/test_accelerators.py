"""Costs on devices that aren't there: the model by hand, and limits on what our steps cost."""

import functools
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from benchmarks import _captured, _ptxas, _targets, accelerators, report, step, workload
from benchmarks._launches import Kernel
from benchmarks._targets import Rates

pytestmark = pytest.mark.optimized  # so that the programs are what a user gets


def test_seconds_by_hand():
    gpu = Rates(memory=1e9, link=1e6, launch=1e-3, operations=1e6, flops=1e8)
    # 2 ms of memory are more than 1 ms of operations; 1 and 3 ms of arithmetic are more than 2.
    assert gpu.seconds(Kernel("a", "fusion", 5, 2e6, operations=1e3)) == pytest.approx(5 * 3e-3)
    busy = Kernel("b", "fusion", 1, 2e6, operations=1e3, flops=3e5)
    assert gpu.seconds(busy) == pytest.approx(5e-3)
    # Of 4000 bytes each of four devices keeps a fourth.
    exchange = Kernel("c", "all-to-all", 2, 0.0, sent=4e3)
    assert gpu.seconds(exchange, 4) == pytest.approx(2 * (3e-3 + 1e-3))
    tpu = Rates(memory=1e9, link=1e6, clock=1e6)
    assert tpu.seconds(Kernel("d", "fusion", 3, 1e6, cycles=4000)) == pytest.approx(3 * 4e-3)
    assert tpu.seconds(Kernel("e", "copy", 1, 5e6, operations=1e9)) == pytest.approx(5e-3)


def test_cost_adds_up():
    kernels = [Kernel("a", "fusion", 5, 2e6), Kernel("b", "all-reduce", 2, 1e6, sent=8e6)]
    compiled = _targets.Compiled("", 0.25, 0.5, 3_000_000, "")
    cost = accelerators.cost("h100", 4, compiled, kernels)
    assert cost == accelerators.Cost(0.25, 0.5, 7, 12.0, 3.0, 2, 12.0, cost.ms)
    # 12 MB at 2.7 TB/s, seven launches of 1.6 µs, and 12 MB at 450 GB/s.
    assert cost.ms == pytest.approx(12e6 / 2.7e9 + 7 * 1.6e-3 + 12e6 / 450e6)


LOG = """
.visible .entry select_mosaic_gpu_kernel(
	.param .u64 .ptr .align 256 select_mosaic_gpu_kernel_param_0
)
{
	.reg .pred 	%p<205>;
$L__func_begin0:
	.loc	1 58 0
	ld.param.b64 	%rd1, [select_mosaic_gpu_kernel_param_0];
	bar.sync 	0;
	@%p1 bra 	$L__end;
	min.u32 	%r9, %r8, 99872;
$L__end:
	ret;
}
	.file 1 "select.py"
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'select_mosaic_gpu_kernel' for 'sm_90a'
ptxas info    : Function properties for select_mosaic_gpu_kernel
    176 bytes stack frame, 156 bytes spill stores, 160 bytes spill loads
ptxas info    : Used 255 registers, used 2 barriers
"""


def test_reports_of_the_assembler():
    other = LOG.replace("select", "vote").replace("255", "31").replace("bar.sync", "add.s32")
    other = other.replace("	bar", "").replace("156 bytes", "0 bytes")
    assert _ptxas.reports(f"something\n{LOG}{other}else") == [
        _ptxas.HandWritten("select", 255, 156, 5),
        _ptxas.HandWritten("vote", 31, 0, 5),
    ]
    assert _ptxas.reports("") == []


def test_what_libraries_write_is_caught(capfd):
    os.write(1, b"before ")
    with tempfile.TemporaryFile("w+") as file:
        with _captured.into(file):
            os.write(1, b"a compiler's ")
            os.write(2, b"words")
        os.write(2, b"after")
        file.seek(0)
        assert file.read() == "a compiler's words"
    assert capfd.readouterr() == ("before ", "after")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.08437, "0.0844"),
        (0.5, "0.500"),
        (7.0, "7.00"),
        (123.4, "123"),
        (1234.5, "1,234"),
        (0, "0"),
    ],
)
def test_three_digits(value, text):
    assert report.digits(value) == text


@pytest.fixture
def described(monkeypatch):
    """Has JAX describe devices as a function says, and leaves this process's settings alone."""

    def described(describe):
        monkeypatch.setattr(_targets, "without_devices", lambda: None)
        monkeypatch.setattr(_targets.topologies, "get_topology_desc", describe)

    return described


@pytest.mark.parametrize("target", ["h100", "v6e:2x4"])
def test_missing_compiler_says_what_to_install(target, described, error_of):
    def describe(*_, **__):
        raise NotImplementedError("topology not implemented for cuda")

    described(describe)
    message = error_of(accelerators.main, "--target", target)
    assert f"the compiler for {target} isn't installed: pip install " in message
    assert '"medjax[accelerators]"' in message


def test_impossible_topology(described, error_of):
    def describe(*_, **__):
        raise jax.errors.JaxRuntimeError("INVALID_ARGUMENT: not divisible\nat some place")

    described(describe)
    message = error_of(accelerators.main, "--target", "v5e:3x3")
    assert "'v5e:3x3' can't be described: INVALID_ARGUMENT: not divisible; valid: h100" in message


def test_too_many_devices(described, error_of):
    described(lambda *_, **__: SimpleNamespace(devices=[object()] * 4))
    message = error_of(accelerators.main, "--target", "v5e:2x2", "--devices", "5")
    assert "v5e:2x2 has 4 devices, not 5" in message


def test_rule_that_cannot_have_so_many_workers(described, error_of):
    described(lambda *_, **__: SimpleNamespace(devices=jax.devices()))
    message = error_of(accelerators.main, "--rules", "mda", "--workers", "100")
    assert "looks at every subset of n - f workers: of n = 100" in message


COPY = """
ENTRY %main (x: f32[1000]) -> f32[1000] {
  %x = f32[1000]{0} parameter(0)
  ROOT %y = f32[1000]{0} copy(%x)
}"""


@pytest.mark.slow
def test_command_prints_and_writes_what_it_found(described, monkeypatch, capsys, tmp_path):
    given = []

    def compile_for(_, state, data):
        given.append(data)
        return _targets.Compiled(COPY, 0.25, 0.5, 3_000_000, LOG)

    described(lambda *_, **__: SimpleNamespace(devices=jax.devices()))
    monkeypatch.setattr(_targets, "compile_for", compile_for)
    flags = "--target h100 --devices 2 --workers 3 --rules sign krum --kernels --json"
    assert accelerators.main([*flags.split(), str(tmp_path / "a.json")]) == 0
    record = json.loads((tmp_path / "a.json").read_text())
    assert record["settings"]["workers"] == 3
    steps = record["figures"]["h100"]["steps"]
    # Of Krum there is no obvious code of one line.
    assert list(steps) == [step.BARE, "sign", "sign, obvious JAX", "krum"]
    # 8 kB at 2.7 TB/s, and a launch.
    cost = accelerators.Cost(0.25, 0.5, 1, 0.008, 3.0, 0, 0.0, 1e3 * (8e3 / 2.7e12 + 1.6e-6))
    assert steps["sign, obvious JAX"] == asdict(cost) | {"times_bare": 1}
    kernel = _ptxas.HandWritten("select", 255, 156, 5)
    assert record["figures"]["h100"]["hand_written"]["krum"] == [asdict(kernel)]
    # A fourth worker without examples, so that each device has two.
    assert [data.padding for data in given] == [1] * 4
    assert {x.shape[0] for data in given for x in jax.tree.leaves(data)} == {4}
    out = capsys.readouterr().out
    assert re.search(r"^krum +0\.5 +1 +0\.0 +3\.0 +0 +0 +0\.00160 +1\.00$", out, re.MULTILINE)
    assert re.search(r"^select +sign +255 +156 +5$", out, re.MULTILINE)
    assert re.search(r"^y +copy +1 +0\.01 +0\.00160$", out, re.MULTILINE)


# What follows compiles real steps, for devices that aren't there.

HAS = {
    "h100": importlib.util.find_spec("jax_plugins") is not None
    and importlib.util.find_spec("jax_plugins.xla_cuda12") is not None,
    "v5e:2x2": importlib.util.find_spec("libtpu") is not None,
}
VOTES = ("sign", "noisy_sign")
DEAREST = ("noisy_median", "noisy_trimmed_mean", "meamed", "krum")
BUSY = 3  # times as long as on two idle cores


@functools.cache
def compiled(target, devices, workers, rules, seconds):
    """The command's words and figures, from a process of its own: this one's CPU is 8 devices.

    Every step may take so many seconds to compile, and all else half a minute.
    """
    if not HAS[target]:
        pytest.skip(f"nothing compiles for {target}: {_targets.INSTALL}")
    flags = f"--target {target} --devices {devices} --workers {workers} --only-medjax --kernels"
    command = [sys.executable, "-m", "benchmarks.accelerators", *flags.split()]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "figures.json")
        limit = 30 + BUSY * seconds * (2 + len(rules))
        try:
            done = subprocess.run(
                [*command, "--json", str(file), "--rules", *rules],
                cwd=Path(__file__).parents[2],
                capture_output=True,
                text=True,
                timeout=limit,
            )
        except subprocess.TimeoutExpired:
            pytest.fail(f"{', '.join(rules)} took longer than {limit} s to compile for {target}")
        assert done.returncode == 0, done.stderr
        return done.stdout, json.loads(file.read_text())["figures"][target]["steps"]


@pytest.mark.slow
@pytest.mark.parametrize(("devices", "workers", "most"), [(1, 100, 30), (8, 96, 60)])
def test_vote_launches_few_kernels_and_moves_few_bytes(devices, workers, most):
    printed, rows = compiled("h100", devices, workers, ("mean", *VOTES), seconds=5)
    bare = rows[step.BARE]
    assert bare["times_bare"] == 1
    assert bare["kernels"] < 20
    # The bare gradients are written, and the images are read, at least once.
    d = workload.num_params(workload.HIDDEN)
    gradients, images = (4e-6 * size * workers / devices for size in (d, step.BATCH_SIZE * 784))
    # Activations and parameters weigh more where a device has few workers.
    assert 1 < bare["moved_mb"] / (gradients + images) < 3
    for vote in VOTES:
        assert re.search(rf"^{vote} +\d", printed, re.MULTILINE)
        assert rows[vote]["kernels"] <= most
        assert rows[vote]["moved_mb"] <= bare["moved_mb"] + 2 * gradients


@pytest.mark.slow
def test_devices_sum_votes_as_small_integers():
    _, rows = compiled("h100", 8, 96, ("mean", *VOTES), seconds=5)
    d = workload.num_params(workload.HIDDEN)
    assert (rows[step.BARE]["collectives"], rows[step.BARE]["sent_mb"]) == (0, 0)
    # To the others and back, float32 numbers; counts of up to 96 votes fit 8 bits.
    for row, num_bytes in (("mean", 4), *((vote, 1) for vote in VOTES)):
        assert rows[row]["collectives"] == 1
        assert rows[row]["sent_mb"] == pytest.approx(2 * 7 / 8 * num_bytes * d / 1e6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "workers", "chosen", "seconds"),
    [
        ("h100", 100, DEAREST, 5),
        ("h100", 1000, ("median",), 8),
        ("v5e:2x2", 100, ("noisy_sign", "median"), 8),
    ],
)
def test_compiling_takes_seconds(target, workers, chosen, seconds):
    _, rows = compiled(target, 1, workers, chosen, seconds)
    slow = {row: x["compile_s"] for row, x in rows.items() if x["compile_s"] > BUSY * seconds}
    assert slow == {}
    assert all(x["kernels"] > 0 and x["ms"] > 0 for x in rows.values())

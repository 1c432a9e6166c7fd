"""Measurement of one point of `scaling`, `devices` or `sizes` in a process of its own.

Peak memory belongs to a process, and the number of devices is fixed when it starts.
"""

import json
import math
import resource
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

_SECONDS = 1.0  # about the length of a turn
_MOST_STEPS = 100


@dataclass(frozen=True)
class Point:
    """One size of the workload; `devices` makes a mesh, and `network` is one of those there."""

    rule: str
    workers: int
    hidden: int
    batch_size: int
    repeats: int
    worker_chunk: int | None = None
    devices: int | None = None
    network: str = "mlp"
    local_steps: int | None = None


@dataclass(frozen=True)
class Measurement:
    """Figures of one point.

    Attributes:
        ms: milliseconds for a step.
        compile_s: seconds to compile.
        peak_bytes: peak memory of the process.
        difference: `workload.difference` from one device; NaN without `devices`.
        num_params: d.
    """

    ms: float
    compile_s: float
    peak_bytes: float
    difference: float = math.nan
    num_params: int = 0


def measure_in_subprocess(point: Point) -> Measurement:
    """Measure a point in a new process.

    Raises:
        RuntimeError: if that fails, for example out of memory, with the reason in a line.
    """
    command = [sys.executable, "-m", "benchmarks._point", json.dumps(asdict(point))]
    root = Path(__file__).parent.parent
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if done.returncode < 0:
        raise RuntimeError(f"killed by signal {-done.returncode}, perhaps for want of memory")
    if done.returncode:
        raise RuntimeError(done.stderr.strip().rpartition("\n")[2])
    return Measurement(**json.loads(done.stdout))


def measure_or_nan(point: Point, label: str) -> Measurement:
    """Measure a point in a new process, or return NaN where it fails; report both on stderr."""
    print(label, file=sys.stderr)
    try:
        return measure_in_subprocess(point)
    except RuntimeError as error:
        print(f"{label} failed: {error}", file=sys.stderr)
        return Measurement(math.nan, math.nan, math.nan)


def measure(point: Point) -> Measurement:
    """Measure a point in this process."""
    import jax

    from benchmarks import timing, workload
    from medjax import sharding

    mesh = None
    if point.devices is not None:
        jax.config.update("jax_num_cpu_devices", point.devices)
        mesh = sharding.make_mesh(workers=point.devices)
    work = workload.NETWORKS[point.network](point.workers, point.batch_size, point.hidden)
    options = {"mesh": mesh, "worker_chunk": point.worker_chunk}
    if point.local_steps is not None:
        local = {"local_steps": point.local_steps, "local_lr": workload.STEP_SIZE}
        options |= local | {"batch_size": point.batch_size}
    step = workload.simulated(work, workload.optimizer(point.rule, point.workers), **options)
    figure = timing.measure(
        {"step": step}, repeats=point.repeats, seconds=_SECONDS, most=_MOST_STEPS
    )["step"]
    peak = _peak_bytes()
    difference = math.nan
    if mesh is not None:
        difference = workload.difference(work, point.rule, point.workers, **options)
    num_params = sum(leaf.size for leaf in jax.tree.leaves(work.params))
    return Measurement(figure.ms, figure.compile_s, peak, difference, num_params)


def _peak_bytes() -> int:
    # On Linux ru_maxrss starts from the size of the process that started this one.
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * int(status.read_text().partition("VmHWM:")[2].split()[0])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    print(json.dumps(asdict(measure(Point(**json.loads(sys.argv[1]))))))

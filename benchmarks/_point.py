"""One point of `benchmarks.scaling`, in a process of its own so that its peak memory is its own."""

import json
import resource
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

_SECONDS = 1.0  # for about so long the steps run in each turn
_MOST_STEPS = 100


@dataclass(frozen=True)
class Point:
    """What to measure; the network is 784-hidden-10."""

    rule: str
    workers: int
    hidden: int
    batch_size: int
    repeats: int
    worker_chunk: int | None = None


@dataclass(frozen=True)
class Measurement:
    """What was measured: the time of a step, and the most memory that the process held."""

    ms: float
    compile_s: float
    peak_bytes: float


def measure_apart(point: Point) -> Measurement:
    """Measure a point in a new process.

    Raises:
        RuntimeError: if that fails, out of memory for one, with the reason in a line.
    """
    command = [sys.executable, "-m", "benchmarks._point", json.dumps(asdict(point))]
    root = Path(__file__).parent.parent
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if done.returncode < 0:
        raise RuntimeError(f"killed by signal {-done.returncode}, perhaps for want of memory")
    if done.returncode:
        raise RuntimeError(done.stderr.strip().rpartition("\n")[2])
    return Measurement(**json.loads(done.stdout))


def measure_here(point: Point) -> Measurement:
    """Measure a point in this process."""
    from benchmarks import timing, workload

    work = workload.build(point.workers, point.batch_size, point.hidden)
    step = workload.simulated(
        work, workload.optimizer(point.rule, point.workers), worker_chunk=point.worker_chunk
    )
    figure = timing.measure(
        {"step": step}, repeats=point.repeats, seconds=_SECONDS, most=_MOST_STEPS
    )["step"]
    return Measurement(figure.ms, figure.compile_s, _peak_bytes())


def _peak_bytes() -> int:
    # On Linux ru_maxrss starts from the size of the process that started this one.
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * int(status.read_text().partition("VmHWM:")[2].split()[0])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    print(json.dumps(asdict(measure_here(Point(**json.loads(sys.argv[1]))))))

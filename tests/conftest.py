"""Settings and fixtures that all tests share."""

import gc
import os
import shutil
import subprocess
import sys
import tempfile

import jax
import pytest
from hypothesis import settings

from medjax._engine.kernels import columns

# Compiling is slow and its time varies, so a deadline would say nothing; the examples are the same
# in every run, so that a failure can be repeated.
settings.register_profile("medjax", deadline=None, derandomize=True, database=None)
settings.load_profile("medjax")

# Compiled programs are kept for the session, for the commands that run in processes of their own
# too: many run the same ones. One folder for each process of tests, as JAX doesn't write the files
# at once.
_CACHE = tempfile.mkdtemp(prefix="medjax-tests-")
os.environ["JAX_COMPILATION_CACHE_DIR"] = _CACHE
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"

# Each process has a core: splitting a program for several costs time, as does noting the source of
# every operation. XLA's older way of generating code for a CPU, which is gone with JAX 0.11,
# compiles in 60% of the time and computes the same. `.ci/run` tests the kernels with the newer one
# too, as users have them.
_FLAGS = "--xla_cpu_parallel_codegen_split_count=1"
if jax.__version_info__ < (0, 11):
    _FLAGS += " --xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("XLA_FLAGS", _FLAGS)
jax.config.update("jax_traceback_in_locations_limit", 0)

# For what is spread over devices; whatever isn't takes the first.
jax.config.update("jax_num_cpu_devices", 8)

# Programs are compiled without LLVM's optimizations, in about half of the time; those of commands
# that run in processes of their own too. See `compiled_as_for_users`.
jax.config.update("jax_disable_most_optimizations", True)
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"

# Compiled programs hold many objects that stay, which Python's collector goes through every time.
gc.set_threshold(100_000, 50, 50)


# For pytest-xdist's processes, which are started after this: on a core of their own, threads of
# NumPy's and PyTorch's products would wait for one another too, for up to 60 times as long.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The cores that there are, where a process can choose among them.
_CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []


def _take_one_core() -> None:
    """Give each of pytest-xdist's processes a core: XLA's threads would wait for one another."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is not None and _CORES:
        os.sched_setaffinity(0, {_CORES[int(worker.removeprefix("gw")) % len(_CORES)]})


_take_one_core()


def pytest_collection_modifyitems(items):
    """Files with slow tests come first, so that no process of several is left alone with one."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_unconfigure():
    """Remove the compiled programs."""
    shutil.rmtree(_CACHE, ignore_errors=True)


@pytest.fixture(scope="module", autouse=True)
def compiled_as_for_users(request):
    """Compile the programs of files marked `optimized` as users have them.

    How the kernels compute is what these files test, or their programs run for longer than they
    take to compile, or are looked at.
    """
    if not request.node.get_closest_marker("optimized"):
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("JAX_DISABLE_MOST_OPTIMIZATIONS")
        jax.config.update("jax_disable_most_optimizations", False)
        jax.clear_caches()  # of what other files compiled quickly
        yield
        jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(autouse=True)
def nothing_is_promoted(request):
    """Let JAX match no dtypes and no ranks implicitly, as users may have it."""
    if request.node.get_closest_marker("promotes"):
        yield
        return
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture
def accelerated(monkeypatch):
    """Code for accelerators that is plain JAX, run on the CPU."""

    def take_default(*operands, default, **others):
        return default(*operands)

    monkeypatch.setattr(jax.lax, "platform_dependent", take_default)
    monkeypatch.setattr(columns, "design_for_cpu", lambda num_rows: columns.in_passes)
    jax.clear_caches()
    yield
    jax.clear_caches()


@pytest.fixture
def all_cores():
    """For processes that are started side by side, and would wait for one another on one core."""
    if not _CORES:
        yield
        return
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, _CORES)
    yield
    os.sched_setaffinity(0, own)


@pytest.fixture
def no_pictures(monkeypatch):
    """Leave out the pictures of runs and sweeps, which take a third of one of a few steps."""
    figure = pytest.importorskip("matplotlib.figure").Figure
    monkeypatch.setattr("medjax.lab.plots.run_figure", lambda _: figure((1, 1)))
    monkeypatch.setattr("medjax.lab.sweeps.pictures.draw", lambda *_: {"curves": figure((1, 1))})


@pytest.fixture
def error_of(capsys):
    """The line that a mistake gives a command, after checking that it is one and the code is 2."""

    def run(main, *arguments):
        capsys.readouterr()  # what earlier commands of the test said
        with pytest.raises(SystemExit) as exit_info:
            main(list(arguments))
        assert exit_info.value.code == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("error: ")
        assert err.endswith("\n")
        assert err.count("\n") == 1
        return err

    return run


@pytest.fixture
def output_of():
    """What a program in a process of its own prints; a warning fails."""

    def run(snippet):
        command = [sys.executable, "-W", "error", "-c", snippet]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run

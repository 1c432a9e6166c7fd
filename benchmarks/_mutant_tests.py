"""Tests run on mutants, each time in a process of its own that writes nothing.

It is forked off one that has imported what takes long to import, but neither the package that is
mutated nor a backend of JAX, which wouldn't survive it.
"""

import itertools
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from typing import Any, NamedTuple

import coverage
import hypothesis  # noqa: F401 (imported once, for all processes)
import jax
import optax  # noqa: F401
import pytest
import scipy.stats  # noqa: F401

from benchmarks._mutants import Mutant


class Baseline(NamedTuple):
    """What the tests do on the files as they are.

    Attributes:
        seconds: how long each test takes.
        contexts: of each file, which tests run which line, or which files of tests, on collection.
    """

    seconds: dict[str, float]
    contexts: dict[Path, dict[int, list[str]]]

    def tests_of(self, file: Path, mutant: Mutant, seconds: float) -> list[str]:
        """The tests that run the mutated lines, of no more than so many seconds.

        The fastest first, but of each function one before the second of any: they look at other
        things. Where a file runs the lines to make its tests' parameters, all of its tests. Of what
        is run on import alone, such as defaults, all tests that run anything of the mutated file.
        """
        lines = self.contexts[file]
        here = {x for n in range(mutant.first, mutant.last + 1) for x in lines.get(n, ())}
        anywhere = {x for tests in lines.values() for x in tests}

        def among(contexts: set[str]) -> list[str]:
            return [x for x in self.seconds if x in contexts or x.partition("::")[0] in contexts]

        fastest = sorted(among(here) or among(anywhere), key=self.seconds.__getitem__)
        before = Counter[str]()
        turns: dict[str, int] = {}
        for test in fastest:
            function = test.partition("[")[0]
            turns[test] = before[function]
            before[function] += 1
        ordered = sorted(fastest, key=turns.__getitem__)  # stable
        total = itertools.accumulate(self.seconds[x] for x in ordered)
        return [x for x, until in zip(ordered, total, strict=True) if until <= seconds]

    def limit(self, tests: Iterable[str]) -> float:
        """After how many seconds the tests have taken far too long."""
        return 30 + 5 * sum(self.seconds[x] for x in tests)


class _Recorder:
    """A plugin of pytest: which test runs, and for how long, or which file of tests is read."""

    def __init__(self, measured: coverage.Coverage) -> None:
        self.measured, self.seconds = measured, {}

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(self, collector: pytest.Collector) -> Iterator[None]:
        self.measured.switch_context(collector.nodeid)
        result = yield
        self.measured.switch_context("")
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.measured.switch_context(item.nodeid)
        start = time.perf_counter()
        result = yield
        self.seconds[item.nodeid] = time.perf_counter() - start
        self.measured.switch_context("")
        return result


class _Chosen:
    """A plugin of pytest: these tests alone, in this order."""

    def __init__(self, tests: Sequence[str]) -> None:
        self.rank = {test: i for i, test in enumerate(tests)}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted(
            (x for x in items if x.nodeid in self.rank), key=lambda x: self.rank[x.nodeid]
        )


class _Mutated(MetaPathFinder):
    """Finds the module of one file, with another source."""

    def __init__(self, file: Path, source: str) -> None:
        self.file, self.source = file.resolve(), source

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: Any = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path)
        if spec is None or spec.origin is None or Path(spec.origin) != self.file:
            return None
        loader = SourceFileLoader(name, spec.origin)
        loader.get_code = lambda fullname: compile(self.source, str(self.file), "exec")
        spec.loader = loader
        return spec


def baseline(files: Sequence[Path], tests: Sequence[str], folder: Path) -> Baseline | None:
    """Run the tests on the files as they are; None if they fail."""
    data, times = str(folder / "coverage"), folder / "seconds.json"

    def run() -> int:
        measured = coverage.Coverage(data, config_file=False, include=[str(x) for x in files])
        recorder = _Recorder(measured)
        measured.start()
        for file in files:
            _import(file)
        code = _pytest(tests, recorder)
        measured.stop()
        measured.save()
        times.write_text(json.dumps(recorder.seconds))
        return code

    if _in_a_child(run, None) != 0:
        return None
    stored = coverage.CoverageData(data)
    stored.read()
    contexts = {x: stored.contexts_by_lineno(str(x.resolve())) for x in files}
    return Baseline(json.loads(times.read_text()), contexts)


def survives(
    file: Path, mutant: Mutant, tests: Sequence[str], seconds: float, compiled: Path
) -> bool:
    """Whether the tests pass on the mutant, and within so many seconds."""

    def run() -> int:
        sys.meta_path.insert(0, _Mutated(file, mutant.source))
        return _pytest([*dict.fromkeys(x.split("::")[0] for x in tests)], _Chosen(tests))

    if not tests:
        return True
    start = time.time()
    code = _in_a_child(run, seconds)
    if code < 0:  # in the midst of what may have been writing
        for program in compiled.iterdir():
            if program.stat().st_mtime >= start:
                program.unlink()
    return code == 0


def keep_compiled(folder: Path) -> None:
    """Keep compiled programs there: most are the same for all mutants."""
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _import(file: Path) -> None:
    """Import a file by its name from here, so that no file of tests seems to run all of it."""
    with suppress(ImportError, ValueError):
        import_module(".".join(file.resolve().relative_to(Path.cwd()).with_suffix("").parts))


def _pytest(tests: Sequence[str], plugin: object) -> int:
    # Pytest's own import of what it is given, to rewrite assertions, would be of the file as it is.
    return int(pytest.main(["-x", "--assert=plain", "-p", "no:cacheprovider", *tests], [plugin]))


def _in_a_child(run: Callable[[], int], seconds: float | None) -> int:
    """The exit code of `run`; negative if it was killed, as it is after so many seconds."""
    child = os.fork()
    if child == 0:
        code = 3
        try:
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, 1)
            os.dup2(silence, 2)
            if seconds is not None:
                signal.alarm(max(1, round(seconds)))
            code = run()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

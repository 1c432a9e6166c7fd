"""Helpers that several of the tests here share, as fixtures because test files cannot import."""

import errno
import gzip
import os
import struct

import numpy as np
import pytest

from medjax.lab.commands import run as run_command
from medjax.lab.settings.config import as_record, configure
from medjax.lab.settings.field import plain
from medjax.lab.storage import results
from medjax.lab.sweeps import fit, grid, store
from medjax.lab.task.program import compile_program

# For each numpy type: its code in an IDX header, and the struct format of one value.
FORMATS = {
    "uint8": (0x08, "B"),
    "int8": (0x09, "b"),
    "int16": (0x0B, "h"),
    "int32": (0x0C, "i"),
    "float32": (0x0D, "f"),
    "float64": (0x0E, "d"),
}
MEASURED = ("train_loss", "validation_accuracy", "test_loss", "train_accuracy", "test_accuracy")
MEASURED += ("grad_norm", "median_mean_gap")


@pytest.fixture(scope="module", autouse=True)
def compiled_once():
    """Compile equal programs once: most runs of a file begin and measure as the others do."""
    done = {}

    def shared(program, values, workers, measured, held_out, others=None, mesh=None):
        others = done if mesh is None else others  # the key doesn't tell devices apart
        return compile_program(program, values, workers, measured, held_out, others, mesh)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_command, "compile_program", shared)
        patch.setattr(fit, "compile_program", shared)
        yield


@pytest.fixture(scope="session")
def idx_bytes():
    """Encode an array as IDX."""

    def idx_bytes(array):
        code, form = FORMATS[array.dtype.name]
        values = array.ravel().tolist()
        header = struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
        return header + struct.pack(f">{len(values)}{form}", *values)

    return idx_bytes


@pytest.fixture(scope="session")
def write():
    """Write bytes to a file, gzipped if it is called so, and return its path."""

    def write(path, data):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(data, 1) if path.suffix == ".gz" else data)
        return path

    return write


@pytest.fixture(scope="session")
def refused():
    """Check that a call fails with one line that names the file and says what is wrong."""

    def refused(call, *args, kind=ValueError, match, names):
        with pytest.raises(kind, match=match) as caught:
            call(*args)
        assert type(caught.value) is kind
        assert repr(str(names)) in str(caught.value)
        assert "\n" not in str(caught.value)

    return refused


@pytest.fixture(scope="session")
def rows():
    """List images, as bytes of pixels from 0 to a maximum, with their labels."""

    def rows(x, y, maximum):
        pixels = np.round(x * maximum).astype(np.uint8)
        return [(image.tobytes(), int(label)) for image, label in zip(pixels, y, strict=True)]

    return rows


@pytest.fixture(scope="session")
def assert_same():
    """Check that two data sets are equal in every field."""

    def assert_same(a, b):
        assert (a.name, a.num_classes) == (b.name, b.num_classes)
        for field in ("train_x", "train_y", "test_x", "test_y"):
            np.testing.assert_array_equal(getattr(a, field), getattr(b, field), strict=True)

    return assert_same


@pytest.fixture(scope="session")
def make_run():
    """Write the folder of a run, with figures made up; return what is measured."""

    def make_run(folder, *, done=100, figures=None, **settings):
        config = configure(**{"dataset": "digits", "steps": 100} | settings)
        record = {
            "config": as_record(config),
            "own_code": {},
            "data": {"train_examples": 1442},
            **results.provenance(),
        }
        results.claim_folder(folder, record)
        steps = np.arange(0, done + 1, 25)
        columns = {name: (k + 1) / (1 + 0.1 * steps) for k, name in enumerate(MEASURED)}
        columns = {"step": steps} | columns | (figures or {})
        if done:
            results.write_table(folder / "metrics.parquet", columns)
        if done == config.steps:
            last = {name: values[-1].item() for name, values in columns.items()}
            results.write_json(folder / "summary.json", last | {"steps_per_second": 1234.5})
        return columns

    return make_run


@pytest.fixture(scope="session")
def make_sweep():
    """Write the folder of a sweep of which some runs are finished, with figures made up."""

    def make_sweep(folder, finished=None, **axes):
        axes = {"dataset": ["digits"], "steps": [20]} | axes
        runs = grid.expand(axes)
        finished = range(len(runs)) if finished is None else finished
        varied = {
            name: [*dict.fromkeys(plain(getattr(r, name)) for r in runs)]
            for name in grid.varied(runs)
        }
        settings = {k: v for k, v in as_record(runs[0]).items() if k not in varied}
        record = {"grid": store.fingerprint(runs), "runs": len(runs), "settings": settings}
        sessions = {"axes": varied, "sessions": [results.provenance()]}
        results.write_json(folder / results.CONFIG, record | sessions)
        store.write_runs(folder, runs)
        rng = np.random.default_rng(0)
        for run in finished:
            columns = {"run": np.full(3, run), "step": np.array([0, 10, 20])}
            columns |= {name: np.float32(rng.uniform(0.1, 0.9, 3)) for name in MEASURED}
            results.write_table(store.part(folder, 0, run), columns)
        if len(finished) == len(runs):
            store.write_table(folder, runs)
        return runs

    return make_sweep


@pytest.fixture
def full_disk(monkeypatch):
    """Make every write to a file fail, from the call on."""

    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return lambda: monkeypatch.setattr(os, "fsync", refuse)

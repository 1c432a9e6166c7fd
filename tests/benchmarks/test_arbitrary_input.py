"""Arbitrary bytes for every parser, and what `benchmarks.fuzz` says of those that crash."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from benchmarks import fuzz, report
from benchmarks.arbitrary import inputs_of
from benchmarks.parsers import PARSERS, Parser
from medjax.lab.data import text
from medjax.lab.data.cifar import read_cifar
from medjax.lab.data.idx import read_idx
from medjax.lab.settings import cli
from medjax.lab.settings.config import configure
from medjax.lab.storage import results
from medjax.lab.sweep import grid

NAMES = pytest.mark.parametrize("name", PARSERS)
CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


@NAMES
def test_seeds_are_valid(name, tmp_path):
    for seed in PARSERS[name].seeds:
        if name == "dataset" and seed != b"digits":  # of the others no file is there
            continue
        assert PARSERS[name].survives(seed, tmp_path), seed


@NAMES
def test_any_bytes_are_read_or_refused(name, tmp_path_factory):
    folder = tmp_path_factory.mktemp(name)

    @given(inputs_of(PARSERS[name]))
    @settings(max_examples=200)
    def survives(content):
        PARSERS[name].survives(content, folder)

    survives()


@given(
    st.sampled_from(sorted(CODES)).flatmap(
        lambda kind: hnp.arrays(kind, hnp.array_shapes(max_dims=4, min_side=0, max_side=4))
    )
)
def test_idx_is_read_back(tmp_path_factory, array):
    path = tmp_path_factory.getbasetemp() / "written"
    header = struct.pack(
        f">BBBB{array.ndim}I", 0, 0, CODES[array.dtype.str[1:]], array.ndim, *array.shape
    )
    path.write_bytes(header + array.astype(array.dtype.newbyteorder(">")).tobytes())
    np.testing.assert_array_equal(read_idx(path), array, strict=True)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=3), st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_cifar_is_read_back(tmp_path_factory, labels, seed):
    folder = tmp_path_factory.getbasetemp() / "cifar"
    folder.mkdir(exist_ok=True)
    images = np.random.default_rng(seed).integers(256, size=(len(labels), 3, 1024), dtype=np.uint8)
    records = b"".join(bytes([y]) + x.tobytes() for y, x in zip(labels, images, strict=True))
    for name in (*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"):
        (folder / name).write_bytes(records)
    train, test = read_cifar(folder)
    assert test.labels.tolist() == labels
    assert train.labels.tolist() == 5 * labels
    # Colours last, where a record has them first.
    np.testing.assert_array_equal(test.images.reshape(-1, 1024, 3), images.swapaxes(1, 2))


@given(st.text(st.characters(codec="utf-8", exclude_characters="\r"), min_size=1650, max_size=1700))
@settings(max_examples=20)
def test_text_is_read_back(tmp_path_factory, written):
    path = tmp_path_factory.getbasetemp() / "text"
    written = "x" + written  # no byte order mark
    path.write_bytes(written.encode())
    read = text.read(path)
    size = len(written) // 10
    parts = [written[k * size : (k + 1) * size] for k in range(10)]
    kept = "".join(part[: size // 33 * 33] for part in parts)
    assert "".join(read.alphabet[k] for k in read.characters.ravel()) == kept


AXES = st.fixed_dictionaries(
    {},
    optional={
        "workers": st.lists(st.integers(1, 2**31 - 1), min_size=1, max_size=3, unique=True),
        "lr": st.lists(st.floats(1e-30, 1e30), min_size=1, max_size=3, unique=True),
        "rule": st.lists(st.sampled_from(["sign", "krum", "mean"]), min_size=1, unique=True),
        "batch_size": st.lists(st.integers(1, 99) | st.just("full"), min_size=1, unique=True),
    },
)


@given(AXES)
@settings(max_examples=50)
def test_a_grid_is_read_back(tmp_path_factory, axes):
    path = tmp_path_factory.getbasetemp() / "grid.toml"
    # Lists of numbers and of simple words are written alike in TOML and JSON.
    path.write_text("".join(f"{name} = {json.dumps(x)}\n" for name, x in axes.items()))
    parser = cli.Parser("sweep", "")
    grid.add_grid_options(parser)
    assert grid.read_axes(parser, ["--grid", str(path)])[1] == axes


@given(
    st.floats(1e-30, 1e30),
    st.integers(0, 2**31 - 1),
    st.floats(0, 1, exclude_max=True),
    st.sampled_from([None, "top_k:fraction=0.5", "qsgd"]),
)
@settings(max_examples=50)
def test_a_record_is_read_back(tmp_path_factory, lr, seed, momentum, compress):
    folder = tmp_path_factory.getbasetemp()
    config = configure(rule="mean", lr=lr, seed=seed, momentum=momentum, compress=compress)
    record = folder / "record.json"
    results.write_json(record, {"config": config, "checkpoint_every": 3})
    read = PARSERS["config"].parse(record.read_bytes(), folder)
    assert vars(read) == vars(config) | {"out": str(folder)}


@pytest.mark.slow
def test_all_parsers_survive_a_hundred_thousand_inputs(capsys):
    guided = report.optional("atheris") is not None
    inputs = 100_000 if guided else 2_000  # hypothesis takes longer for each
    assert fuzz.main(["--inputs", f"{inputs}"]) == 0
    printed = capsys.readouterr().out
    for name in PARSERS:
        (row,) = (line.split() for line in printed.splitlines() if line.startswith(name))
        assert int(row[1]) >= inputs / len(PARSERS)
        assert row[3] == "none"
        assert (int(row[2]) > 0) == guided


def _breaks(content: bytes, folder: Path) -> None:
    if content[:1] == b"!":
        raise KeyError("exclaimed")


def test_a_crash_is_told_where_hypothesis_makes_the_inputs(monkeypatch, capsys):
    monkeypatch.setattr(report, "optional", lambda package: None)
    monkeypatch.setitem(PARSERS, "idx", Parser(_breaks, (b"!",)))
    assert fuzz.main(["--inputs", "300", "--parser", "idx"]) == 1
    printed = capsys.readouterr().out
    assert "atheris isn't installed: hypothesis makes the inputs" in printed
    assert "idx: KeyError('exclaimed')" in printed
    tried, survived = fuzz.check(80)
    assert survived == tried - 1


@pytest.mark.skipif(report.optional("atheris") is None, reason="atheris is for Linux")
def test_a_crash_is_told_where_libfuzzer_does(monkeypatch):
    done = fuzz.fuzz(50, names=["idx"])["idx"]
    assert done.inputs >= 50
    assert done.coverage > 50
    assert done.crash == ""
    # A limit below what JAX takes; it looks once a second.
    monkeypatch.setattr(fuzz, "_MEGABYTES", 50)
    done = fuzz.fuzz(1_000_000, names=["idx"])["idx"]
    assert "ERROR: libFuzzer: out-of-memory" in done.crash

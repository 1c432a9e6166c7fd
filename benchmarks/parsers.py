"""What reads bytes that others made, for `benchmarks.fuzz` and the tests to give it any."""

import argparse
import contextlib
import functools
import gzip
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from medjax.lab.settings.options import add_options, add_out

from medjax.attacks import ATTACKS
from medjax.compressors import COMPRESSORS
from medjax.lab import data
from medjax.lab.data import text
from medjax.lab.data.cifar import read_cifar
from medjax.lab.data.idx import read_idx
from medjax.lab.machine import devices as machine
from medjax.lab.machine import processes
from medjax.lab.settings import algorithms, cli, named
from medjax.lab.storage import checkpoints
from medjax.lab.sweep import grid
from medjax.mixing import MIXINGS
from medjax.rules import median
from medjax.servers import SERVERS

_IDX = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 2]) + bytes(8)
_RECORD = bytes(3073)
_CONFIG = {
    "config": {"rule": "noisy_sign", "lr": 0.003, "b": "adaptive:0.1", "workers": 10, "mix": None},
    "checkpoint_every": 2,
    "resumed": [],
}
_KINDS = (
    ("rule", named.one_of, algorithms.RULE_TABLE),
    ("mixing", named.chain_of, MIXINGS),
    ("attack", named.chain_of, ATTACKS),
    ("compressor", named.one_of, COMPRESSORS),
    ("server", named.one_of, SERVERS),
)
_KNOWN = {
    "num_byzantine": 1,
    "num_workers": 10,
    "num_classes": 10,
    "rule": median(),
    "learning_rate": 0.1,
    "momentum": 0.9,
}
_FLAGS = ("mesh", "lr-schedule", "b", "worker-momentum", "coordinator", "batch-size", "devices")
_WHOLE = ("digits", "mnist5k", "text")


class Parser(NamedTuple):
    """What reads bytes, of a file or a word of a command line.

    Attributes:
        parse: reads them, with a folder to put them in; of bytes that it can't read it raises one
            of the errors.
        seeds: some that it can read.
        errors: what it is documented to raise.
    """

    parse: Callable[[bytes, Path], object]
    seeds: Sequence[bytes]
    errors: tuple[type[BaseException], ...] = (ValueError,)

    def survives(self, content: bytes, folder: Path) -> bool:
        """Read them, or be told that they can't be read; anything else is raised.

        Returns:
            Whether they could be read.
        """
        try:
            self.parse(content, folder)
        except self.errors:
            return False
        except SystemExit as ended:
            if ended.code != 2:
                raise
            return False
        return True


def _idx(content: bytes, folder: Path) -> object:
    return read_idx(_file(content, folder / "idx"))


def _cifar(content: bytes, folder: Path) -> object:
    for name in (*(f"data_batch_{k}.bin" for k in range(2, 6)), "test_batch.bin"):
        if not (folder / name).exists():
            _file(_RECORD, folder / name)
    _file(content, folder / "data_batch_1.bin")
    return read_cifar(folder)


def _text(content: bytes, folder: Path) -> object:
    return text.read(_file(content, folder / "text"))


def _grid(content: bytes, folder: Path) -> object:
    path = _file(content, folder / "grid.toml")
    with contextlib.redirect_stderr(io.StringIO()):
        return grid.read_axes(_sweep_parser(), ["--grid", str(path)])


def _config(content: bytes, folder: Path) -> object:
    _file(content, folder / "config.json")
    words = ["--resume", str(folder)]
    with contextlib.redirect_stderr(io.StringIO()):
        return checkpoints.settings(_run_parser(), words, _run_parser().parse_args(words))


def _named(content: bytes, folder: Path) -> object:
    """The first byte says of what kind."""
    del folder
    kind, one_of, table = _KINDS[content[0] % len(_KINDS) if content else 0]
    parsed = one_of(kind, table)(_word(content[1:]))
    return [named.build(part, table, **_KNOWN) for part in named.links(parsed)]


def _flag(content: bytes, folder: Path) -> object:
    """The first byte says which."""
    del folder
    flag = _FLAGS[content[0] % len(_FLAGS) if content else 0]
    with contextlib.redirect_stderr(io.StringIO()):
        return _run_parser().parse_args([f"--{flag}={_word(content[1:])}"])


def _dataset(content: bytes, folder: Path) -> object:
    name = _word(content)
    # Those that are whole names take time to make, and nothing of them is read.
    return name in _WHOLE or data.load(name, cache_dir=folder)


PARSERS: Mapping[str, Parser] = {
    "idx": Parser(_idx, (_IDX, gzip.compress(_IDX, mtime=0), b"\0\0\x0d\1\0\0\0\1" + bytes(4))),
    "cifar": Parser(_cifar, (_RECORD, b"\x09" + bytes(3072) + _RECORD)),
    "text": Parser(_text, (b"It was so. " * 200, "Gänse! ".encode() * 300)),
    "grid": Parser(
        _grid,
        (
            b'rule = ["sign", "noisy_sign"]\nb = [0, 1e-5, 0.1]\nseeds = 2\n',
            b"classes-per-worker = 2\nbatch_size = ['full', 8]\nlr = 1e-3\n",
        ),
    ),
    "config": Parser(_config, (json.dumps(_CONFIG).encode(),)),
    "named": Parser(
        _named,
        (
            b"\0krum:num_neighbors=3",
            b"\0centered_clipping:tau=1e+5,num_steps=2",
            b"\1nnm+clip:max_norm=1.0",
            b"\2alie:tau=none+backdoor:target=1,size=2",
            b"\3top_k:fraction=0.5",
            b"\4adam:b1=0.9,eps=1e-3",
        ),
        (ValueError, argparse.ArgumentTypeError),
    ),
    "flag": Parser(
        _flag,
        (
            b"\0workers=4,grid=1,coordinates=2",
            b"\1warmup:100,1000:2,3000:10",
            b"\1warmup:5,cosine",
            b"\2adaptive:0.1",
            b"\3undamped:0.9",
            b"\4localhost:1234",
            b"\5full",
        ),
    ),
    "dataset": Parser(
        _dataset, (b"idx:x", b"cifar:~/x", b"text:x", b"digits"), (ValueError, FileNotFoundError)
    ),
}
"""By name."""


def _file(content: bytes, path: Path) -> Path:
    path.write_bytes(content)
    return path


def _word(content: bytes) -> str:
    """As Python has the words of a command line."""
    return os.fsdecode(content)


@functools.cache
def _sweep_parser() -> cli.Parser:
    parser = cli.Parser("sweep", "")
    grid.add_grid_options(parser)
    return parser


@functools.cache
def _run_parser() -> cli.Parser:
    parser = cli.Parser("run", "")
    add_options(parser)
    machine.add_machine(parser)
    processes.add_processes(parser)
    checkpoints.add_checkpoints(parser)
    add_out(parser)
    return parser

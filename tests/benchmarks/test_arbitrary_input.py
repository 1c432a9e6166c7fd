"""Arbitrary bytes in words of a command line and in files: accepted, or refused in one line."""

import gzip
import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.bad_input import complaint
from benchmarks.cases import Command
from medjax.lab import data

# No run begins: what is wrong with a word or a file is found before the data are looked for.
NOWHERE = "idx:nowhere"
ACCEPTED = "'nowhere': no such directory"

WORDS = {
    "--dataset": (b"idx:nowhere",),
    "--rule": (b"noisy_krum:num_neighbors=3", b"noisy_centered_clipping:tau=1e+5,num_steps=2"),
    "--mix": (b"nnm+clip:max_norm=1.0",),
    "--attack": (b"alie:tau=none+backdoor:target=1,size=2",),
    "--compress": (b"top_k:fraction=0.5",),
    "--server": (b"adam:b1=0.9,eps=1e-3",),
    "--lr-schedule": (b"warmup:100,1000:2,3000:10", b"warmup:5,cosine"),
    "--b": (b"adaptive:0.1",),
    "--worker-momentum": (b"undamped:0.9",),
    "--batch-size": (b"full",),
    "--mesh": (b"workers=1,coordinates=1",),
}
"""Valid words by their flags."""

FILES = {
    ("sweep", "--dataset", NOWHERE, "--grid", "grid.toml"): (
        b'rule = ["sign", "noisy_sign"]\nb = [0, 1e-5, 0.1]\nseeds = 2\n',
        b"classes-per-worker = 2\nbatch_size = ['full', 8]\nlr = 1e-3\n",
    ),
    ("run", "--resume", "run/config.json"): (
        b'{"config": {"rule": "noisy_sign", "lr": 0.003, "b": "adaptive:0.1", "mix": null, '
        b'"dataset": "idx:nowhere"}, "checkpoint_every": 2, "resumed": []}',
    ),
}
"""Valid files by the commands that read them."""

IMAGES = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 2]) + bytes(8)
LABELS = bytes([0, 0, 8, 1, 0, 0, 0, 2, 0, 1])
RECORD = bytes(3073)
DATA = {
    "idx:.": {
        "train-images-idx3-ubyte": IMAGES,
        "train-labels-idx1-ubyte": LABELS,
        "t10k-images-idx3-ubyte": gzip.compress(IMAGES, mtime=0),
        "t10k-labels-idx1-ubyte": LABELS,
    },
    "cifar:.": {
        f"{name}.bin": RECORD for name in ("test_batch", *(f"data_batch_{k}" for k in range(1, 6)))
    },
    "text:text": {"text": "Gänse! ".encode() * 300},
}
"""Valid files of data sets by their names."""


def arbitrary(*valid):
    """Bytes that are refused at the first, at a later one, or not at all."""
    changed = st.builds(
        lambda seed, start, length, other: seed[:start] + other + seed[start + length :],
        st.sampled_from(valid),
        st.integers(0, 200),
        st.integers(0, 20),
        st.binary(max_size=20),
    )
    return st.binary() | changed


def word(flag, content, message=""):
    """The command that is given the bytes as a word, as Python has those of a command line."""
    valid = ("--dataset", NOWHERE, "--rule", "noisy_mean")
    return Command("run", (*valid, f"{flag}={os.fsdecode(content)}"), message)


def file(arguments, content, message=""):
    """The command that reads the bytes as a file."""
    command, *words, name = arguments
    return Command(command, (*words, name.removesuffix("/config.json")), message, {name: content})


VALID = [
    *(word(flag, seed, ACCEPTED) for flag, seeds in WORDS.items() for seed in seeds),
    *(file(arguments, seed, ACCEPTED) for arguments, seeds in FILES.items() for seed in seeds),
]


@pytest.mark.parametrize("command", VALID, ids=lambda command: command.name)
def test_valid_ones_are_accepted(command, tmp_path):
    assert not complaint(command, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("flag", WORDS)
def test_a_word_is_accepted_or_refused(flag, tmp_path):
    @given(arbitrary(*WORDS[flag]))
    @settings(max_examples=60)
    def answers(content):
        assert not complaint(word(flag, content), tmp_path)

    answers()


@pytest.mark.slow
@pytest.mark.parametrize("arguments", FILES, ids=lambda arguments: arguments[0])
def test_a_file_is_accepted_or_refused(arguments, tmp_path):
    @given(arbitrary(*FILES[arguments]))
    @settings(max_examples=120)
    def answers(content):
        assert not complaint(file(arguments, content), tmp_path)

    answers()


@pytest.mark.slow
@given(lr=st.floats(1e-30, 1e30), seed=st.integers(0, 2**31 - 1), momentum=st.floats(0, 1 - 1e-6))
@settings(max_examples=20)
def test_every_number_in_a_file_is_accepted(tmp_path_factory, **numbers):
    grid = "".join(f"{name} = {value!r}\n" for name, value in numbers.items()).encode()
    config = {"config": numbers | {"dataset": NOWHERE}, "checkpoint_every": 2, "resumed": []}
    for arguments, content in zip(FILES, (grid, json.dumps(config).encode()), strict=True):
        command = file(arguments, content, ACCEPTED)
        assert not complaint(command, tmp_path_factory.getbasetemp())


@pytest.mark.slow
@pytest.mark.parametrize("name", DATA)
def test_data_are_read_or_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(files):
        for file, content in files.items():
            (tmp_path / file).write_bytes(content)

    write(DATA[name])
    assert data.load(name, tmp_path).num_classes > 0

    @given(
        st.sampled_from(sorted(DATA[name])).flatmap(
            lambda file: st.tuples(st.just(file), arbitrary(DATA[name][file]))
        )
    )
    @settings(max_examples=60)
    def answers(changed):
        write(DATA[name] | dict([changed]))
        said = ""
        try:
            data.load(name, tmp_path)
        except ValueError as error:
            said = str(error)
        assert said.isprintable()

    answers()

"""Reading what is damaged, what lies about itself, and what is no IDX file at all."""

import gzip
import os
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medjax.lab.data import read_idx


def header(code: int, *sizes: int) -> bytes:
    return bytes([0, 0, code, len(sizes)]) + b"".join(struct.pack(">I", size) for size in sizes)


BROKEN = {
    "empty": (b"", "empty file"),
    "one byte": (b"\0", r"truncated header: 1 bytes; valid: at least 4"),
    "half a magic": (b"\0\0\x08", r"truncated header: 3 bytes; valid: at least 4"),
    "a web page": (b"<!doctype html>", r"not an IDX file: begins with 3c 21 64 6f; valid: 00 00"),
    "not even two zeros": (b"\0\1\x08\1\0\0\0\0", r"begins with 00 01 08 01; valid: 00 00"),
    "type": (b"\0\0\x0a\1\0\0\0\0", r"type code 0a; valid: 08, 09, 0b, 0c, 0d, 0e"),
    "no dimensions": (b"\0\0\x08\0\x01", r"0 dimensions; valid: 1 to 32"),
    "many dimensions": (header(8, *[1] * 33) + b"\1", r"33 dimensions; valid: 1 to 32"),
    "half the sizes": (header(8, 1, 2, 3)[:-2], r"truncated header: 14 bytes; valid: 16 for 3"),
    "too little": (
        header(0x0C, 2, 2) + bytes(15),
        r"wrong amount of data: only 15, where .* \(2, 2\) of int32 needs exactly 16 bytes",
    ),
    "nothing": (header(8, 7), r"only 0, where .* \(7,\) of uint8 needs exactly 7 bytes"),
    "too much": (header(8, 3) + bytes(4), r"more, where .* \(3,\) of uint8 needs exactly 3 bytes"),
    "too much for none": (header(8, 0) + b"\0", r"more, .* needs exactly 0 bytes"),
    "huge": (
        header(0x08, 2**32 - 1, 2),
        r"claims shape \(4294967295, 2\) .* most 4294967296 bytes",
    ),
    "huge items": (header(0x0E, 2**29 + 1), r"\(536870913,\) of float64; valid: at most"),
    "huge though empty": (header(8, 0, 2**32 - 1, 2**32 - 1, 2**32 - 1), "valid: at most"),
}


@pytest.mark.parametrize("name", ["file", "file.gz"])
@pytest.mark.parametrize("data", BROKEN)
def test_read_idx_refuses(tmp_path, name, data, write, refused):
    content, match = BROKEN[data]
    path = write(tmp_path / name, content)
    refused(read_idx, path, match=match, names=path)


def corrupt_gzips() -> dict[str, bytes]:
    whole = gzip.compress(header(8, 1000) + bytes(range(250)) * 4, mtime=0)
    flipped = bytearray(whole)
    flipped[-8] ^= 1  # the first byte of the stored checksum
    return {
        "only the magic": b"\x1f\x8b",
        "cut in its header": whole[:7],
        "cut in its data": whole[: len(whole) // 2],
        "cut in its checksum": whole[:-3],
        "wrong checksum": bytes(flipped),
        "unknown method": b"\x1f\x8b\x07" + whole[3:],
        "not deflate": whole[:10] + b"\xff" * 20,
        "garbage behind": whole + b"garbage",
    }


@pytest.mark.parametrize("damage", corrupt_gzips())
def test_read_idx_refuses_corrupt_gzip(tmp_path, damage, refused):
    path = tmp_path / "file.gz"
    path.write_bytes(corrupt_gzips()[damage])
    refused(read_idx, path, match=r"corrupt gzip \(.+\); expected one whole", names=path)


@pytest.mark.parametrize(
    ("claimed", "held", "match"),
    [(10, 2**26, "more, where"), (2**32 - 1, 0, "only 0, where")],
    ids=["a bomb of 64 MiB behind 10 bytes", "nothing behind 4 GiB"],
)
@pytest.mark.parametrize("name", ["file", "file.gz"])
def test_read_idx_memory_does_not_follow_lies(tmp_path, name, claimed, held, match, write, refused):
    path = write(tmp_path / name, header(8, claimed) + bytes(held))
    tracemalloc.start()
    try:
        refused(read_idx, path, match=match, names=path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * 2**20  # a few chunks of 1 MiB


def test_read_idx_refuses_what_is_not_a_file(tmp_path, refused):
    refused(read_idx, tmp_path, match="a directory; expected an IDX file", names=tmp_path)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)  # opening it would wait for ever
    refused(read_idx, pipe, match="not a regular file; expected an IDX", names=pipe)
    missing = tmp_path / "two\nlines"
    refused(read_idx, missing, kind=FileNotFoundError, match="no such file", names=missing)


# Bytes that come ever closer to a valid file, so that every check is reached.
NEARLY_IDX = st.builds(
    lambda code, sizes, rest: header(code, *sizes) + rest,
    st.sampled_from([8, 9, 10, 11, 12, 13, 14]),
    st.lists(st.integers(0, 3) | st.integers(0, 2**32 - 1), max_size=40),
    st.binary(max_size=40),
)
NEARLY_GZIP = st.builds(
    lambda data, cut, at, flip: bytes(
        byte ^ (flip if place == at else 0)
        for place, byte in enumerate(gzip.compress(data, mtime=0)[:cut])
    ),
    NEARLY_IDX,
    st.integers(0, 100),
    st.integers(0, 60),
    st.integers(0, 255),
)


@pytest.mark.slow
@given(st.binary() | NEARLY_IDX | NEARLY_GZIP | st.binary().map(b"\x1f\x8b\x08\0".__add__))
@settings(deadline=None, max_examples=400)
def test_read_idx_raises_nothing_but_value_error(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "arbitrary"
    path.write_bytes(data)
    try:
        result = read_idx(path)
    except ValueError as err:
        result = err
    if not isinstance(result, np.ndarray):
        assert type(result) is ValueError
        assert str(result).startswith(f"{str(path)!r}: ")
        assert "\n" not in str(result)

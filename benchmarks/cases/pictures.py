"""Invalid pictures and labels: CIFAR-10 as PNG."""

import io
import json
import struct
import zlib
from collections.abc import Iterator

from PIL import Image

from benchmarks.cases._case import Command

_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def _png(width: int = 1024, height: int = 2, mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new(mode, (width, height)).save(file, "PNG")
    return file.getvalue()


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def _header(width: int, height: int) -> bytes:
    """Return the beginning of a picture in RGB of 8 bits."""
    return _SIGNATURE + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))


def _changed(picture: bytes) -> bytes:
    """Change a byte of the pixels, which the checksum tells."""
    place = picture.index(b"IDAT") + 10
    return picture[:place] + bytes([picture[place] ^ 1]) + picture[place + 1 :]


_END = _chunk(b"IEND", b"")
_GARBAGE = _chunk(b"IDAT", b"no zlib stream")
_FIRST, _TRAIN, _TEST = "d/data_batch_1.png", "d/train_lables.json", "d/test_lables.json"
_IS_NONE = "'d/data_batch_1.png' can't be read as PNG: it isn't one"
_UNREADABLE = "'d/data_batch_1.png' can't be read as PNG: "
_NO_LIST = "'d/test_lables.json': no list of whole numbers; valid: [6, 9, ...]"
_NO_JSON = "'d/test_lables.json' can't be read as JSON: "

CIFAR: tuple[tuple[str, dict[str, bytes | str | None], str], ...] = (
    ("nothing", {_FIRST: b""}, _IS_NONE),
    ("text", {_FIRST: b"<!doctype html>"}, _IS_NONE),
    ("a JPEG", {_FIRST: b"\xff\xd8\xff\xe0\0\x10JFIF\0" + bytes(99)}, _IS_NONE),
    ("only a signature", {_FIRST: _SIGNATURE}, _IS_NONE),
    ("no pixels", {_FIRST: _header(1024, 2) + _END}, _UNREADABLE),
    ("half of it", {_FIRST: _png()[:-20]}, _UNREADABLE),
    ("a byte changed", {_FIRST: _changed(_png())}, _UNREADABLE),
    ("garbage for pixels", {_FIRST: _header(1024, 2) + _GARBAGE + _END}, _UNREADABLE),
    ("1000 pixels", {_FIRST: _png(1000)}, "1000×2 pixels in mode RGB; valid: a width of 1024, an"),
    ("grey", {_FIRST: _png(mode="L")}, "1024×2 pixels in mode L; valid: a width of 1024"),
    ("with alpha", {_FIRST: _png(mode="RGBA")}, "1024×2 pixels in mode RGBA; valid"),
    ("a bomb", {_FIRST: _header(1024, 90_000) + _END}, "a picture of more than 89478485 pixels"),
    ("a larger bomb", {_FIRST: _header(2**30, 2**30) + _END}, "a picture of more than 89478485"),
    ("a folder", {_FIRST: None}, "'d' lacks data_batch_1.png; expected the files of CIFAR-10's"),
    ("a folder in it", {"d/package/test_batch.png": b""}, "lacks data_batch_1.png, "),
    ("nine labels", {_TRAIN: json.dumps([0] * 9).encode()}, "9 labels; valid: 10, one for each"),
    ("label 10", {_TEST: b"[0, 10]"}, "'d/test_lables.json': label 10 at place 1; valid: 0 to 9"),
    ("label -1", {_TEST: b"[-1, 0]"}, "'d/test_lables.json': label -1 at place 0; valid: 0 to 9"),
    ("a large label", {_TEST: b"[0, " + b"9" * 400 + b"]"}, "label 99999"),
    ("an endless label", {_TEST: b"[0, " + b"9" * 5000 + b"]"}, _NO_JSON),
    ("a real label", {_TEST: b"[0, 1.0]"}, _NO_LIST),
    ("true", {_TEST: b"[0, true]"}, _NO_LIST),
    ("an object", {_TEST: b'{"0": 1}'}, _NO_LIST),
    ("a number", {_TEST: b"3"}, _NO_LIST),
    ("lists in lists", {_TEST: b"[" * 100_000}, _NO_JSON),
    ("no labels", {_TEST: b""}, _NO_JSON),
    ("not UTF-8", {_TEST: b"\xff"}, _NO_JSON),
    ("too many labels", {_TEST: b" " * (2**24 + 1)}, "more than 16777216 bytes; valid: up to that"),
)
"""A name, the files in place of good ones, and the message."""


def cases() -> Iterator[Command]:
    """Yield the mistakes of the table."""
    names = ("test_batch", *(f"data_batch_{k}" for k in range(1, 6)))
    good = dict.fromkeys((f"d/{name}.png" for name in names), _png())
    good |= {_TRAIN: json.dumps([0, 1] * 5).encode(), _TEST: b"[0, 1]"}
    for _, changed, message in CIFAR:
        yield Command("run", ("--dataset", "cifar:d"), message, good | changed)

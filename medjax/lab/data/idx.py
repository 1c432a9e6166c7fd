"""IDX files, the format of MNIST and its many relatives, plain or gzipped.

A file is two zero bytes, a type code, the number of dimensions, each size as a big-endian 32-bit
integer, and then the values, big-endian, last index fastest. Nothing in a file is trusted: sizes
are checked before memory is asked for, and a gzip stream is never unpacked beyond what the header
claims plus one byte.
"""

import gzip
import math
import os
import re
import struct
import zlib
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from medjax.lab.data.files import existing_directory, existing_file, unreadable

MAX_BYTES = 4 * 2**30
"""The most data a header may claim. Full EMNIST, the largest known set, needs 0.6 GiB."""

_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MAX_NDIM = 32  # what every numpy can hold; the format itself would allow 255
_CHUNK = 2**20
_GZIP_MAGIC = b"\x1f\x8b"


def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """Read one IDX file.

    A gzipped file is recognised by its first bytes, not by its name: browsers unpack downloads and
    keep the `.gz`.

    Args:
        path: the file.

    Returns:
        A writable array in native byte order, of the type and shape that the header states.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it isn't exactly one well-formed IDX array of at most `MAX_BYTES`.
    """
    path, shown = existing_file(path, "an IDX file, plain or gzipped")
    try:
        with open(path, "rb") as raw, _unpack(raw) as stream:
            return _parse(stream)
    except (EOFError, gzip.BadGzipFile, zlib.error) as err:
        raise ValueError(
            f"{shown}: corrupt gzip ({err}); expected one whole gzipped IDX file: fetch it again"
        ) from err
    except OSError as err:
        raise unreadable(shown, err) from None
    except ValueError as err:
        raise ValueError(f"{shown}: {err}") from None


def _unpack(raw: IO[bytes]) -> IO[bytes]:
    start = raw.read(len(_GZIP_MAGIC))
    raw.seek(0)
    # typeshed does not count GzipFile as an IO[bytes], though it has all that is used here.
    return gzip.GzipFile(fileobj=raw) if start == _GZIP_MAGIC else raw  # pyright: ignore


def _parse(stream: IO[bytes]) -> np.ndarray:
    dtype, shape = _parse_header(stream)
    # An empty array may still have other sizes that no numpy array can have, hence the max.
    if math.prod(max(size, 1) for size in shape) * dtype.itemsize > MAX_BYTES:
        raise ValueError(
            f"the header claims shape {shape} of {dtype.name}; valid: at most {MAX_BYTES} bytes"
        )
    expected = math.prod(shape) * dtype.itemsize
    data = _read_up_to(stream, expected + 1)  # one more, to see (and in gzip, verify) the end
    if len(data) != expected:
        found = "more" if len(data) > expected else f"only {len(data)}"
        raise ValueError(
            f"wrong amount of data: {found}, where the header's shape {shape} of {dtype.name} "
            f"needs exactly {expected} bytes"
        )
    native = dtype.newbyteorder("=")  # jax takes no other byte order
    return np.frombuffer(data, dtype).reshape(shape).astype(native, copy=False)


def _parse_header(stream: IO[bytes]) -> tuple[np.dtype, tuple[int, ...]]:
    magic = _read_up_to(stream, 4)
    if not magic:
        raise ValueError("empty file; expected an IDX header: 00 00, type code, dimensions")
    if magic[:2] != b"\0\0"[: len(magic)]:
        raise ValueError(f"not an IDX file: begins with {magic.hex(' ')}; valid: 00 00 …")
    if len(magic) < 4:
        raise ValueError(f"truncated header: {len(magic)} bytes; valid: at least 4")
    code, ndim = magic[2], magic[3]
    if code not in _DTYPES:
        valid = ", ".join(f"{known:02x}" for known in _DTYPES)
        raise ValueError(f"unknown IDX type code {code:02x}; valid: {valid}")
    if not 1 <= ndim <= _MAX_NDIM:
        raise ValueError(f"{ndim} dimensions; valid: 1 to {_MAX_NDIM}")
    sizes = _read_up_to(stream, 4 * ndim)
    if len(sizes) < 4 * ndim:
        raise ValueError(
            f"truncated header: {4 + len(sizes)} bytes; valid: {4 + 4 * ndim} for {ndim} dimensions"
        )
    return np.dtype(_DTYPES[code]), struct.unpack(f">{ndim}I", sizes)


def _read_up_to(stream: IO[bytes], limit: int) -> bytearray:
    # In chunks, because read(limit) may set aside all of `limit` at once, on a mere claim.
    data = bytearray()
    while chunk := stream.read(min(_CHUNK, limit - len(data))):
        data += chunk
    return data


class IdxFiles(NamedTuple):
    """The four files of one data set."""

    train_images: Path
    train_labels: Path
    test_images: Path
    test_labels: Path


# MNIST, Fashion-MNIST and KMNIST call the test part t10k; EMNIST calls it test, and puts the name
# of the set in front. Archives differ in "-idx3" or ".idx3". Those made on a Mac hold a "._NAME"
# beside every NAME, hence no leading dot.
_NAME = re.compile(
    r"(?:(?P<set>[^.].*)-)?(?P<part>train|t10k|test)-"
    r"(?P<kind>images[-.]idx3|labels[-.]idx1)-ubyte(?P<gz>\.gz)?"
)


def find_idx(directory: str | os.PathLike[str]) -> IdxFiles:
    """Find the four IDX files of the one data set in a directory.

    Of a file that is there both plain and gzipped, the plain one is taken: it reads faster.

    Args:
        directory: the directory. Those below it are not searched.

    Returns:
        Their paths.

    Raises:
        FileNotFoundError: if there is no such directory, or some of the four are missing.
        ValueError: if it isn't a directory, or holds files of several data sets.
    """
    directory, shown = existing_directory(directory, "the directory of four IDX files")
    found: dict[str, Path] = {}
    sets: set[str] = set()
    # Plain before gzipped, then by name, so that the choice never depends on the file system.
    for path in sorted(directory.iterdir(), key=lambda path: (path.suffix == ".gz", path.name)):
        match = _NAME.fullmatch(path.name)
        # Some archives hold directories of just these names beside the files.
        if match is None or not path.is_file():
            continue
        sets.add(match["set"] or "no prefix")
        part = "train" if match["part"] == "train" else "test"
        found.setdefault(f"{part}_{match['kind'][:6]}", path)

    if len(sets) > 1:
        raise ValueError(
            f"{shown} holds several data sets ({', '.join(sorted(sets))}): "
            "put the four files of one set in a directory of its own"
        )
    missing = [field.replace("_", " ") for field in IdxFiles._fields if field not in found]
    if missing:
        raise FileNotFoundError(
            f"{shown} lacks {', '.join(missing)}; expected names such as "
            "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-… (or test-…), each with or "
            "without .gz"
        )
    return IdxFiles(**found)

"""Read arrays from NumPy's .npz files, of which any byte may be wrong."""

import io
import zipfile
import zlib
from typing import IO

import numpy as np

_PLAIN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

# Raised by zipfile for files cut at any length or with any bytes changed. RuntimeError is for an
# encrypted member, and includes NotImplementedError, for a version or flag that zipfile lacks.
_TORN = (ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


def read_npz(file: IO[bytes]) -> dict[str, np.ndarray]:
    """Read the arrays of an .npz file.

    A member is parsed only after its checksum has been verified, so that no array has wrong values;
    names that are wrong or missing are for the caller to see. Pickled objects are never loaded.

    Args:
        file: the open file.

    Returns:
        The arrays by name.

    Raises:
        OSError: if the file can't be read.
        ValueError: if it is torn, or isn't an .npz file.
    """
    try:
        with zipfile.ZipFile(file) as members:
            return {x.filename.removesuffix(".npy"): _array(members, x) for x in members.filelist}
    except _TORN as error:
        raise ValueError(f"a torn .npz file: {error or type(error).__name__}") from error


def _array(members: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    if member.compress_type not in _PLAIN:
        raise ValueError(f"{member.filename!r} is compressed by method {member.compress_type}")
    content = io.BytesIO(members.read(member))
    return np.lib.format.read_array(content, allow_pickle=False)

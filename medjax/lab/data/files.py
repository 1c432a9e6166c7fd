"""Read files that users name; write files that are whole at every moment."""

import os
import re
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any


def existing_file(path: str | os.PathLike[str], expected: str) -> tuple[Path, str]:
    """Check that a file exists.

    Args:
        path: the file.
        expected: what it should be, in words, for the message.

    Returns:
        The path, and its name as messages show it.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is something else.
    """
    path = Path(path)
    shown = repr(str(path))  # quoted and escaped: a message stays on one line whatever the name
    if not path.exists():
        raise FileNotFoundError(f"{shown}: no such file")
    if not path.is_file():
        what = "a directory" if path.is_dir() else "not a regular file"
        raise ValueError(f"{shown}: this is {what}; expected {expected}")
    return path, shown


def existing_directory(path: str | os.PathLike[str], expected: str) -> tuple[Path, str]:
    """Check that a directory exists.

    Args:
        path: the directory.
        expected: what it should be, in words, for the message.

    Returns:
        The path, and its name as messages show it.

    Raises:
        FileNotFoundError: if there is no such directory.
        ValueError: if it is something else.
    """
    path = Path(path)
    shown = repr(str(path))
    if not path.exists():
        raise FileNotFoundError(f"{shown}: no such directory")
    if not path.is_dir():
        raise ValueError(f"{shown}: not a directory; expected {expected}")
    return path, shown


def unreadable(shown: str, error: OSError) -> ValueError:
    """Return the error of a file that exists, but that the system can't read.

    Args:
        shown: the file's name, quoted.
        error: the system's refusal.
    """
    return ValueError(f"{shown} can't be read: {error.strerror or error}")


def write_whole(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write a file under a temporary name and rename it.

    A reader sees the old file or the new one, never a part of one.

    Args:
        path: the file. Its folder is made if need be.
        write: writes the content to the open file that it is given.

    Raises:
        OSError: if the system refuses it; nothing is left behind.
    """
    # A name that no other process has, on this machine or on another with the same disk.
    partial = path.with_name(f".{path.name}.{uuid.uuid4().int}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def is_partial(path: Path) -> bool:
    """Tell whether a file has a temporary name of `write_whole`."""
    return re.fullmatch(r"\..+\.\d+\.tmp", path.name) is not None

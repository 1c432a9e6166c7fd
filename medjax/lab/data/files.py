"""Files that users name."""

import os
from pathlib import Path


def existing_file(path: str | os.PathLike[str], expected: str) -> tuple[Path, str]:
    """The path of a file that is there, and how messages show it.

    Args:
        path: the file.
        expected: what it should be, in words.

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


def unreadable(shown: str, error: OSError) -> ValueError:
    """What is said of a file that is there, but that the system can't read."""
    return ValueError(f"{shown} can't be read: {error.strerror or error}")

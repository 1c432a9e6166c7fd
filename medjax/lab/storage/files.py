"""Recognise and remove the files that killed processes leave behind."""

from pathlib import Path

from medjax.lab.data.files import is_partial

LOCK = ".lock"
"""The name of a folder's lock."""


def is_leftover(path: Path) -> bool:
    """Tell whether a file is a lock, or one that was being written."""
    return path.name == LOCK or is_partial(path)


def remove_partial(folder: Path) -> None:
    """Remove files that were being written; only for a process that is alone in the folder."""
    for path in folder.glob(".*.tmp"):
        if is_partial(path):
            path.unlink(missing_ok=True)

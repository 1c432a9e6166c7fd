"""Files that are whole at every moment, and what a killed process leaves of them."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

LOCK = ".lock"


def write_whole(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Under a temporary name, then renamed: a reader sees the old file or the new, never a part."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def is_leftover(path: Path) -> bool:
    """Whether a file is a lock, or one that was being written."""
    return path.name == LOCK or _is_partial(path)


def remove_partial(folder: Path) -> None:
    """Remove what killed processes were writing; for who is alone in the folder."""
    for path in folder.glob(".*.tmp"):
        if _is_partial(path):
            path.unlink(missing_ok=True)


def _is_partial(path: Path) -> bool:
    return re.fullmatch(r"\..+\.\d+\.tmp", path.name) is not None

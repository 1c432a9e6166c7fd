"""Keep a folder to one process at a time."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from medjax.lab.storage.files import LOCK, remove_partial


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other processes from working in the folder during this block.

    However the process ends, the lock ends with it. Files that a killed process was writing are
    removed, and at the end the folder too if it is empty.

    Args:
        folder: the folder, which is made if need be.

    Raises:
        ValueError: if another process is at work there.
    """
    with ExitStack() as held:
        descriptor = _locked(folder / LOCK)
        held.callback(os.close, descriptor)
        try:
            remove_partial(folder)
            yield
        finally:
            if os.name == "nt":  # which removes no file that is open
                held.close()
            with suppress(OSError):  # a disk that has become read-only
                (folder / LOCK).unlink()
                folder.rmdir()


def _locked(path: Path) -> int:
    """Lock a file for as long as the returned descriptor is open."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
        except FileNotFoundError:  # its last user has just removed the folder
            continue
        try:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Unless its last user has removed it: others would lock another file.
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except ImportError:  # no such thing on Windows
            return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise ValueError(f"another process is at work in {str(path.parent)!r}") from None
        os.close(descriptor)

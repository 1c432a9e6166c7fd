"""Store arrays by orbax in one file, which is written in this thread.

Orbax's own way with trees of arrays is a database, written by threads which, where the disk is
full, print tracebacks by the hundred.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint as ocp

from medjax.lab.data.files import write_whole
from medjax.lab.data.npz import read_npz

_FILE = "arrays.npz"


class Handler(ocp.CheckpointHandler):
    """Orbax's handler of a checkpoint's arrays."""

    def save(self, directory: Any, args: "Save") -> None:
        """Write the file.

        Args:
            directory: the checkpoint's folder.
            args: the arrays.

        Raises:
            OSError: if it can't be written.
        """
        path, arrays = Path(directory) / _FILE, args.arrays
        write_whole(path, lambda file: np.savez(file, **arrays))  # pyright: ignore[reportArgumentType]

    def restore(self, directory: Any, args: "Restore") -> dict[str, np.ndarray]:
        """Read the file.

        Args:
            directory: the checkpoint's folder.
            args: nothing more.

        Returns:
            The arrays by name.

        Raises:
            OSError: if it can't be read.
            ValueError: if it is torn.
        """
        del args
        with open(Path(directory) / _FILE, "rb") as file:
            return read_npz(file)


@ocp.args.register_with_handler(Handler, for_save=True)
@dataclass
class Save(ocp.args.CheckpointArgs):
    """Arrays to write, by name; no name is `file`."""

    arrays: dict[str, np.ndarray]


@ocp.args.register_with_handler(Handler, for_restore=True)
@dataclass
class Restore(ocp.args.CheckpointArgs):
    """A request for the arrays."""

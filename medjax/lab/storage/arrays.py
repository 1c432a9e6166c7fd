"""Arrays as orbax keeps them for us: in one file, written in this thread.

Orbax's own way with trees of arrays is a database, written by threads which, where the disk is
full, print tracebacks by the hundred.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint as ocp

from medjax.lab.storage.files import write_whole

_FILE = "arrays.npz"


class Handler(ocp.CheckpointHandler):
    """Writes and reads them."""

    def save(self, directory: Any, args: "Save") -> None:
        """Write the file."""
        path, arrays = Path(directory) / _FILE, args.arrays
        write_whole(path, lambda file: np.savez(file, **arrays))  # pyright: ignore[reportArgumentType]

    def restore(self, directory: Any, args: "Restore") -> dict[str, np.ndarray]:
        """Read it."""
        del args
        # Opened here, as NumPy leaves one open that is torn.
        path = Path(directory) / _FILE
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as found:
            return dict(found)


@ocp.args.register_with_handler(Handler, for_save=True)
@dataclass
class Save(ocp.args.CheckpointArgs):
    """What to write: arrays by name, none of which is `file`."""

    arrays: dict[str, np.ndarray]


@ocp.args.register_with_handler(Handler, for_restore=True)
@dataclass
class Restore(ocp.args.CheckpointArgs):
    """That they are wanted."""

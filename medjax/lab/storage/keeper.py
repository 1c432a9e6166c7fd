"""Keep checkpoints, from which a run, or several side by side, are resumed bit for bit.

They are written by orbax, whole or not at all, and the last two are kept. Each has the state and
the measurements until then, and a digest: one that is torn all the same is recognised, and the one
before it is used.
"""

import hashlib
import logging
import shutil
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from medjax._engine.stacked import PyTree
from medjax.lab.machine import processes

FOLDER = "checkpoints"
_KEPT = 2
_LEAF, _ROW, _DIGEST, _STEP = "leaf.", "row.", "digest", "step"

# Raised for checkpoints of which a file is missing (OSError), a folder (KeyError, by orbax) or the
# digest (KeyError), or of which bytes are wrong (ValueError, by `read_npz`).
_TORN = (OSError, KeyError, ValueError)


class Start(NamedTuple):
    """The content of a checkpoint, at which a run is resumed.

    Attributes:
        step: the number of steps done.
        leaves: the leaves of the state, as arrays.
        rows: the columns of the measurements until then, `step` among them.
    """

    step: int
    leaves: list[np.ndarray]
    rows: dict[str, np.ndarray]

    def regular(self, steps: int, eval_every: int) -> dict[str, np.ndarray]:
        """Select the rows that a run has which was never stopped.

        Args:
            steps: the number of steps of the whole run.
            eval_every: the number of steps between measurements.

        Returns:
            The columns, without rows that were measured because the run was stopped there.
        """
        at = self.rows["step"]
        wanted = (at % eval_every == 0) | (at == steps)
        return {name: values[wanted] for name, values in self.rows.items()}


class Keeper:
    """A writer and reader of checkpoints.

    Of several processes, which all make the same calls, the first has the folder.

    Args:
        folder: the checkpoints' own folder, made with the first of them; None in other processes.
        every: the number of steps between checkpoints.
    """

    def __init__(self, folder: Path | None, every: int) -> None:
        self._folder, self._every, self._last = folder, every, 0
        self._torn: list[int] = []

    @cached_property
    def _manager(self) -> Any:
        import orbax.checkpoint as ocp  # takes a second, and is rarely needed

        from medjax.lab.storage._arrays import Handler

        logging.getLogger("absl").setLevel(logging.CRITICAL)  # orbax tells of every file
        assert self._folder is not None
        options = ocp.CheckpointManagerOptions(
            max_to_keep=_KEPT,
            enable_async_checkpointing=False,
            create=False,
            multiprocessing_options=ocp.options.MultiprocessingOptions(
                primary_host=jax.process_index(), active_processes={jax.process_index()}
            ),
        )
        folder = self._folder.absolute()
        folder.mkdir(parents=True, exist_ok=True)
        return ocp.CheckpointManager(folder, options=options, item_handlers=Handler())

    def latest(self) -> Start | None:
        """Read the last checkpoint that is whole.

        Whatever a killed process left half written, or half removed, is deleted.

        Returns:
            The checkpoint; None if there is none.
        """
        step, arrays = self._latest(self._folder) if self._folder is not None else (0, {})
        arrays = processes.from_first({_STEP: np.array(step), **arrays})
        self._last = int(arrays.pop(_STEP))
        if not arrays:
            return None
        rows = {x.removeprefix(_ROW): arrays[x] for x in arrays if x.startswith(_ROW)}
        leaves = [arrays[x] for x in sorted(arrays) if x.startswith(_LEAF)]
        return Start(self._last, leaves, rows)

    def _latest(self, folder: Path) -> tuple[int, dict[str, np.ndarray]]:
        if not folder.is_dir():
            return 0, {}
        for path in folder.glob("*.orbax-checkpoint-tmp*"):
            shutil.rmtree(path)
        steps = sorted(self._manager.all_steps())
        for place in range(len(steps) - 1, -1, -1):
            arrays = self._read(steps[place])
            if arrays:
                for old in steps[: max(0, place + 1 - _KEPT)]:
                    self._manager.delete(old)
                return steps[place], arrays
            self._torn.append(steps[place])
        return 0, {}

    def update(
        self, step: int, state: PyTree, rows: Mapping[str, Sequence[Any]], *, now: bool = False
    ) -> None:
        """Write a checkpoint if it is time.

        Args:
            step: the number of steps done.
            state: the run's state.
            rows: the columns of the measurements until now.
            now: write it at once, if there is none of this step yet.

        Raises:
            OSError: if it can't be written.
        """
        due = step // self._every > self._last // self._every
        if (due or now) and step > self._last:
            leaves = [_as_array(x) for x in jax.tree.leaves(state)]
            if self._folder is not None:
                try:
                    self._write(step, leaves, {name: np.asarray(x) for name, x in rows.items()})
                except ValueError as error:  # by which orbax passes on the system's refusal
                    raise OSError(f"a checkpoint can't be written: {error}") from error
            self._last = step

    def close(self) -> None:
        """Finish writing."""
        if "_manager" in vars(self):
            self._manager.close()

    def _write(self, step: int, leaves: list[np.ndarray], rows: dict[str, np.ndarray]) -> None:
        from medjax.lab.storage._arrays import Save

        arrays = {f"{_LEAF}{k:05d}": x for k, x in enumerate(leaves)}
        arrays |= {_ROW + name: x for name, x in rows.items()}
        while self._torn:  # not before there is a newer one to take its place
            self._manager.delete(self._torn.pop())
        arrays[_DIGEST] = np.array(_digest(arrays))
        self._manager.save(step, args=Save(arrays), force=True)

    def _read(self, step: int) -> dict[str, np.ndarray]:
        """Read a checkpoint's arrays; none if it is torn."""
        from medjax.lab.storage._arrays import Restore

        try:
            arrays = self._manager.restore(step, args=Restore())
            digest = str(arrays.pop(_DIGEST))
        except _TORN:
            return {}
        return arrays if digest == _digest(arrays) else {}


def restored(state: PyTree, start: Start) -> PyTree:
    """Put the kept state on the devices that a given one is on.

    Args:
        state: a state of the same shapes.
        start: the checkpoint.

    Returns:
        The kept state.

    Raises:
        ValueError: if its shapes differ from the given one's.
    """
    old, treedef = jax.tree.flatten(state)
    shapes = [(x.shape, x.dtype) for x in map(jax.eval_shape, [_plain] * len(old), old)]
    if shapes != [(x.shape, x.dtype) for x in start.leaves]:
        raise ValueError("the checkpoint is of another version's state: begin a new run")

    def place(like: jax.Array, x: np.ndarray) -> jax.Array:
        # As each process has all of them, but devices of others that it can't write to.
        placed = jax.make_array_from_callback(x.shape, like.sharding, lambda part: x[part])
        if jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(placed, impl=jax.random.key_impl(like))
        return placed

    return jax.tree.unflatten(treedef, map(place, old, start.leaves))


def _plain(x: jax.Array) -> jax.Array:
    """Turn random keys into the numbers that they are made of."""
    return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x


def _as_array(x: jax.Array) -> np.ndarray:
    return processes.whole(_plain(x))


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    found = hashlib.sha256()
    for name, x in sorted(arrays.items()):
        found.update(f"{name} {x.dtype} {x.shape} ".encode())
        found.update(np.ascontiguousarray(x).tobytes())
    return found.hexdigest()

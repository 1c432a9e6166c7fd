"""Checkpoints: what a run, or several side by side, can go on from, bit for bit.

They are written by orbax, whole or not at all, and the last two are kept. Each has the state and
what was measured until then, and carries a digest, so that one which is torn all the same is
noticed, and the one before it is used.
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
from jaxtyping import PyTree

FOLDER = "checkpoints"
_KEPT = 2
_LEAF, _ROW, _DIGEST = "leaf.", "row.", "digest"


class Start(NamedTuple):
    """Where a run goes on.

    Attributes:
        step: after how many steps.
        leaves: of the state, as arrays.
        rows: what was measured until then, the steps among it: along the first axis of each.
    """

    step: int
    leaves: list[np.ndarray]
    rows: dict[str, np.ndarray]

    def regular(self, steps: int, eval_every: int) -> dict[str, np.ndarray]:
        """The rows of a run that was never stopped: not those between the others."""
        at = self.rows["step"]
        wanted = (at % eval_every == 0) | (at == steps)
        return {name: values[wanted] for name, values in self.rows.items()}


class Keeper:
    """Writes checkpoints in a folder of theirs, which it makes with the first, and reads them."""

    def __init__(self, folder: Path, every: int) -> None:
        self._folder, self._every, self._last = folder, every, 0
        self._torn: list[int] = []

    @cached_property
    def _manager(self) -> Any:
        import orbax.checkpoint as ocp  # takes a second, and is rarely needed

        from experiments.arrays import Handler

        logging.getLogger("absl").setLevel(logging.CRITICAL)  # orbax tells of every file
        options = ocp.CheckpointManagerOptions(
            max_to_keep=_KEPT, enable_async_checkpointing=False, create=True
        )
        folder = self._folder.absolute()
        return ocp.CheckpointManager(folder, options=options, item_handlers=Handler())

    def latest(self) -> Start | None:
        """The last checkpoint that is whole; None if there is none.

        What a killed process left half written, or half removed, goes.
        """
        if not self._folder.is_dir():
            return None
        for path in self._folder.iterdir():
            if path.is_dir() and not path.name.isdigit():
                shutil.rmtree(path)
        steps = sorted(self._manager.all_steps())
        for place in range(len(steps) - 1, -1, -1):
            start = self._read(steps[place])
            if start is not None:
                for old in steps[: max(0, place + 1 - _KEPT)]:
                    self._manager.delete(old)
                self._last = start.step
                return start
            self._torn.append(steps[place])
        return None

    def update(
        self, step: int, state: PyTree, rows: Mapping[str, Sequence[Any]], *, now: bool = False
    ) -> None:
        """Write a checkpoint if it is time, or, if none is there of this step, at once.

        Raises:
            OSError: if it can't be written.
        """
        due = step // self._every > self._last // self._every
        if (due or now) and step > self._last:
            leaves = [_as_array(x) for x in jax.tree.leaves(state)]
            try:
                self._write(step, leaves, {name: np.asarray(x) for name, x in rows.items()})
            except ValueError as error:  # orbax's words for what the system said
                raise OSError(f"a checkpoint can't be written: {error}") from error
            self._last = step

    def close(self) -> None:
        """Finish what is being written."""
        if "_manager" in vars(self):
            self._manager.close()

    def _write(self, step: int, leaves: list[np.ndarray], rows: dict[str, np.ndarray]) -> None:
        from experiments.arrays import Save

        arrays = {f"{_LEAF}{k:05d}": x for k, x in enumerate(leaves)}
        arrays |= {_ROW + name: x for name, x in rows.items()}
        while self._torn:  # not before there is a newer one to take its place
            self._manager.delete(self._torn.pop())
        arrays[_DIGEST] = np.array(_digest(arrays))
        self._manager.save(step, args=Save(arrays), force=True)

    def _read(self, step: int) -> Start | None:
        from experiments.arrays import Restore

        try:
            arrays = self._manager.restore(step, args=Restore())
            digest = str(arrays.pop(_DIGEST))
        except Exception:  # what a torn file raises is anything
            return None
        if digest != _digest(arrays):
            return None
        rows = {x.removeprefix(_ROW): arrays[x] for x in arrays if x.startswith(_ROW)}
        return Start(step, [arrays[x] for x in sorted(arrays) if x.startswith(_LEAF)], rows)


def restored(state: PyTree, start: Start) -> PyTree:
    """The state that was kept, on the devices that the given one is on.

    Raises:
        ValueError: if its shapes differ from the given one's.
    """
    old, treedef = jax.tree.flatten(state)
    shapes = [(x.shape, x.dtype) for x in map(_as_array, old)]
    if shapes != [(x.shape, x.dtype) for x in start.leaves]:
        raise ValueError("the checkpoint is of another version's state: begin a new run")

    def place(like: Any, x: np.ndarray) -> jax.Array:
        value: Any = x
        if jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
            value = jax.random.wrap_key_data(jnp.asarray(x), impl=jax.random.key_impl(like))
        return jax.device_put(value, like.sharding)

    return jax.tree.unflatten(treedef, map(place, old, start.leaves))


def _as_array(x: Any) -> np.ndarray:
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        x = jax.random.key_data(x)
    return np.asarray(x)


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    found = hashlib.sha256()
    for name, x in sorted(arrays.items()):
        found.update(f"{name} {x.dtype} {x.shape} ".encode())
        found.update(np.ascontiguousarray(x).tobytes())
    return found.hexdigest()

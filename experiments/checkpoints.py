"""Checkpoints of a run: what it goes on from, bit for bit, whatever ended it.

They are written by orbax, whole or not at all, and the last two are kept. Each carries a digest, so
that one which is torn all the same is noticed, and the one before it is used.
"""

import argparse
import hashlib
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
from jaxtyping import PyTree

from experiments import cli, results
from experiments.config import RunConfig, resolve
from experiments.locks import alone_in

FOLDER = "checkpoints"
METRICS = "metrics.parquet"
_KEPT = 2
_SETTINGS = tuple(field.name for field in fields(RunConfig))


class Start(NamedTuple):
    """Where a run goes on.

    Attributes:
        step: after how many steps.
        leaves: of the state, as arrays.
    """

    step: int
    leaves: list[np.ndarray]


def add_checkpoints(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    group = parser.add_argument_group("checkpoints")
    group.add_argument(
        "--checkpoint-every",
        metavar="K",
        type=cli.integer(1),
        help="keep what the run can go on from, about every K steps and when it is stopped "
        "(default: don't)",
    )
    group.add_argument(
        "--resume",
        metavar="DIR",
        type=cli.folder,
        help="go on with the run in this folder, from its last checkpoint and with its settings",
    )


def settings(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None, arguments: argparse.Namespace
) -> RunConfig:
    """The run's settings: those of the command line, or of the run that --resume names.

    Args:
        parser: the command's.
        argv: the command line.
        arguments: what it was parsed to; of a resumed run, `checkpoint_every` is filled in.

    Raises:
        ValueError: if settings don't fit each other, if there is no run with checkpoints, or if it
            was begun with other settings than are given.
    """
    if arguments.distributed and (arguments.resume or arguments.checkpoint_every):
        raise ValueError("checkpoints of several processes aren't there yet: without --distributed")
    if arguments.resume is None:
        return resolve(arguments)
    if arguments.out is not None:
        raise ValueError("--resume goes on in the run's own folder: without --out")
    folder = Path(arguments.resume)
    record = results.read_config(folder)
    saved, every = record.get("config"), record.get("checkpoint_every")
    sessions = record.get("resumed", [])
    if not isinstance(saved, dict) or every is None or not isinstance(sessions, list):
        raise ValueError(
            f"{str(folder)!r} isn't the folder of a run with checkpoints; such a run is begun with "
            "--checkpoint-every"
        )
    unknown = [name for name in saved if name not in _SETTINGS]
    if unknown:
        raise ValueError(f"{str(folder)!r} has a setting that runs don't have, {unknown[0]!r}")
    # As flags, so that what the file says is checked as what a user says is. Later ones prevail.
    # Each in one word, as a value that begins with a dash would be a flag of its own.
    written = {**saved, "checkpoint_every": every, "out": None}
    flags = [f"{_flag(name)}={value}" for name, value in written.items() if value is not None]
    begun_with = resolve(parser.parse_args(flags))
    asked = parser.parse_args([*flags, *(sys.argv[1:] if argv is None else argv)])
    goes_on_with = resolve(asked, drop=True)
    for name, value in vars(begun_with).items():
        if getattr(goes_on_with, name) != value:
            raise ValueError(
                f"{_flag(name)} {getattr(goes_on_with, name)} isn't what {str(folder)!r} was begun "
                f"with, {value}: leave it out, or begin a new run"
            )
    arguments.checkpoint_every = asked.checkpoint_every
    return replace(begun_with, out=str(folder))


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def begun(
    keeper: "Keeper | None", folder: Path | None, config: RunConfig
) -> tuple[Start | None, dict[str, list[float]]]:
    """Where a run goes on, and what was measured until then; (None, nothing) at its beginning.

    Raises:
        ValueError: if it has reached its end, or what was measured can't be read.
    """
    start = keeper.latest() if keeper is not None else None
    if start is None or folder is None:
        return None, {}
    if start.step >= config.steps:
        raise ValueError(f"the run in {str(folder)!r} has finished its {config.steps} steps")
    try:
        columns = results.read_table(folder / METRICS).to_pydict()
        columns["step"]
    except (OSError, KeyError, pa.ArrowException) as error:
        raise ValueError(f"{str(folder / METRICS)!r} can't be read: {error}") from None
    # Not what was measured where it was stopped, between the others.
    rows = [
        k
        for k, step in enumerate(columns["step"])
        if step <= start.step and step % config.eval_every == 0
    ]
    return start, {name: [values[k] for k in rows] for name, values in columns.items()}


class Keeper:
    """Writes the checkpoints of a run in a folder, and reads them."""

    def __init__(self, folder: Path, every: int) -> None:
        import orbax.checkpoint as ocp  # takes a second, and is rarely needed

        logging.getLogger("absl").setLevel(logging.ERROR)  # orbax tells of every file
        self._ocp, self._every, self._last = ocp, every, 0
        self._torn: list[int] = []
        options = ocp.CheckpointManagerOptions(
            max_to_keep=_KEPT, enable_async_checkpointing=False, create=True
        )
        self._manager = ocp.CheckpointManager((folder / FOLDER).absolute(), options=options)

    def latest(self) -> Start | None:
        """The last checkpoint that is whole; None if there is none."""
        for step in sorted(self._manager.all_steps(), reverse=True):
            start = self._read(step)
            if start is not None:
                self._last = step
                return start
            self._torn.append(step)
        return None

    def update(self, step: int, state: PyTree, *, now: bool = False) -> None:
        """Write a checkpoint if it is time, or, if none is there of this step, at once."""
        due = step // self._every > self._last // self._every
        if (due or now) and step > self._last:
            leaves = [_as_array(x) for x in jax.tree.leaves(state)]
            tree = {f"{k:05d}": x for k, x in enumerate(leaves)}
            args = self._ocp.args
            while self._torn:  # not before there is a newer one to take its place
                self._manager.delete(self._torn.pop())
            self._manager.save(
                step,
                args=args.Composite(
                    state=args.StandardSave(tree),
                    about=args.JsonSave({"digest": _digest(leaves), "leaves": len(leaves)}),
                ),
                force=True,
            )
            self._manager.wait_until_finished()
            self._last = step

    def close(self) -> None:
        """Finish what is being written."""
        self._manager.close()

    def _read(self, step: int) -> Start | None:
        args = self._ocp.args
        try:
            found = self._manager.restore(
                step, args=args.Composite(state=args.StandardRestore(), about=args.JsonRestore())
            )
            leaves = [
                np.asarray(found["state"][f"{k:05d}"]) for k in range(found["about"]["leaves"])
            ]
        except Exception:  # what a torn file raises is anything
            return None
        return Start(step, leaves) if _digest(leaves) == found["about"]["digest"] else None


@contextmanager
def keeping(folder: Path | None, every: int | None) -> Iterator[Keeper | None]:
    """A keeper of a run's checkpoints, if there are to be any, alone in its folder.

    Raises:
        ValueError: if another process is at work there.
    """
    if folder is None or every is None:
        yield None
        return
    with alone_in(folder / FOLDER):
        keeper = Keeper(folder, every)
        try:
            yield keeper
        finally:
            keeper.close()


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


def _digest(leaves: Sequence[np.ndarray]) -> str:
    found = hashlib.sha256()
    for x in leaves:
        found.update(f"{x.dtype}{x.shape}".encode())
        found.update(np.ascontiguousarray(x).tobytes())
    return found.hexdigest()

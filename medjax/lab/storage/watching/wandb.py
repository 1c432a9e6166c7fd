"""Measurements at Weights & Biases, whose package is imported only if it is asked for."""

import argparse
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from medjax.lab.storage.watching.watched import Add, Row, Watched, WatcherError

FOLDER = "wandb"
"""The folder that the package makes for its files."""

_FORBIDDEN = "/\\#?%:"


def project(text: str) -> str:
    """Parse the name of a project for argparse, which needs the package."""
    found = find_spec("wandb")
    if found is None or (found.origin is None and found.submodule_search_locations is not None):
        # A folder of that name alone is no package.
        raise argparse.ArgumentTypeError("the package isn't installed: pip install wandb")
    if not text or any(character in _FORBIDDEN for character in text):
        raise argparse.ArgumentTypeError(
            f"{text!r} names no project; valid: a name without {' '.join(_FORBIDDEN)}"
        )
    return text


@contextmanager
def watch(run: Watched) -> Iterator[Add]:
    """Log a run, as one of its sweep's group; a resumed one is logged anew from its beginning.

    Raises:
        WatcherError: if the package can't begin, as without a key or a network.
    """
    wandb: Any = importlib.import_module("wandb")
    try:
        logged = wandb.init(
            project=run.option,
            name=run.name,
            group=run.sweep,
            config=dict(run.settings),
            dir=str(run.folder),
            # The console is ours. Of each run of a sweep a paragraph would be too much.
            settings={"console": "off", "silent": run.sweep is not None},
        )
    except wandb.Error as error:
        reason = " ".join(str(error).split())
        raise WatcherError(f"Weights & Biases can't begin: {reason}") from None

    def add(row: Row) -> None:
        values = {name: value for name, value in row.items() if name != "step"}
        logged.log(values, step=int(row["step"]))

    try:
        yield add
    finally:
        logged.finish()

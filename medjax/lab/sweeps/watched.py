"""A sweep's runs for TensorBoard and Weights & Biases, each written once, when it is finished."""

import re
import shutil
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from medjax.lab.settings import wording
from medjax.lab.settings.config import Settings
from medjax.lab.storage import results
from medjax.lab.storage.watching import WATCHERS
from medjax.lab.storage.watching.watched import Row, Watched, WatcherError, plain
from medjax.lab.sweeps import store
from medjax.lab.sweeps.grid import varied

_LONGEST_NAME = 120  # of a folder; file systems have 255 bytes for it


class Watching:
    """Gives finished runs to the watchers.

    Each run has a folder of its own under the watcher's name, `tensorboard/0003,rule=mean,lr=0.1`.
    It is renamed to that when it is whole, so whatever ends a sweep, the next session completes it.

    Args:
        folder: the sweep's.
        runs: the grid.
        watchers: those that are asked for; see `watching.chosen`.
        tell: takes a line for the user.
    """

    def __init__(
        self,
        folder: Path,
        runs: Sequence[Settings],
        watchers: Mapping[str, str],
        tell: Callable[[str], None],
    ) -> None:
        self._folder, self._runs, self._tell = folder, runs, tell
        self._watchers = dict(watchers)
        self._varied, self._names = varied(runs), wording.telling([vars(run) for run in runs])
        self._done: set[Path] = set()

    def complete(self) -> None:
        """Write the finished runs that a watcher lacks.

        A watcher that can't begin is left for this session, and doesn't end the sweep.
        """
        parts = store.parts(self._folder) if self._watchers else []
        for path in parts:
            if path not in self._done:
                self._complete(path)
                self._done.add(path)

    def _complete(self, part: Path) -> None:
        rows_of: dict[int, list[Row]] = defaultdict(list)
        for row in results.read_table(part).to_pylist():
            rows_of[row.pop("run")].append(row)
        for place, rows in rows_of.items():
            for name in list(self._watchers):
                try:
                    self._write(name, place, rows)
                except WatcherError as error:
                    del self._watchers[name]
                    self._tell(f"{error}; the same command completes what is missing there")

    def _write(self, watcher: str, place: int, rows: Sequence[Row]) -> None:
        name, settings = run_name(self._runs[place], place, self._names), plain(self._runs[place])
        path = self._folder / watcher / name
        if path.exists():
            return
        partial = path.with_name(f".{name}.tmp")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        listed = {name: settings[name] for name in self._varied if name in settings}
        sweep = self._folder.absolute().name
        run = Watched(partial.absolute(), name, settings, listed, self._watchers[watcher], sweep)
        with WATCHERS[watcher](run) as add:
            for row in rows:
                add(row)
        partial.rename(path)


def run_name(run: Settings, place: int, names: Sequence[str]) -> str:
    """Name a run's folder by its place in the grid and some of its settings."""
    settings = plain(run)
    words = [f"{name}={settings[name]}" for name in names if name in settings]
    text = ",".join([f"{place:04d}", *words])
    return re.sub(r"[^\w.,=+-]", "_", text, flags=re.ASCII)[:_LONGEST_NAME].rstrip(".")

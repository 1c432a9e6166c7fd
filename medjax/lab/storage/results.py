"""Claim the folder of a run; read and write its files, each whole or not at all."""

import itertools
import json
import math
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from medjax.lab.data.files import write_whole
from medjax.lab.storage.files import is_leftover
from medjax.lab.storage.provenance import provenance as provenance

if TYPE_CHECKING:  # see medjax.lab.plots
    from matplotlib.figure import Figure

CONFIG = "config.json"
DEFAULT_PARENT = Path("runs")


class Refused(OSError):
    """The system's refusal to write results, such as on a full disk, in one line."""


def check_folder(path: Path | None, settings: Any = None) -> None:
    """Check that a run's folder can be made and written, without making it.

    Args:
        path: the folder, or None for a new one under runs/.
        settings: the run's. A folder with the same settings, of a run that ended before it measured
            anything, counts as free.

    Raises:
        ValueError: if it can't, or if it already holds something.
    """
    new, path = path is None, path or DEFAULT_PARENT
    try:
        there = _nearest(path)
        check_writable(there)
        if not new and there == path.absolute():
            _check_free(path, settings)
    except OSError as error:
        raise _unusable(path, error) from None


def check_writable(folder: Path) -> None:
    """Check that files can be written in a folder.

    Args:
        folder: the folder.

    Raises:
        OSError: if they can't.
    """
    folder.stat()  # the next would take FILE/.. for where the file is
    with tempfile.TemporaryFile(dir=folder):
        pass


def _nearest(path: Path) -> Path:
    """Return the path itself, or the last folder on the way to it that exists."""
    path = path.absolute()
    try:
        path.lstat()  # of a link, too, that leads nowhere: nothing can be made in its place
    except FileNotFoundError:
        return _nearest(path.parent)
    return path


def _unusable(path: Path, error: OSError) -> ValueError:
    reason = error.strerror or str(error)
    return ValueError(
        f"output folder {str(path)!r} can't be written: {reason}: name another with --out"
    )


def _check_free(path: Path, settings: Any) -> None:
    names = {x.name for x in path.iterdir() if not is_leftover(x)}
    if not names:
        return
    advice = "name a new one with --out"
    if CONFIG not in names:
        raise ValueError(f"output folder {str(path)!r} isn't empty: {advice}")
    record = read_config(path)
    if names == {CONFIG} and settings is not None and record.get("config") == _jsonable(settings):
        return
    if "config" in record and record.get("checkpoint_every"):
        advice += f", or go on with it by --resume {path}"
    raise ValueError(f"output folder {str(path)!r} already holds a run: {advice}")


def check_own_folder(path: Path, **identity: Any) -> None:
    """Check a folder as `check_folder` does, but allow one that was begun for the same purpose.

    Args:
        path: the folder.
        identity: the entries of a configuration by which the purpose is recognised.

    Raises:
        ValueError: if it can't be written, or holds something else.
    """
    try:
        (path / CONFIG).stat()
    except FileNotFoundError:
        check_folder(path)
        return
    except OSError as error:
        raise _unusable(path, error) from None
    record = read_config(path)
    if any(record.get(name) != value for name, value in identity.items()):
        raise ValueError(
            f"output folder {str(path)!r} already holds other results: name a new one with --out"
        )


def read_config(path: Path) -> dict[str, Any]:
    """Read a folder's configuration.

    Args:
        path: the folder.

    Returns:
        The configuration; empty if the folder has none.

    Raises:
        ValueError: if it can't be read, or isn't one.
    """
    return read_json(path / CONFIG)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: the file.

    Returns:
        Its content; empty if there is no such file.

    Raises:
        ValueError: if it can't be read, or isn't an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{str(path)!r} can't be read: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{str(path)!r} can't be read: it holds no JSON object")
    return content


def claim_folder(folder: Path, record: Mapping[str, Any]) -> None:
    """Make a run's folder this run's own, by writing its configuration there.

    Args:
        folder: the folder, in which this process is alone.
        record: the configuration, to which the folder's name is added.

    Raises:
        ValueError: if another run has taken the folder since it was checked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _check_free(folder, record.get("config"))
    write_json(folder / CONFIG, {"folder": str(folder), **record})


def add_session(folder: Path, record: Mapping[str, Any]) -> None:
    """Note in a run's configuration that it is resumed.

    Args:
        folder: the run's.
        record: the entries for this session beside its provenance.
    """
    config = read_config(folder)
    sessions = [*config.get("resumed", []), {**provenance(), **record}]
    write_json(folder / CONFIG, config | {"resumed": sessions})


def new_folder(stem: str) -> Path:
    """Make runs/<stem>-<time>, numbered if others have that name.

    Args:
        stem: a few words for the run.

    Returns:
        The folder.
    """
    base = DEFAULT_PARENT / f"{stem}-{datetime.now():%Y%m%d-%H%M%S}"
    for number in itertools.count(1):
        folder = base if number == 1 else base.with_name(f"{base.name}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise AssertionError("unreachable")


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON; NaN and ±∞, which JSON doesn't have, become null.

    Args:
        path: the file.
        content: dataclasses, mappings, sequences, text and numbers.
    """
    text = json.dumps(_jsonable(content), indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8.

    Args:
        path: the file.
        text: its content.
    """
    write_whole(path, lambda file: file.write(text.encode()))


def write_table(path: Path, columns: Mapping[str, Sequence[Any] | np.ndarray]) -> None:
    """Write a Parquet table.

    Args:
        path: the file.
        columns: the columns by name, all of one length.
    """
    write_whole(path, lambda file: pq.write_table(pa.table(dict(columns)), file))


def read_table(path: Path) -> pa.Table:
    """Read a Parquet table.

    Raises:
        ValueError: if the file isn't one.
        OSError: if it can't be read.
    """
    # Opened here: pyarrow itself takes ~ for a home folder.
    with open(path, "rb") as file:
        try:
            return pq.read_table(file)
        except pa.ArrowException as error:
            raise ValueError(f"{str(path)!r} can't be read: {error}") from None


def write_figure(path: Path, figure: "Figure") -> None:
    """Write a picture in the format that the path's suffix names.

    Args:
        path: the file.
        figure: the picture.
    """
    with warnings.catch_warnings():  # of letters that the font doesn't have
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        write_whole(path, lambda file: figure.savefig(file, format=path.suffix[1:], dpi=150))


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

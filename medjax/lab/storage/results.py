"""A run's folder: what is in it, and how it is written: every file whole, or not at all."""

import itertools
import json
import math
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from matplotlib.figure import Figure

from medjax.lab.storage.files import is_leftover, write_whole

CONFIG = "config.json"
DEFAULT_PARENT = Path("runs")
_PACKAGES = ("medjax", "jax", "jaxlib", "optax", "flax", "numpy", "pyarrow", "matplotlib")


class Refused(OSError):
    """The system's refusal to write results, such as on a full disk, in one line."""


def check_folder(path: Path | None, settings: Any = None) -> None:
    """Prove that a run's folder can be made and written, without making it.

    Args:
        path: the folder, or None for a new one under runs/.
        settings: the run's. One with the same that ended before it measured anything isn't in the
            way.

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
    """Prove that files can be written in a folder.

    Raises:
        OSError: if they can't.
    """
    folder.stat()  # the next would take FILE/.. for where the file is
    with tempfile.TemporaryFile(dir=folder):
        pass


def _nearest(path: Path) -> Path:
    """The path itself, or the last folder on the way to it that is there."""
    path = path.absolute()
    try:
        path.lstat()  # of a link, too, that leads nowhere: nothing can be made in its place
    except FileNotFoundError:
        return _nearest(path.parent)
    return path


def _unusable(path: Path, error: OSError) -> ValueError:
    reason = error.strerror or str(error)
    return ValueError(f"output folder {str(path)!r} can't be written: {reason}")


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
    """Like `check_folder`, but a folder begun for the same purpose is to be gone on with.

    Args:
        path: the folder.
        identity: what its configuration says of the purpose, if it has one.

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
    """A folder's configuration; nothing if it has none.

    Raises:
        ValueError: if it can't be read, or isn't one.
    """
    return read_json(path / CONFIG)


def read_json(path: Path) -> dict[str, Any]:
    """What `write_json` wrote; nothing if there is no such file.

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
        record: the configuration; the folder's name is added to it.

    Raises:
        ValueError: if another run has taken the folder since it was checked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _check_free(folder, record.get("config"))
    write_json(folder / CONFIG, {"folder": str(folder), **record})


def add_session(folder: Path, record: Mapping[str, Any]) -> None:
    """Note in a run's configuration that it goes on, and with what."""
    config = read_config(folder)
    sessions = [*config.get("resumed", []), {**provenance(), **record}]
    write_json(folder / CONFIG, config | {"resumed": sessions})


def new_folder(stem: str) -> Path:
    """Make runs/<stem>-<time>, numbered where others have that name.

    Args:
        stem: what the run is, in a few words.
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


def provenance() -> dict[str, Any]:
    """Versions, device, commit, command and time: with the settings, what explains a result."""
    device = jax.devices()[0]
    return {
        "command": shlex.join(["python", "-m", *_module_and_arguments()]),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "versions": {"python": platform.python_version()}
        | {name: _version(name) for name in _PACKAGES},
        "device": {
            "platform": device.platform,
            "kind": device.device_kind,
            "count": jax.device_count(),
            "machine": platform.machine(),
            "cores": os.cpu_count(),
        },
    }


def write_json(path: Path, content: Any) -> None:
    """Indented JSON; NaN and ±∞, which JSON doesn't have, become null."""
    text = json.dumps(_jsonable(content), indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def write_text(path: Path, text: str) -> None:
    """A text file."""
    write_whole(path, lambda file: file.write(text.encode()))


def write_table(path: Path, columns: Mapping[str, Sequence[Any] | np.ndarray]) -> None:
    """A Parquet table."""
    write_whole(path, lambda file: pq.write_table(pa.table(dict(columns)), file))


def read_table(path: Path) -> pa.Table:
    """A Parquet table: of just this path, where pyarrow itself takes ~ for a home folder."""
    with open(path, "rb") as file:
        return pq.read_table(file)


def write_figure(path: Path, figure: Figure) -> None:
    """A picture, in the format of the path's suffix."""
    write_whole(path, lambda file: figure.savefig(file, format=path.suffix[1:], dpi=150))


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _module_and_arguments() -> list[str]:
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    module = (spec.name if spec else Path(sys.argv[0]).stem).removesuffix(".__main__")
    return [module, *sys.argv[1:]]


def _commit() -> str | None:
    """The source's git commit, with '-dirty' for uncommitted changes; None outside a checkout."""
    # Installed in a folder of another project, this file isn't one of that repository.
    if _git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    return _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _git(*command: str) -> str | None:
    """Return what git prints, run beside this file; None if it fails or says nothing."""
    place = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", *command], cwd=place, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None

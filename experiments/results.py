"""A run's folder: what is in it, and how it is written: every file whole, or not at all."""

import dataclasses
import itertools
import json
import math
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from matplotlib.figure import Figure

CONFIG = "config.json"
DEFAULT_PARENT = Path("runs")
_PACKAGES = ("medjax", "jax", "jaxlib", "optax", "flax", "numpy", "pyarrow", "matplotlib")


def check_folder(path: Path | None) -> None:
    """Prove that a run's folder can be made and written, without making it.

    Args:
        path: the folder, or None for a new one under runs/.

    Raises:
        ValueError: if it can't, or if it already holds something.
    """
    new, path = path is None, path or DEFAULT_PARENT
    try:
        there = _nearest(path)
        check_writable(there)
        empty = new or there != path.absolute() or not any(path.iterdir())
    except OSError as error:
        raise _unusable(path, error) from None
    if not empty:
        what = "already holds a run" if (path / CONFIG).exists() else "isn't empty"
        raise ValueError(f"output folder {str(path)!r} {what}: name a new one with --out")


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
    try:
        record = json.loads((path / CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{str(path / CONFIG)!r} can't be read: {error}") from None
    if not isinstance(record, dict):
        raise ValueError(f"{str(path / CONFIG)!r} is no configuration: it isn't a JSON object")
    return record


def claim_folder(path: Path | None, stem: str, record: Mapping[str, Any]) -> Path:
    """Make a run's folder this run's own, by writing its configuration there.

    Args:
        path: the folder, or None for runs/<stem>-<time>, numbered where others have that name.
        stem: what the run is, in a few words.
        record: the configuration; the folder's name is added to it.

    Raises:
        ValueError: if another run has taken the folder since it was checked.
    """
    folder = _new_default(stem) if path is None else path
    try:
        write_json(folder / CONFIG, {"folder": str(folder), **record}, exclusive=True)
    except FileExistsError:
        raise ValueError(
            f"output folder {str(folder)!r} already holds a run: name a new one with --out"
        ) from None
    return folder


def add_session(folder: Path, record: Mapping[str, Any]) -> None:
    """Note in a run's configuration that it goes on, and with what."""
    config = read_config(folder)
    sessions = [*config.get("resumed", []), {**provenance(), **record}]
    write_json(folder / CONFIG, config | {"resumed": sessions})


def _new_default(stem: str) -> Path:
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


def write_json(path: Path, content: Any, *, exclusive: bool = False) -> None:
    """Indented JSON; NaN and ±∞, which JSON doesn't have, become null.

    Raises:
        FileExistsError: if `exclusive` and there is such a file already.
    """
    text = json.dumps(_jsonable(content), indent=2, ensure_ascii=False, allow_nan=False)
    # A link fails where a rename would replace.
    move = os.link if exclusive else os.replace
    _write_whole(path, lambda file: file.write((text + "\n").encode()), move)


def write_text(path: Path, text: str) -> None:
    """A text file."""
    _write_whole(path, lambda file: file.write(text.encode()))


def write_table(path: Path, columns: Mapping[str, Sequence[Any] | np.ndarray]) -> None:
    """A Parquet table."""
    _write_whole(path, lambda file: pq.write_table(pa.table(dict(columns)), file))


def read_table(path: Path) -> pa.Table:
    """A Parquet table: of just this path, where pyarrow itself takes ~ for a home folder."""
    with open(path, "rb") as file:
        return pq.read_table(file)


def write_figure(path: Path, figure: Figure) -> None:
    """A picture, in the format of the path's suffix."""
    _write_whole(path, lambda file: figure.savefig(file, format=path.suffix[1:], dpi=150))


def _write_whole(
    path: Path,
    write: Callable[[IO[bytes]], Any],
    move: Callable[[Path, Path], None] = os.replace,
) -> None:
    """Under a temporary name, then renamed: a reader sees the old file or the new, never a part."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        move(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _jsonable(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
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
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None

"""Find a data set of Hugging Face: in a folder, in its library's cache, or on the hub.

The library, `datasets`, is imported only when a set is asked for: that takes more than a second,
and it talks.
"""

import contextlib
import io
import re
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from medjax.lab.data.files import existing_directory
from medjax.lab.data.outside import InOneLine, said, trouble_with

_NAME = re.compile(r"(?P<set>\w[\w.-]*(/\w[\w.-]*)?)(:(?P<config>[\w.+-]+))?")
_IN_FOLDERS = ("parquet", "arrow", "imagefolder")  # the types of their columns are known at once


class Found(NamedTuple):
    """A set that can be read.

    Attributes:
        shown: its name, quoted.
        where: the folder, or the hub, for messages.
        version: a text that differs with its files.
        splits: for each split its examples, each a mapping of columns to values.
        features: the types of its columns, by their names.
    """

    shown: str
    where: str
    version: str
    splits: Mapping[str, Iterable[Mapping[str, Any]]]
    features: Mapping[str, Any]


def find(argument: str, instead: str) -> Found:
    """Find a set; download it if it is neither in a folder nor in the library's cache.

    Args:
        argument: USER/SET[:CONFIG], or NAME[:CONFIG]@DIR for files in a folder.
        instead: the data sets that need no network, for a message.

    Raises:
        ValueError: if the name is none, or the files can't be read.
        FileNotFoundError: if there is no such folder, or no such set that can be had.
        ModuleNotFoundError: if the library isn't installed.
    """
    name, at, directory = argument.partition("@")
    shown, written = repr(f"hf:{name}"), _NAME.fullmatch(name)
    if written is None or not (at or "/" in written["set"]) or (at and not directory):
        raise ValueError(
            f"dataset {f'hf:{argument}'!r} is no name; valid: hf:USER/SET of the hub, or "
            "hf:NAME@DIR for files in a folder; after the name perhaps :CONFIG"
        )
    if at:
        return _in_folder(directory, written["config"], shown)
    return _on_hub(written["set"], written["config"], shown, instead)


def _in_folder(directory: str, config: str | None, shown: str) -> Found:
    folder, where = existing_directory(Path(directory).expanduser(), "that of a data set")
    import datasets

    with readable(shown, where), _silent(), _offline():
        # By its whole path: a name alone might be that of a file format.
        builder = datasets.load_dataset_builder(str(folder.resolve()), config)
        if builder.name not in _IN_FOLDERS:
            raise ValueError(f"files of the kind {builder.name}; valid: {', '.join(_IN_FOLDERS)}")
        # Without a copy in the library's cache.
        splits: Any = builder.as_streaming_dataset()
    return Found(shown, where, str(builder.cache_dir), splits, builder.info.features or {})


def _on_hub(name: str, config: str | None, shown: str, instead: str) -> Found:
    import datasets
    from datasets import config as library

    endpoint = library.HF_ENDPOINT
    trouble = "HF_HUB_OFFLINE is set"
    if not library.HF_HUB_OFFLINE:
        trouble = trouble_with(endpoint)
        if trouble:
            trouble = f"{urllib.parse.urlsplit(endpoint).hostname} can't be reached ({trouble})"
    why = f"dataset {shown} can't be had"
    if trouble:
        why = f"dataset {shown} isn't in the cache of Hugging Face, and {trouble}"

    def message(error: Exception) -> str:
        told = "" if trouble else f" ({said(error)})"
        return f"{why}{told}; valid without a network: {instead}, hf:NAME@DIR"

    with (
        InOneLine(message),
        _silent(),
        _offline() if trouble else contextlib.nullcontext(),
    ):
        # A folder of this name, if there is one here, isn't meant.
        builder = datasets.load_dataset_builder(f"hf://datasets/{name}", config)
        builder.download_and_prepare()
        splits: Any = builder.as_dataset()
    features = next(iter(splits.values())).features
    return Found(shown, "the hub", str(builder.cache_dir), splits, features)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Show no bars of progress in this block."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Let the library ask no host in this block, not even to count that a set is loaded."""
    from datasets import config as library

    before = library.HF_HUB_OFFLINE
    library.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        library.HF_HUB_OFFLINE = before


@contextlib.contextmanager
def readable(shown: str, where: str) -> Iterator[None]:
    """Read files by the library in this block; if they are torn, say so in one line.

    Args:
        shown: the set's name, quoted.
        where: the folder of the files, or the hub.

    Raises:
        ValueError: if they can't be read.
    """
    import datasets.exceptions
    import pyarrow as pa

    # Raised for files cut at any length or with any bytes changed: by pyarrow and by json for the
    # descriptions of the columns (LookupError, TypeError, AttributeError, RecursionError), and by
    # pillow for the images (SyntaxError).
    torn = (ValueError, OSError, LookupError, TypeError, AttributeError, RuntimeError, SyntaxError)
    torn += (pa.ArrowException, datasets.exceptions.DatasetsError)
    try:
        yield
    except torn as error:
        raise ValueError(f"dataset {shown} can't be read from {where}: {said(error)}") from error

"""Find a set of TensorFlow Datasets, or prepare it.

TFDS is imported only when a set is asked for: that takes half a second, and it talks.
"""

import contextlib
import difflib
import importlib.util
import io
import re
import urllib.parse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from medjax.lab.data.outside import InOneLine, said, shortened, trouble_with

FORMAT = "array_record"
"""The format in which sets are prepared: TFDS reads it without TensorFlow."""

_NAME = re.compile(r"(?P<set>[a-zA-Z]\w*)(/(?P<config>[\w+.-]+))?(:(\d+|\*)(\.(\d+|\*)){2})?")
# Raised with a message for the user, such as where to put files that TFDS can't download.
_TOLD_BY_TFDS = (AssertionError, ImportError, OSError, RuntimeError, ValueError)


def find(name: str, directory: str, instead: str) -> Any:
    """Find a prepared set; download and prepare it if need be.

    Args:
        name: SET, SET/CONFIG or SET:VERSION.
        directory: the folder of prepared sets; that of TFDS if this is empty.
        instead: the data sets that need no network, for a message.

    Returns:
        The set's builder.

    Raises:
        ValueError: if there is no such set, or its files are torn.
        FileNotFoundError: if it isn't prepared, and can't be.
        ImportError: if it takes a package that isn't installed.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import constants, read_only_builder

    shown, written = repr(f"tfds:{name}"), _NAME.fullmatch(name)
    if written is None:
        raise ValueError(
            f"dataset {shown} is no name; valid: tfds:SET, tfds:SET/CONFIG, tfds:SET:VERSION, each "
            "perhaps with @DIR after it"
        )
    folder = Path(directory or constants.DATA_DIR).expanduser()
    if directory and not folder.is_dir():
        raise FileNotFoundError(f"{str(folder)!r}: no such directory")
    given: dict[str, Any] = {"data_dir": str(folder)}
    with readable(shown, folder), contextlib.suppress(tfds.core.DatasetNotFoundError):
        # By its module, where tfds.testing puts another.
        return read_only_builder.builder_from_files(name, **given)
    known = tfds.list_builders(with_community_datasets=False)
    if written["set"] not in known:
        raise ValueError(_unknown(name, written["set"], known, folder))
    configs = tfds.builder_cls(written["set"]).builder_configs
    if written["config"] and written["config"] not in configs:
        hint = _nearest(written["config"], configs, f"tfds:{written['set']}/")
        raise ValueError(f"dataset {shown}: no such configuration: {hint}valid: {_list(configs)}")
    try:
        builder = tfds.builder(name, file_format=FORMAT, **given)
    except (AssertionError, ValueError) as err:  # of versions
        why = said(err).rpartition('}": ')[2]  # after the arguments that we know
        raise ValueError(f"dataset {shown}: {why}") from None
    _prepare(builder, shown, folder, instead)
    return builder


def _unknown(name: str, of_set: str, known: list[str], folder: Path) -> str:
    """Say that a set is unknown, and what there is instead."""
    if (folder / of_set).is_dir():
        inside = _list(path.name for path in sorted((folder / of_set).iterdir()) if path.is_dir())
        return f"dataset 'tfds:{name}': {str(folder / of_set)!r} has {inside or 'nothing'}"
    prepared = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    hint = _nearest(of_set.lower(), [*known, *prepared], "tfds:")
    return (
        f"unknown dataset 'tfds:{name}': {hint}valid: the sets of TensorFlow Datasets, and those "
        f"prepared in {str(folder)!r}"
    )


def _nearest(name: str, names: Iterable[str], prefix: str) -> str:
    near = difflib.get_close_matches(name, list(names), n=1)
    return f"did you mean {prefix + near[0]!r}? " if near else ""


def _list(names: Iterable[str]) -> str:
    return shortened(", ".join(names))


def _prepare(builder: Any, shown: str, folder: Path, instead: str) -> None:
    """Download a set, and write it to the folder; in silence.

    Raises:
        FileNotFoundError: if that can't be done.
    """
    where = f"dataset {shown} isn't prepared in {str(folder)!r}"
    for url in list(builder.url_infos or ())[:1]:
        trouble = trouble_with(url)
        if trouble:
            host = urllib.parse.urlsplit(url).hostname
            raise FileNotFoundError(
                f"{where}, and {host} can't be reached ({trouble}); valid without it: {instead}"
            )

    def message(error: Exception) -> str:
        why = said(error)
        if isinstance(error, ImportError) and importlib.util.find_spec("tensorflow") is None:
            why = "its preparation needs TensorFlow: pip install tensorflow"
        elif not isinstance(error, _TOLD_BY_TFDS):
            why = f"its code fails with {type(error).__name__}: {why}"
        return f"{where}, and can't be: {why}; by hand: tfds build --file_format={FORMAT}"

    with (
        InOneLine(message),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        builder.download_and_prepare()


@contextlib.contextmanager
def readable(shown: str, folder: object) -> Iterator[None]:
    """Read files by TFDS in this block; if they are torn, say so in one line.

    Args:
        shown: the set's name, quoted.
        folder: the folder of the files.

    Raises:
        ValueError: if they can't be read.
    """
    import pyarrow as pa
    from google.protobuf import json_format, message

    # Raised for files cut at any length or with any bytes changed: by json and TFDS for the
    # descriptions (LookupError, TypeError, RecursionError), by array_record (RuntimeError),
    # protobuf and pyarrow for the examples, and by pillow for the images (SyntaxError).
    torn = (ValueError, OSError, LookupError, TypeError, RuntimeError, SyntaxError)
    torn += (json_format.Error, message.Error, pa.ArrowException)
    try:
        yield
    except torn as error:
        raise ValueError(
            f"dataset {shown} can't be read from {str(folder)!r}: {said(error)}"
        ) from error

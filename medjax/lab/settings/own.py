"""Functions of one's own: `file.py:factory` and `package.module:factory`."""

import argparse
import difflib
import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from medjax.lab.settings import cli

WRITTEN = re.compile(
    r"(?P<where>.+?\.py|[A-Za-z_][\w.]*):(?P<what>[A-Za-z_][\w.]*)(?::(?P<rest>.*))?"
)
"""The form of a function of one's own: FILE.py:FUNCTION:SETTINGS, or MODULE:FUNCTION:SETTINGS."""

# What a mistake in somebody's file raises, imported or called: told in one line with its place.
_MISTAKES = (
    *(ImportError, SyntaxError, OSError, NameError, AttributeError, TypeError, ValueError),
    *(LookupError, ArithmeticError, AssertionError, RuntimeError),
)


class Own(NamedTuple):
    """A function of one's own.

    Attributes:
        name: as it is written, such as ./mine.py:my_rule.
        function: what stands there.
        digest: the SHA-256 of its file.
        settings: what is written after it.
    """

    name: str
    function: Callable[..., Any]
    digest: str
    settings: str | None


def find(text: str) -> Own | None:
    """Load the function that a text names; None if it names none, as krum:f=2 doesn't.

    Raises:
        argparse.ArgumentTypeError: if there is no such file, no such function in a module, or if
            it can't be imported.
    """
    written = WRITTEN.fullmatch(text)
    if written is None:
        if text.endswith(".py"):
            there = _callables(_from_file(text))
            example = f", as in {text}:{there[-1]}" if there else ""
            raise argparse.ArgumentTypeError(f"{text!r} is a file: name a function in it{example}")
        return None
    where, what = written["where"], written["what"]
    module = _from_file(where) if where.endswith(".py") else _from_package(where)
    if module is None:
        return None
    found: Any = module
    for name in what.split("."):
        if not hasattr(found, name):
            there = _callables(module)
            near = difflib.get_close_matches(what, there, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            valid = f"valid: {', '.join(there)}" if there else "nothing there can be called"
            raise argparse.ArgumentTypeError(f"{where!r} has no {what!r}: {hint}{valid}")
        found = getattr(found, name)
    if not callable(found):
        raise argparse.ArgumentTypeError(f"{what!r} in {where!r} is no function but {found!r:.60}")
    # Modules that are built into the interpreter, as math may be, have no file.
    source = Path(getattr(module, "__file__", None) or "")
    digest = hashlib.sha256(source.read_bytes()).hexdigest() if source.is_file() else ""
    return Own(f"{where}:{what}", found, digest, written["rest"])


def _callables(module: ModuleType) -> list[str]:
    """Name what can be called in a module, of its own rather than imported."""
    there = {n: x for n, x in vars(module).items() if callable(x) and not n.startswith("_")}
    own = [n for n, x in there.items() if getattr(x, "__module__", None) == module.__name__]
    return own or [*there]


def _from_file(where: str) -> ModuleType:
    path = Path(where).expanduser()
    try:
        source, path = path.read_bytes(), path.resolve()
        str(path).encode()  # JAX notes it with every operation, as text
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{where!r} can't be read: {error.strerror}") from None
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(
            f"{where!r} is in a folder whose name isn't text in this locale{cli.locale_hint()}"
        ) from None
    return _imported(path, hashlib.sha256(source).hexdigest()[:16], where)


@cache
def _imported(path: Path, version: str, where: str) -> ModuleType:
    """Import a file, once for each version of it."""
    name = f"_medjax_own_{path.stem}_{version}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look for their annotations
    try:
        spec.loader.exec_module(module)
    except _MISTAKES as error:
        del sys.modules[name]
        raise argparse.ArgumentTypeError(f"{where!r} can't be imported: {_told(error)}") from None
    return module


@cache
def _from_package(where: str) -> ModuleType | None:
    """Import a module; None if there is none, and the name may be meant for something else."""
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        # As `python -m` has it: the console command starts without the folder that it is run in.
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(where)
    except ModuleNotFoundError as error:
        if where == error.name:
            return None
        raise argparse.ArgumentTypeError(f"{where!r} can't be imported: {_told(error)}") from None
    except _MISTAKES as error:
        raise argparse.ArgumentTypeError(f"{where!r} can't be imported: {_told(error)}") from None


@contextmanager
def explained(functions: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    """Tell in one line what goes wrong in functions of one's own; other errors stay as they are.

    Args:
        functions: by their names.

    Raises:
        ValueError: if an error arises in a file of one of them.
    """
    with ExitStack() as stack:
        stack.push(lambda kind, error, trace: _explain(functions, error))
        yield


def _explain(functions: Mapping[str, Callable[..., Any]], error: BaseException | None) -> None:
    """Tell what an error is, or the one behind it, if it arose in a file of a function."""
    if not isinstance(error, Exception):
        return
    # A stage that can't be traced is refused with a hint, by an error that a TypeError has caused.
    for cause in (error, error.__cause__):
        if cause is None or (cause is not error and not isinstance(cause, TypeError)):
            continue
        visited = {frame.filename for frame in traceback.extract_tb(cause.__traceback__)}
        for name, function in functions.items():
            file = _file_of(function)
            if file in visited:
                raise ValueError(f"{name}: {_told(cause, file)}") from None


def _file_of(function: Callable[..., Any]) -> str | None:
    """Return the file of a function, a class, or an object that can be called."""
    function = inspect.unwrap(function)
    if isinstance(function, partial):
        return _file_of(function.func)
    if hasattr(function, "__code__"):
        return function.__code__.co_filename
    kind = function if isinstance(function, type) else type(function)
    return getattr(sys.modules.get(kind.__module__), "__file__", None)


def _told(error: BaseException, file: str | None = None) -> str:
    """Return an error in one line, with its line in the file, or where it arose."""
    if isinstance(error, SyntaxError):
        return f"SyntaxError: {error.msg} (line {error.lineno})"
    frames = traceback.extract_tb(error.__traceback__)
    last = [frame for frame in frames if file in (None, frame.filename)][-1]
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message} ({Path(last.filename).name}, line {last.lineno})"

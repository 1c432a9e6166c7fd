"""Libraries that fetch data sets: silence, errors in a line, and hosts that don't answer."""

import contextlib
import http.client
import logging
import textwrap
import threading
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from types import TracebackType

_PROBE_SECONDS = 2.5  # the libraries themselves try again for 20 s or for minutes
_SAID = 300  # characters shown of an error


def trouble_with(url: str) -> str:
    """Say why a host doesn't answer; nothing if it does, whatever the answer is."""
    trouble = [f"no answer in {_PROBE_SECONDS:g} s"]

    def ask() -> None:
        try:
            urllib.request.urlopen(url, timeout=_PROBE_SECONDS).close()
        except urllib.error.HTTPError as err:
            trouble[0] = f"{err.code} {err.reason}" if err.code >= 500 else ""
            err.close()
        except (OSError, ValueError, http.client.HTTPException) as err:
            trouble[0] = said(getattr(err, "reason", err))
        else:
            trouble[0] = ""

    # In a thread, as looking up a host's name heeds no limit.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_PROBE_SECONDS)
    return trouble[0]


def said(error: object) -> str:
    """Shorten an error's message to one line; the error's name if it has none."""
    return shortened(str(error)) or type(error).__name__


def shortened(text: str) -> str:
    """Shorten a text to one line of at most 300 characters."""
    return textwrap.shorten(text, _SAID, placeholder=" ...")


class InOneLine(contextlib.AbstractContextManager[None]):
    """The block that runs code of others to fetch or prepare a set.

    It may raise anything. One line says so, and the error itself stays with it as its cause.

    Args:
        message: makes the line of the error.
    """

    def __init__(self, message: Callable[[Exception], str]) -> None:
        self._message = message

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, Exception):  # neither none nor Ctrl-C
            raise FileNotFoundError(self._message(error)) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the warnings and the log of a library in this block."""
    before = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.ERROR)
        try:
            yield
        finally:
            logging.disable(before)

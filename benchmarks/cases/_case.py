"""The two kinds of mistakes: command lines, and calls of the library."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

_MODULES = {"paper": "experiments.paper.__main__"}
_LINK = "link to "


class Command(NamedTuple):
    """A command line that is a mistake.

    Attributes:
        command: `run` for `medjax.lab.commands.run`, or `benchmarks.step`.
        arguments: its words.
        message: a part of the message that it must give.
        files: the contents of the folder in which it is run, by path; a text that begins with
            "link to " is a link, and None a folder.
    """

    command: str
    arguments: tuple[str, ...]
    message: str
    files: Mapping[str, bytes | str | None] = {}

    @property
    def module(self) -> str:
        """Return the module whose `main` is called."""
        whole = self.command if "." in self.command else f"experiments.{self.command}"
        return _MODULES.get(self.command, whole)

    @property
    def name(self) -> str:
        """Return its name in reports."""
        files = f" with {sorted(self.files)}" if self.files else ""
        return f"{self.command} {' '.join(self.arguments):.60}{files:.60}: {self.message:.60}"

    def put(self, folder: Path) -> None:
        """Write its files."""
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                path.mkdir()
            elif isinstance(content, bytes):
                path.write_bytes(content)
            elif content.startswith(_LINK):
                path.symlink_to(content.removeprefix(_LINK))
            else:
                path.write_text(content, encoding="utf-8")


class Call(NamedTuple):
    """A call of the library that must raise a TypeError or ValueError.

    Attributes:
        name: its name in reports.
        call: the call.
        message: a part of the message that it must give.
    """

    name: str
    call: Callable[[], Any]
    message: str


Case: TypeAlias = Command | Call

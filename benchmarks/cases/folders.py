"""Invalid output folders, for every command that has one."""

from collections.abc import Iterator, Mapping

from benchmarks.cases._case import Command

COMMANDS = (
    ("run", ("--dataset", "idx:nowhere")),
    ("sweep", ("--dataset", "idx:nowhere")),
    ("paper", ("fig1", "--quick")),
    ("robustness", ("--quick",)),
    ("which_b", ("--seeds", "1", "--steps", "1", "--dataset", "idx:nowhere")),
)
"""Commands, each with the arguments that it needs besides --out."""

_TOO_LONG = "x" * 300
_DEEP = "/".join(["y" * 200] * 30)

FOLDERS: tuple[tuple[str, Mapping[str, bytes | str | None], str], ...] = (
    ("", {}, "argument --out: '' names no folder"),
    ("file", {"file": "x"}, "output folder 'file' can't be written: Not a directory"),
    ("file/run", {"file": "x"}, "output folder 'file/run' can't be written: Not a directory"),
    ("file/../run", {"file": "x"}, "output folder 'file/../run' can't be written: Not a dir"),
    ("loop", {"loop": "link to loop"}, "output folder 'loop' can't be written: Too many levels"),
    ("loop/run", {"loop": "link to loop"}, "'loop/run' can't be written: Too many levels"),
    ("dead", {"dead": "link to nowhere"}, "output folder 'dead' can't be written: No such file"),
    ("dead/run", {"dead": "link to nowhere"}, "can't be written: No such file"),
    (_TOO_LONG, {}, "can't be written: File name too long"),
    (_DEEP, {}, "can't be written: File name too long"),
    ("/proc/run", {}, "output folder '/proc/run' can't be written: "),
    ("/dev/null", {}, "output folder '/dev/null' can't be written: Not a directory"),
    ("full", {"full/x": "x"}, "output folder 'full' isn't empty: name a new one with --out"),
    ("new\nline", {"new\nline/x": "x"}, "output folder 'new\\nline' isn't empty"),
    ("list", {"list/config.json": "[]"}, ""),
    ("torn", {"torn/config.json": '{"config"'}, ""),
    ("other", {"other/config.json": "{}"}, "output folder 'other' already holds "),
)
"""The folder, the files that are there, and the message."""


def cases() -> Iterator[Command]:
    """Yield every folder for every command."""
    for command, needed in COMMANDS:
        for folder, files, message in FOLDERS:
            yield Command(command, (*needed, "--out", folder), message, files)

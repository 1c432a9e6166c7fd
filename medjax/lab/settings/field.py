"""One declaration for each setting: all else about it follows from its field.

The flag, its check and its error, `config.json`, the axis of a sweep, lists, labels of pictures
and the documentation are read from these.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

Given = Any
"""The settings as attributes, while they are resolved: those before it with their values, those
after it as they are given or None; and all as they are given in `given`."""


@dataclass(frozen=True)
class Spec:
    """The declaration of a setting.

    Attributes:
        parse: from what is written to its value, whose `str` is what is written again. It raises
            `argparse.ArgumentTypeError`.
        help: what it does, without its default.
        metavar: the word for its value.
        default: its value where it applies and isn't given, or a function to it of the settings.
        default_text: that in words, where it is a function.
        applies: whether a run with these settings has it.
        goes_with: what it needs, for the error.
        label: it in pictures, with {} for the value; "" if it is in none.
        traced: whether runs that differ in its number are one compiled program.
    """

    parse: Callable[[str], Any]
    help: str
    metavar: str
    default: Any = None
    default_text: str = ""
    applies: Callable[[Given], bool] | None = None
    goes_with: str = ""
    label: str = ""
    traced: bool = False

    def value_without(self, settings: Given) -> Any:
        """Return the value where none is given."""
        return self.default(settings) if callable(self.default) else self.default

    def full_help(self) -> str:
        """Return the help with the default."""
        word = "none" if self.default is None else str(self.default)
        default = f"(default: {self.default_text or word})"
        return f"{self.help} {default}" if self.help else default


def setting(parse: Callable[[str], Any], help: str, metavar: str, **others: Any) -> Any:
    """Declare a field of a dataclass as a setting; the arguments are those of `Spec`."""
    return dataclasses.field(metadata={"spec": Spec(parse, help, metavar, **others)})


@cache
def specs(of: type) -> dict[str, Spec]:
    """Return the declarations of a dataclass's settings, by name, in their order."""
    return {f.name: f.metadata["spec"] for f in dataclasses.fields(of) if "spec" in f.metadata}


def flag(name: str) -> str:
    """Return the flag of a setting, such as --worker-chunk."""
    return "--" + name.replace("_", "-")


def plain(value: Any) -> Any:
    """Return a setting's value as files hold it: None, numbers, and all else as it is written."""
    return value if value is None or isinstance(value, int | float) else str(value)

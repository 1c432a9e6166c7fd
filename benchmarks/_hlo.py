"""Parser of a compiled program's text (HLO): its computations, operations and arrays."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

_HEADER = re.compile(r"^(?P<entry>ENTRY )?%?(?P<name>[\w.-]+) .*\{$")
_OPERATION = re.compile(r"^\s+(?P<root>ROOT )?%?(?P<name>[\w.-]+) = (?P<rest>.*)$")
_OPCODE = re.compile(r"\s*(?P<opcode>[\w-]+)\(")
_ARRAY = re.compile(r"\b(?P<type>[a-z]+\d\w*|pred)\[(?P<shape>[\d,<=]*)\](?P<layout>\{[^}]*\})?")
_COMMENT = re.compile(r"/\*.*?\*/")
_MEMORY_SPACE = re.compile(r"S\((\d+)\)")
_HOST_OR_DEVICE = ("0", "5")  # spaces of memory that aren't on the chip itself


class Array(NamedTuple):
    """The type of an array.

    Attributes:
        bits: the bits of one element.
        shape: its shape.
        on_chip: True if the compiler has put it into a TPU's fast memory.
    """

    bits: int
    shape: tuple[int, ...]
    on_chip: bool

    @property
    def size(self) -> int:
        """Return the number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> float:
        """Return its bytes, packed."""
        return self.size * self.bits / 8


@dataclass(frozen=True)
class Operation:
    """One line of a computation.

    Attributes:
        name: its name.
        results: the types of its results, those of a tuple one after the other.
        opcode: its opcode.
        operands: the names of its operands; a parameter's number, a constant's value.
        attributes: the rest of the line.
        root: True for the result of the computation.
    """

    name: str
    results: tuple[Array, ...]
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    root: bool

    def called(self, key: str) -> str | None:
        """Return the computation that an attribute names."""
        found = re.search(rf"\b{key}=%?([\w.-]+)", self.attributes)
        return found[1] if found else None

    def branches(self) -> list[str]:
        """Return the computations that a conditional chooses among."""
        listed = re.search(r"branch_computations=\{([^}]*)\}", self.attributes)
        if listed:
            return [name.strip().removeprefix("%") for name in listed[1].split(",")]
        named = (self.called("true_computation"), self.called("false_computation"))
        return [name for name in named if name is not None]


class Computation(dict[str, Operation]):
    """Operations by their names, in the order in which they run."""

    def arrays(self, operation: Operation) -> list[Array]:
        """Return the types of an operation's operands."""
        taken = (self[name].results for name in operation.operands if name in self)
        return [array for results in taken for array in results]

    def parameter(self, number: int) -> Operation:
        """Return the parameter of that number."""
        wanted = ("parameter", (str(number),))
        return next(o for o in self.values() if (o.opcode, o.operands) == wanted)

    def users(self, name: str) -> Iterator[tuple[Operation, int]]:
        """Yield the operations that use a result, each with its place among their operands."""
        for operation in self.values():
            for place, operand in enumerate(operation.operands):
                if operand == name and operation.opcode not in ("parameter", "constant"):
                    yield operation, place


class Program(NamedTuple):
    """The computations of a program by name, and the name of its entry."""

    computations: dict[str, Computation]
    entry: str

    def trips(self, loop: Operation) -> int:
        """Return how often a loop's body runs: 1 where that depends on the data.

        A GPU's compiler writes it down. Of the others only loops that count from 0 to a constant,
        as those of `lax.fori_loop` and `lax.scan` do, are known.
        """
        known = re.search(r'known_trip_count"?:\{"n":"(\d+)"', loop.attributes)
        if known:
            return int(known[1])
        condition = self.computations.get(loop.called("condition") or "", Computation())
        for operation in condition.values():
            limit = condition.get(operation.operands[-1]) if operation.operands else None
            if operation.root and operation.opcode == "compare" and limit is not None:
                counts = "direction=LT" in operation.attributes and limit.opcode == "constant"
                return int(limit.operands[0]) if counts and limit.operands[0].isdigit() else 1
        return 1


def parse(text: str) -> Program:
    """Read a program.

    Args:
        text: as `compiled.as_text()` gives it.
    """
    computations: dict[str, Computation] = {}
    entry, current = "", Computation()
    for line in text.splitlines():
        header = _HEADER.match(line)
        if header is not None:
            current = computations[header["name"]] = Computation()
            entry = header["name"] if header["entry"] else entry
            continue
        operation = _operation(line)
        if operation is not None:
            current[operation.name] = operation
    return Program(computations, entry)


def arrays(text: str) -> list[Array]:
    """Parse the arrays of a type, those of a tuple one after the other."""
    return [
        Array(
            8 if found["type"] == "pred" else int(re.findall(r"\d+", found["type"])[0]),
            tuple(int(length.strip("<=")) for length in found["shape"].split(",") if length),
            _on_chip(found["layout"] or ""),
        )
        for found in _ARRAY.finditer(text)
    ]


def _on_chip(layout: str) -> bool:
    space = _MEMORY_SPACE.search(layout)
    return space is not None and space[1] not in _HOST_OR_DEVICE


def _operation(line: str) -> Operation | None:
    found = _OPERATION.match(line)
    if found is None:
        return None
    rest = found["rest"]
    end = _closing(rest, 0) if rest.startswith("(") else rest.find(" ")
    opcode = _OPCODE.match(rest, end)
    if opcode is None:
        return None
    close = _closing(rest, opcode.end() - 1)
    return Operation(
        found["name"],
        tuple(arrays(rest[:end])),
        opcode["opcode"],
        _operands(rest[opcode.end() : close - 1]),
        rest[close:],
        found["root"] is not None,
    )


def _closing(text: str, start: int) -> int:
    """Return the place after the parenthesis that closes the one at `start`."""
    depth = 0
    for found in re.finditer(r"[()]", text[start:]):
        depth += 1 if found[0] == "(" else -1
        if depth == 0:
            return start + found.end()
    return len(text)


def _operands(text: str) -> tuple[str, ...]:
    names = re.findall(r"%([\w.-]+)", text)
    return tuple(names or re.findall(r"[^\s,{}]+", _COMMENT.sub("", text)))

"""What crosses between devices, read from a compiled program."""

import re
from collections.abc import Iterator
from typing import NamedTuple

_COLLECTIVE = re.compile(
    r"= (?P<result>\(?[a-z].*?) "
    r"(?P<kind>all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute)(?:-start)?\("
)
_ARRAY = re.compile(r"\b(pred|bf16|[suf]\d+)\[([\d,]*)\]")
_COMPUTATION = re.compile(r"^(?P<entry>ENTRY )?%?(?P<name>[\w.-]+) .*\{$")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition)=%?([\w.-]+)")
_BRANCHES = re.compile(
    r"(?:branch_computations=\{(?P<all>[^}]*)\}"
    r"|true_computation=%?(?P<true>[\w.-]+), false_computation=%?(?P<false>[\w.-]+))"
)
# A device sends what its sum needs, and then, to all others, its part of the sum.
_WAYS = {"all-reduce": 2}


class Bytes(NamedTuple):
    """What each device sends, at least, and at most: branches may differ.

    Of B bytes in a collective of k devices a device sends (k - 1)/k · B, and keeps the rest: in an
    all-reduce, by the best algorithm, twice that.
    """

    least: float
    most: float


def bytes_sent(text: str, devices: int) -> Bytes:
    """What a program sends, a loop's body counted once.

    Args:
        text: the compiled program, as HLO.
        devices: k.
    """
    computations, entry = _computations(text)

    def sent(name: str) -> Bytes:
        least = most = 0.0
        for line in computations[name]:
            for moved in _moved(line):
                least, most = least + moved, most + moved
            for called in _CALLED.findall(line):
                if called in computations and "-reduce" not in line:
                    inner = sent(called)
                    least, most = least + inner.least, most + inner.most
            branches = [sent(branch) for branch in _branches(line)]
            if branches:
                least += min(branch.least for branch in branches)
                most += max(branch.most for branch in branches)
        return Bytes(least, most)

    share = (devices - 1) / devices
    least, most = sent(entry)
    return Bytes(share * least, share * most)


def _moved(line: str) -> Iterator[float]:
    found = _COLLECTIVE.search(line)
    if found is not None:
        size = sum(_num_bytes(*array) for array in _ARRAY.findall(found["result"]))
        yield _WAYS.get(found["kind"], 1) * size


def _num_bytes(dtype: str, shape: str) -> float:
    count = 1
    for length in filter(None, shape.split(",")):
        count *= int(length)
    bits = 8 if dtype == "pred" else int(re.sub(r"\D", "", dtype))
    return count * bits / 8


def _branches(line: str) -> list[str]:
    found = _BRANCHES.search(line)
    if found is None:
        return []
    names = found["all"].split(",") if found["all"] else [found["true"], found["false"]]
    return [name.strip().removeprefix("%") for name in names]


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    """The lines of each computation, and the name of that which the others are called from."""
    computations: dict[str, list[str]] = {}
    entry = name = ""
    for line in text.splitlines():
        found = _COMPUTATION.match(line)
        if found is not None:
            name = found["name"]
            entry = name if found["entry"] else entry
            computations[name] = []
        elif name:
            computations[name].append(line)
    return computations, entry

"""Kernels that a compiled program launches, with the bytes and operations of each."""

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from benchmarks._hlo import Array, Computation, Operation, Program, parse

# A device sends what its sum needs, and then, to all others, its part of the sum.
_WAYS = {
    **{"all-reduce": 2, "all-gather": 1, "all-to-all": 1, "ragged-all-to-all": 1},
    **{"reduce-scatter": 1, "collective-permute": 1, "collective-broadcast": 1},
}
_SLICES = ("slice", "dynamic-slice", "gather")
_UPDATE = "dynamic-update-slice"
_VIEWS = ("bitcast", "reshape")
# Operations that launch nothing and, inside a kernel, compute nothing.
_FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "after-all", "add-dependency"),
    *("partition-id", "replica-id", "iota", "broadcast", "opt-barrier", *_VIEWS),
    *("AllocateBuffer", "ConcatBitcast"),  # custom calls on a TPU
}
_MOVES = {"copy", "transpose", "concatenate", "pad", _UPDATE, *_SLICES}
_PRODUCTS = re.compile(r"dot|convolution|.*(gemm|matmul)", re.IGNORECASE)


@dataclass(frozen=True)
class Kernel:
    """One kernel of a program; all figures but the count are those of one launch.

    Attributes:
        name: the operation's name.
        kind: its opcode, or the target of a custom call.
        count: the number of launches.
        moved: bytes that it reads from the device's memory and writes to it.
        operations: elementwise operations.
        flops: floating-point operations of matrix products.
        cycles: the cycles that the compiler expects; None where it doesn't say.
        sent: bytes of a collective: each of k devices sends (k - 1)/k of them to others, by the
            best algorithm.
    """

    name: str
    kind: str
    count: int
    moved: float
    operations: float = 0.0
    flops: float = 0.0
    cycles: int | None = None
    sent: float = 0.0

    @property
    def is_collective(self) -> bool:
        """Return True if devices exchange something in it."""
        return self.kind in _WAYS


Choice = Callable[[Iterable[list[Kernel]]], list[Kernel]]
"""Choice of the branch of a conditional that counts."""


def sent(kernels: Iterable[Kernel]) -> float:
    """Return the bytes of all collectives."""
    return sum(kernel.count * kernel.sent for kernel in kernels)


def _cost(kernels: Iterable[Kernel]) -> tuple[float, float]:
    kernels = list(kernels)
    return sent(kernels), sum(kernel.count * kernel.moved for kernel in kernels)


def least(branches: Iterable[list[Kernel]]) -> list[Kernel]:
    """Return the branch that sends, and then moves, the least: the other one is rarely taken."""
    return min(branches, key=_cost)


def most(branches: Iterable[list[Kernel]]) -> list[Kernel]:
    """Return the branch that sends, and then moves, the most."""
    return max(branches, key=_cost)


def launches(text: str, branch: Choice = least) -> list[Kernel]:
    """Return the kernels of a program, in the order of its text.

    The kernels of a loop count once for each of its turns, or once where these depend on the data.

    Args:
        text: the compiled program, as HLO.
        branch: chooses the branch of a conditional that counts.
    """
    program = parse(text)

    def walk(name: str | None) -> list[Kernel]:
        computation = program.computations.get(name or "", Computation())
        found: list[Kernel] = []
        for operation in computation.values():
            if operation.opcode == "while":
                inner = walk(operation.called("condition")) + walk(operation.called("body"))
                trips = program.trips(operation)
                found += [replace(kernel, count=trips * kernel.count) for kernel in inner]
            elif operation.opcode == "conditional":
                found += branch([walk(name) for name in operation.branches()])
            elif operation.opcode == "call":
                found += walk(operation.called("to_apply"))
            elif operation.opcode == "async-start":
                found += walk(operation.called("calls"))
            elif not _is_free(computation, operation):
                found.append(_kernel(program, computation, operation))
        return found

    return walk(program.entry)


def _is_free(computation: Computation, operation: Operation) -> bool:
    kind = _kind(operation)
    if kind in _FREE or kind.endswith(("-done", "-update")):
        return True
    # A TPU's program computes single numbers, such as a loop's counter, beside its kernels.
    of_numbers = not any(a.shape for a in (*operation.results, *computation.arrays(operation)))
    launched = ("fusion", "custom-call", "copy")
    return of_numbers and operation.opcode not in launched and kind not in _WAYS


def _kind(operation: Operation) -> str:
    target = re.search(r'custom_call_target="([^"]*)"', operation.attributes)
    return target[1] if target else operation.opcode.removesuffix("-start")


def _kernel(program: Program, computation: Computation, operation: Operation) -> Kernel:
    kind = _kind(operation)
    cycles = re.search(r'"estimated_cycles":"(\d+)"', operation.attributes)
    kernel = Kernel(operation.name, kind, 1, 0.0, cycles=int(cycles[1]) if cycles else None)
    if operation.opcode == "fusion":
        return _of_fusion(program, operation, kernel)
    results, operands = _results(computation, operation), computation.arrays(operation)
    if kind in _SLICES:
        source = 0.0 if operands[0].on_chip else sum(array.bytes for array in results)
        moved = source + _bytes(results)
    elif kind == _UPDATE:
        moved = 2 * _bytes(computation[operation.operands[1]].results)
    else:
        moved = _bytes(operands) + _bytes(results)
    operations, flops = _work(computation, operation)
    ways = _WAYS.get(kind, 0)
    sent = ways * sum(array.bytes for array in results)
    return replace(kernel, moved=moved, operations=operations, flops=flops, sent=sent)


def _results(computation: Computation, operation: Operation) -> list[Array]:
    """Return an operation's results, without workspaces or what a start was given."""
    results = list(operation.results)
    if operation.opcode == "custom-call" and _PRODUCTS.match(_kind(operation)):
        return results[:1]
    given = computation.arrays(operation)
    if operation.opcode.endswith("-start") and len(results) > len(given):
        # Of a copy the destination comes first, of all others what they were given.
        results = results[:1] if operation.opcode == "copy-start" else results[len(given) :]
        return [array for array in results if array.shape] or results[:1]
    return results


def _of_fusion(program: Program, operation: Operation, kernel: Kernel) -> Kernel:
    body = operation.called("calls") or ""
    read = sum(_read(program, body, number) for number in range(len(operation.operands)))
    operations, flops = _work_inside(program, body)
    moved = read + _written(program, body, operation)
    return replace(kernel, moved=moved, operations=operations, flops=flops)


def _read(program: Program, name: str, number: int) -> float:
    """Return the bytes of a parameter that a fusion reads: slices, where only these are used."""
    computation = program.computations[name]

    def read(operation: Operation) -> float:
        total, whole = 0.0, _bytes(operation.results)
        for user, place in computation.users(operation.name):
            if user.opcode in _SLICES and place == 0:
                total += sum(array.bytes for array in user.results)
            elif user.opcode in _VIEWS:
                total += read(user)
            elif user.opcode == "fusion":
                total += _read(program, user.called("calls") or "", place)
            elif user.opcode != _UPDATE or place > 0:
                return whole
        return min(total, whole)

    return read(computation.parameter(number))


def _written(program: Program, name: str, operation: Operation) -> float:
    """Return the bytes that a fusion writes: a slice, where it updates that in place."""
    written, computation = _bytes(operation.results), program.computations[name]
    for inner in computation.values():
        if inner.opcode == _UPDATE and _is_parameter(computation, inner.operands[0]):
            written += _bytes(computation[inner.operands[1]].results) - _bytes(inner.results)
    return max(written, 0.0)


def _is_parameter(computation: Computation, name: str) -> bool:
    while computation[name].opcode in _VIEWS:
        name = computation[name].operands[0]
    return computation[name].opcode == "parameter"


def _work_inside(program: Program, name: str) -> tuple[float, float]:
    computation, operations, flops = program.computations[name], 0.0, 0.0
    for inner in computation.values():
        if inner.opcode == "fusion":
            more = _work_inside(program, inner.called("calls") or "")
        else:
            more = _work(computation, inner)
        operations, flops = operations + more[0], flops + more[1]
    return operations, flops


def _work(computation: Computation, operation: Operation) -> tuple[float, float]:
    """Return the elementwise operations, and those of a matrix product."""
    kind, operands = _kind(operation), computation.arrays(operation)
    size = max((array.size for array in operation.results), default=0)
    if kind in _FREE or kind in _MOVES or kind in _WAYS:
        return 0.0, 0.0
    if _PRODUCTS.match(kind) and len(operands) >= 2:
        out = operation.results[0]
        batch = out.shape[0] if len(out.shape) > 2 else 1
        # (b, m, k) by (b, k, n) to (b, m, n): the product of all three sizes is b³ (m k n)².
        product = operands[0].size * operands[1].size * out.size
        return 0.0, 2 * math.sqrt(product / batch)
    if kind in ("reduce", "reduce-window"):
        return float(max((array.size for array in operands), default=0)), 0.0
    if kind == "sort":
        return size * math.log2(size + 2) ** 2, 0.0
    return float(size), 0.0


def _bytes(types: Iterable[Array]) -> float:
    """Add up the bytes that cross the device's memory."""
    return sum(array.bytes for array in types if not array.on_chip)

"""Reports of NVIDIA's assembler, ptxas, on kernels that are written by hand."""

import re
from dataclasses import dataclass

_REPORT = re.compile(
    r"Compiling entry function '(?P<name>[^']+)'.*?(?P<spilled>\d+) bytes spill stores"
    r".*?Used (?P<registers>\d+) registers",
    re.DOTALL,
)
_INSTRUCTION = re.compile(r"^\s+(?:@!?%\w+\s+)?[a-z][\w.:]*(?:\s[^;]*)?;", re.MULTILINE)


@dataclass(frozen=True)
class HandWritten:
    """A kernel of Pallas on Mosaic GPU.

    Attributes:
        name: its own.
        registers: of each thread, which can have 255.
        spilled: bytes that each thread stores elsewhere for want of registers.
        instructions: of its PTX, ptxas's input. A loop's are counted once.
    """

    name: str
    registers: int
    spilled: int
    instructions: int


def reports(log: str) -> list[HandWritten]:
    """Read what was written of each kernel: its PTX, and then ptxas's words.

    Args:
        log: as Mosaic writes it where MOSAIC_GPU_DUMP_PTX and MOSAIC_GPU_DUMP_PTXAS are set.
    """
    found, before = [], 0
    for report in _REPORT.finditer(log):
        body = log[before : report.start()].rpartition(f".entry {report['name']}(")[2]
        before = report.end()
        found.append(
            HandWritten(
                report["name"].removesuffix("_mosaic_gpu_kernel"),
                int(report["registers"]),
                int(report["spilled"]),
                len(_INSTRUCTION.findall(body.partition("\n}")[0])),
            )
        )
    return found

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
        name: its name.
        registers: registers of each thread, which can have 255.
        spilled: bytes that each thread stores elsewhere for want of registers.
        instructions: instructions of its PTX, the input of ptxas; those of a loop count once.
    """

    name: str
    registers: int
    spilled: int
    instructions: int


def reports(log: str) -> list[HandWritten]:
    """Parse the log of each kernel: its PTX, and then the report of ptxas.

    Args:
        log: the output of Mosaic where MOSAIC_GPU_DUMP_PTX and MOSAIC_GPU_DUMP_PTXAS are set.
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

"""Machines that we don't have: their peak rates, as their makers publish them.

None of them has run this, and no program reaches its machine's peak.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """A machine's peak rates, for each device.

    Attributes:
        name: what it is.
        devices: how many of them.
        peak: FLOP/s of float32 products as JAX computes them by default: dense TF32 on a GPU,
            bfloat16 on a TPU.
        full: FLOP/s of those in full precision, which a Gram matrix has.
        memory: bytes/s of its memory.
        capacity: bytes of it.
        link: bytes/s that it can send in one direction, over all of its links.
        longest: how many devices the longest axis of a torus has; None if all are one switch apart.
        source: where the figures are from.
    """

    name: str
    devices: int
    peak: float
    full: float
    memory: float
    capacity: float
    link: float
    longest: int | None
    source: str

    @property
    def all_to_all(self) -> float:
        """Bytes/s that each device can send while all send something else to every other.

        On a torus half of k·B bytes, B each, have to cross between two halves of the longest axis,
        of a devices, half of those in either direction: k·B/4. Each of the k/a rings along it is
        cut twice, at links of l bytes/s: 2·l·k/a in a direction, so that B takes B·a/(8·l).
        """
        if self.longest is None:
            return self.link
        axes = round(math.log(self.devices, self.longest))
        return min(self.link, 8 * self.link / (2 * axes) / self.longest)


_NVIDIA = "NVIDIA's data sheet of the {}: without sparsity, and half of NVLink's both directions"
_GOOGLE = "docs.cloud.google.com/tpu/docs/{}, half of its bidirectional interconnect"
MACHINES = {
    "h100": Machine(
        "8 × NVIDIA H100 SXM 80 GB, NVSwitch",
        *(8, 494.5e12, 67e12, 3.35e12, 80e9, 450e9, None),
        _NVIDIA.format("H100"),
    ),
    "a100": Machine(
        "8 × NVIDIA A100 SXM 80 GB, NVSwitch",
        *(8, 156e12, 19.5e12, 2.039e12, 80e9, 300e9, None),
        _NVIDIA.format("A100"),
    ),
    # Full precision takes a TPU six products of bfloat16.
    "v5e": Machine(
        "TPU v5e, a pod of 16×16",
        *(256, 197e12, 197e12 / 6, 819e9, 16e9, 200e9, 16),
        _GOOGLE.format("v5e"),
    ),
    "v5p": Machine(
        "TPU v5p, a slice of 8×8×8",
        *(512, 459e12, 459e12 / 6, 2765e9, 95e9, 600e9, 8),
        _GOOGLE.format("v5p"),
    ),
}
"""By a short name."""

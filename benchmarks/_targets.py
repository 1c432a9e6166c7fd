"""Descriptions of absent devices, for which their own compilers can compile here."""

import os
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from jax.experimental import topologies

from benchmarks import _captured
from benchmarks._launches import Kernel

INSTALL = 'pip install "medjax[accelerators]"'

# As XLA's own descriptions of GPUs, with which it chooses how to compile.
_GPU = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_core: 233472
  shared_memory_per_block_optin: 232448 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: %d device_memory_size: %d l2_cache_size: 52428800 clock_rate_ghz: 1.98
  cuda_compute_capability { major: 9 } registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}
platform_name: "CUDA" dnn_version_info { major: 9 minor: 7 }
runtime_version { major: 12 minor: 9 patch: 0 } device_description_str: "%s"
"""
_GPUS = {
    "h100": _GPU % (3_352_320_000_000, 84_929_347_584, "NVIDIA H100 80GB HBM3"),
    "h200": _GPU % (4_814_000_000_000, 150_000_000_000, "NVIDIA H200"),
}
_TPU = re.compile(r"(v5e|v5p|v6e):\d+(x\d+)+")


@dataclass(frozen=True)
class Rates:
    """Rates of a device, for the model of time.

    Attributes:
        memory: bytes/s of the device's memory.
        link: bytes/s that it sends to others.
        launch: seconds that a kernel takes besides its work.
        operations: elementwise operations/s; None where the compiler counts cycles itself.
        flops: floating-point operations/s of matrix products; None likewise.
        clock: cycles/s.
    """

    memory: float
    link: float
    launch: float = 0.0
    operations: float | None = None
    flops: float | None = None
    clock: float | None = None

    def seconds(self, kernel: Kernel, devices: int = 1) -> float:
        """Return the time of all launches of a kernel, by the model.

        Args:
            kernel: the kernel.
            devices: k, how many exchange something in a collective.
        """
        work = (kernel.cycles or 0) / self.clock if self.clock else 0.0
        if self.operations and self.flops:
            work = kernel.operations / self.operations + kernel.flops / self.flops
        wire = kernel.sent * (devices - 1) / devices / self.link
        return kernel.count * (max(kernel.moved / self.memory, work) + wire + self.launch)


# Those of the GPUs as an H100 reached them, its memory's by a copy; an H200's memory in proportion.
_NVLINK = 450e9  # half of both directions, by NVIDIA's data sheet
_GPU_RATES = {"launch": 1.6e-6, "operations": 30e12, "flops": 45e12}
_RATES = {
    "h100": Rates(2.7e12, _NVLINK, **_GPU_RATES),
    "h200": Rates(3.9e12, _NVLINK, **_GPU_RATES),
    # Peak rates, as docs.cloud.google.com/tpu has them: half of the bidirectional interconnect, and
    # the clock at which the matrix units reach their peak.
    "v5e": Rates(819e9, 200e9, clock=1.5e9),
    "v5p": Rates(2765e9, 600e9, clock=1.75e9),
    "v6e": Rates(1638e9, 400e9, clock=1.75e9),
}


@dataclass(frozen=True)
class Compiled:
    """A compiled program.

    Attributes:
        text: its HLO.
        trace_s: seconds to trace and lower it.
        compile_s: seconds to compile it.
        temporary: bytes of memory besides its arguments and results.
        log: the output of the compiler, with the reports of ptxas.
    """

    text: str
    trace_s: float
    compile_s: float
    temporary: int
    log: str


def without_devices() -> None:
    """Keep JAX from looking for devices; to be called before it has made a backend."""
    os.environ |= {
        "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1",  # of libraries that only a device needs
        "TPU_SKIP_MDS_QUERY": "1",  # to the metadata server of a machine in the cloud
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # by several processes: there is no TPU to share
        "TPU_LOG_DIR": "disabled",
        "MOSAIC_GPU_DUMP_PTX": "1",
        "MOSAIC_GPU_DUMP_PTXAS": "1",
    }
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)  # its programs took no time


def known(target: str) -> bool:
    """Return True if there is a description of such a device."""
    return target in _GPUS or _TPU.fullmatch(target) is not None


def valid() -> str:
    """Return a list of the targets in words."""
    return f"{', '.join(_GPUS)}, or a TPU's topology such as v5e:2x2, v5p:2x2x1 or v6e:2x4"


def rates(target: str) -> Rates:
    """Return the rates of a target."""
    return _RATES[target.partition(":")[0]]


def devices(target: str, count: int) -> list[Any]:
    """Return devices to compile for.

    Raises:
        ValueError: if there is no such topology, or it has fewer devices.
        ImportError: if a package is missing.
    """
    try:
        with tempfile.TemporaryFile("w+") as ignored, _captured.into(ignored):
            if target in _GPUS:
                config = {"topology": f"1x1x{count}", "target_config": _GPUS[target]}
                found = topologies.get_topology_desc(platform="cuda", **config).devices
            else:
                found = topologies.get_topology_desc(target, platform="tpu").devices
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{target!r} can't be described: {reason}; valid: {valid()}") from None
    except RuntimeError:  # JAX's word for that it has no such compiler
        raise ImportError(f"the compiler for {target} isn't installed: {INSTALL}") from None
    if len(found) < count:
        raise ValueError(f"{target} has {len(found)} devices, not {count}")
    return list(found[:count])


def compile_for(function: Callable[..., Any], *shapes: Any) -> Compiled:
    """Compile a function for the devices that its arguments are on.

    Args:
        function: the function to jit.
        shapes: its arguments, as `jax.ShapeDtypeStruct` with shardings over such devices.
    """
    start = time.perf_counter()
    lowered = jax.jit(function).lower(*shapes)
    lowered_at = time.perf_counter()
    with tempfile.TemporaryFile("w+", errors="replace") as file:
        with _captured.into(file):
            compiled = _compiled(lowered)
        end = time.perf_counter()
        file.seek(0)
        log = file.read()
    return Compiled(
        compiled.as_text() or "",
        lowered_at - start,
        end - lowered_at,
        compiled.memory_analysis().temp_size_in_bytes,  # pyright: ignore[reportOptionalMemberAccess]
        log,
    )


def _compiled(lowered: jax.stages.Lowered) -> jax.stages.Compiled:
    try:
        return lowered.compile()
    except jax.errors.JaxRuntimeError:
        # Without a device to try it on, a tiling of a matrix product may not fit: cuBLAS then.
        return lowered.compile({"xla_gpu_enable_triton_gemm": False})

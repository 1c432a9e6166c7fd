"""Record where a result comes from: versions, device, commit, command and time."""

import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

_PACKAGES = ("medjax", "jax", "jaxlib", "optax", "flax", "numpy", "pyarrow", "matplotlib")


def provenance() -> dict[str, Any]:
    """Return, as JSON has it, what explains a result together with its settings."""
    return {
        "command": shlex.join([*_program(), *sys.argv[1:]]),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "versions": versions(),
        "device": device(),
    }


def device() -> dict[str, Any]:
    """Describe the devices of this machine, as JSON has it."""
    first = jax.devices()[0]
    return {
        "platform": first.platform,
        "kind": first.device_kind,
        "count": jax.device_count(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
    }


def _program() -> list[str]:
    """Return the words that a person writes to start this program."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if spec is not None:
        return ["python", "-m", spec.name.removesuffix(".__main__")]
    program = Path(sys.argv[0])
    return ["python", str(program)] if program.suffix == ".py" else [program.stem]


def _commit() -> str | None:
    """Return the source's git commit, with '-dirty' for changes; None outside a checkout."""
    # Installed in a folder of another project, this file isn't one of that repository.
    if _git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    return _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _git(*command: str) -> str | None:
    """Return what git prints, run beside this file; None if it fails or says nothing."""
    place = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", *command], cwd=place, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def versions() -> dict[str, str | None]:
    """Return the versions of Python and of the packages that matter; None for what isn't there."""
    return {"python": platform.python_version()} | {name: _version(name) for name in _PACKAGES}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None

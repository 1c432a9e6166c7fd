"""Pack what a node needs to compute as the driver does: plain values, none of its objects.

JAX's configuration, the versions it checks, the runs of a program as files hold them, and the text
of files with functions of one's own.
"""

import argparse
import hashlib
import os
import re
from collections.abc import Mapping
from contextlib import chdir
from dataclasses import replace
from enum import Enum
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import jax

import medjax
from medjax.lab.data import Dataset
from medjax.lab.settings import own
from medjax.lab.settings.config import as_record, digests, from_record
from medjax.lab.storage import provenance
from medjax.lab.sweeps.plan import Group, make_groups

_PACKAGES = ("medjax", "jax", "jaxlib", "optax", "flax", "numpy")
_SOURCE = "medjax's source"
_ENVIRONMENT = re.compile(r"(XLA|LIBTPU|MEDJAX)_.*|NPROC")  # JAX's own is in its configuration
_ONLY_HERE = re.compile(r".*_visible_devices|jax_cross_host.*")  # Ray says which a node has


class Conditions(NamedTuple):
    """Configuration that a process computes with, the same on all nodes.

    Attributes:
        versions: of the packages, and the SHA-256 of medjax's source.
        flags: JAX's configuration.
        environment: variables that XLA and medjax read.
    """

    versions: dict[str, str | None]
    flags: dict[str, Any]
    environment: dict[str, str]


class Problem(NamedTuple):
    """The runs of a program, as a node can make them anew.

    Attributes:
        settings: each a record, for the first seed.
        seeds: every seed with each of these.
        files: texts of files with functions of one's own, by their paths on the nodes.
        modules: such functions in modules, which the nodes have themselves, with their SHA-256.
    """

    settings: list[dict[str, Any]]
    seeds: list[int]
    files: dict[str, bytes]
    modules: dict[str, str]


def versions() -> dict[str, str | None]:
    """Return the versions of this process."""
    found = provenance.versions()
    return {name: found[name] for name in _PACKAGES} | {_SOURCE: _source()}


def difference(here: Mapping[str, str | None], there: Mapping[str, str | None]) -> str:
    """Name the first package of another version on a node; "" if there is none."""
    for name in here:
        if here[name] != there[name]:
            if name == _SOURCE:
                return "another source of medjax"
            return f"{name} {there[name]}, this machine {here[name]}"
    return ""


@cache
def _source() -> str:
    """Return the SHA-256 of medjax's source: a checkout may be of any commit."""
    root = Path(medjax.__file__).parent
    found = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        found.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


def conditions() -> Conditions:
    """Return what this process computes with."""
    plain = bool | int | float | str | None | Enum
    flags = {k: v for k, v in jax.config.values.items() if isinstance(v, plain)}
    flags = {k: v for k, v in flags.items() if not _ONLY_HERE.fullmatch(k)}
    environment = {k: v for k, v in os.environ.items() if _ENVIRONMENT.fullmatch(k)}
    return Conditions(versions(), flags, environment)


def adopt(conditions: Conditions) -> None:
    """Compute with the same; to be called before JAX is used."""
    os.environ.update(conditions.environment)
    for name, value in conditions.flags.items():
        if jax.config.values.get(name, value) != value:
            jax.config.update(name, value)


def packed(group: Group) -> Problem:
    """Make the runs of a program ready to be sent.

    Raises:
        ValueError: if a file with a function of one's own has changed since it was loaded.
    """
    named: dict[str, str] = {}  # files, as they are written and on the nodes
    files, modules = {}, {}
    for name, digest in digests(group.settings).items():
        where = name.rpartition(":")[0]
        if not where.endswith(".py"):
            modules[name] = digest
            continue
        path = Path(where).expanduser()
        text = path.read_bytes()
        if hashlib.sha256(text).hexdigest() != digest:
            raise ValueError(f"{where!r} has changed since this command has loaded it")
        named[where] = f"{digest[:16]}/{path.name}"
        files[named[where]] = text
    settings = [_renamed(as_record(each), named) for each in group.settings]
    return Problem(settings, group.seeds, files, modules)


def _renamed(record: dict[str, Any], named: Mapping[str, str]) -> dict[str, Any]:
    """Write files as they are called on the nodes."""
    for where, path in named.items():
        # It begins a part, or follows what may stand before one; then comes a function.
        pattern = rf"(^|\+|^noisy_){re.escape(where)}(?=:)"
        for name, value in record.items():
            if isinstance(value, str):
                record[name] = re.sub(pattern, lambda found, path=path: found[1] + path, value)
    return record


def unpacked(problem: Problem, dataset: Dataset) -> Group:
    """Make the runs of a program on a node, of data that the driver has loaded.

    Raises:
        ValueError: if functions of one's own aren't the same here.
    """
    with TemporaryDirectory(prefix="medjax-") as folder, chdir(folder):
        for name, text in problem.files.items():
            Path(name).parent.mkdir(exist_ok=True)
            Path(name).write_bytes(text)
        for name, digest in problem.modules.items():
            _check_module(name, digest)
        settings = [from_record(record) for record in problem.settings]
    runs = [replace(each, seed=seed) for each in settings for seed in problem.seeds]
    (group,) = make_groups(runs, {(runs[0].dataset, runs[0].clients): dataset})
    return group


def _check_module(name: str, digest: str) -> None:
    try:
        found = own.find(name)
    except argparse.ArgumentTypeError as error:
        raise ValueError(str(error)) from None
    if found is None or found.digest != digest:
        what = "no such module" if found is None else "another one"
        raise ValueError(
            f"{name}: there is {what} there; install it, or name a file, as in ./mine.py:f, which "
            "is sent"
        )

"""Connect to a Ray cluster: the flag, the address, and one line if there is nothing."""

import argparse
import logging
import os
import re
import signal
import socket
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import IO, Any

import jax

from medjax.lab.machine import processes
from medjax.lab.settings.field import flag
from medjax.lab.sweeps.cluster import parcel
from medjax.lab.sweeps.cluster.workers import Cluster

_WORDS = ("auto", "local")
_SECONDS = 10.0  # to be answered in
# What a client of HTTP/2 says first, with empty settings: so does Ray, of whom nothing else but
# minutes of silence tells that there is another service.
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)
_SETTINGS = 4  # the kind of the frame that answers


def add_ray(parser: argparse.ArgumentParser) -> None:
    """Add the flag."""
    group = parser.add_argument_group("cluster")
    group.add_argument(
        "--ray",
        metavar="ADDRESS",
        nargs="?",
        const="",
        type=_address,
        help="run the chunks on the nodes of the Ray cluster that this machine is in: HOST:PORT, "
        "auto for the one that runs here, local to start one (default: RAY_ADDRESS, else auto, "
        "else local)",
    )


def check_alone(arguments: argparse.Namespace) -> None:
    """Check that no flag is given that doesn't go with --ray.

    Raises:
        ValueError: if one is.
    """
    reasons = {
        "devices": (arguments.devices != "auto", "each node takes the devices that Ray gives it"),
        "mesh": (bool(arguments.mesh), "each run is on one device"),
        "checkpoint_every": (
            arguments.checkpoint_every is not None,
            "a chunk whose node is lost is run again",
        ),
    }
    for name, (given, reason) in reasons.items():
        if given:
            raise ValueError(f"{flag(name)} doesn't go with --ray: {reason}")


@contextmanager
def joined(address: str, tell: Callable[[str], None]) -> Iterator[Cluster]:
    """Connect to a cluster, or start one on this machine, and take its nodes as workers.

    JAX of this process computes on the CPU from here on: its GPUs are the cluster's.

    Args:
        address: HOST:PORT, auto, local, or "" for what Ray finds.
        tell: takes a line for the user.

    Raises:
        ValueError: if there is no cluster, or its nodes can't compute as this process does.
    """
    where = address or os.environ.get("RAY_ADDRESS", "")
    if where and where not in _WORDS:
        _check_answers(where)
    conditions = parcel.conditions()
    ray = _connected(address)
    cluster = Cluster(ray, conditions)
    try:
        jax.config.update("jax_platforms", "cpu")
        cluster.gather(tell)
        yield cluster
    finally:
        cluster.dismiss()
        ray.shutdown()
        jax.config.update("jax_platforms", conditions.flags["jax_platforms"])


def _connected(address: str) -> Any:
    # Read when it is imported: nothing of its own is printed between our lines.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".*")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    main = threading.current_thread() is threading.main_thread()
    previous = signal.getsignal(signal.SIGTERM)
    with warnings.catch_warnings(), _kept_quiet() as log:
        warnings.simplefilter("ignore")  # what Ray says of its future
        try:
            ray.init(
                address or None,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.CRITICAL,
            )
        # All that it raises on the way, as for another version of Ray or Python.
        except (OSError, ValueError, RuntimeError, AssertionError) as error:
            words = " ".join(str(error).split())
            raise ValueError(f"--ray {address}: {words[:300]}{_last_line(log)}") from None
        except SystemExit:  # of its own handler for SIGTERM
            raise KeyboardInterrupt from None
        finally:
            if main and previous is not None:  # not the one that Ray has put there
                signal.signal(signal.SIGTERM, previous)
    return ray


@contextmanager
def _kept_quiet() -> Iterator[IO[bytes]]:
    """Keep what libraries write to the standard error in a file, C++ code included."""
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as log:
        os.dup2(log.fileno(), 2)
        try:
            yield log
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def _last_line(log: IO[bytes]) -> str:
    """Return the last thing that Ray has logged, without when and where, after a colon."""
    log.seek(0)
    lines = log.read().decode(errors="replace").splitlines()
    found = [re.sub(r"^\[[^]]*\] \S+: ", "", line).strip() for line in lines if line.strip()]
    return f": {found[-1][:300]}" if found else ""


def _check_answers(address: str) -> None:
    """Check that something listens at the address that may be Ray, for which Ray takes minutes.

    Raises:
        ValueError: if not.
    """
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), _SECONDS) as connection:
            connection.settimeout(_SECONDS)
            if os.environ.get("RAY_USE_TLS", "0") != "0":
                return
            connection.sendall(_HELLO)
            answer = connection.recv(4)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"--ray {address}: no Ray cluster answers there: {reason}") from None
    if answer[3:] != bytes([_SETTINGS]):
        raise ValueError(
            f"--ray {address}: what answers there is no Ray cluster; its port is 6379 unless `ray "
            "start --port` says otherwise"
        )


def _address(text: str) -> str:
    """Parse an address for argparse, which needs the package."""
    if find_spec("ray") is None:
        raise argparse.ArgumentTypeError('the package isn\'t installed: pip install "medjax[ray]"')
    if text.startswith("ray://"):
        raise argparse.ArgumentTypeError(
            f"{text!r} is for Ray's client: call the command on a node of the cluster, with "
            "HOST:PORT of its head"
        )
    if not text or text in _WORDS:
        return text
    try:
        return processes.address(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}, nor {' or '.join(_WORDS)}") from None

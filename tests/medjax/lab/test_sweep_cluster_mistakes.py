"""Mistakes with `--ray`: one line each, soon, and nothing is written."""

import socket
import threading
from contextlib import contextmanager

import pytest

from medjax.lab.commands.sweep import main
from medjax.lab.sweeps.cluster import connect

QUICK = ("--dataset", "digits", "--model", "logistic", "--steps", "2", "--seeds", "1", "--ray")


@contextmanager
def listening(answer):
    """Listen at a port, and give everybody the same answer."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            connection, _ = server.accept()
            with connection:
                connection.recv(64)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        thread.join()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--devices", "2"), "--devices doesn't go with --ray: each node takes the devices that"),
        (("--mesh", "grid=2"), "--mesh doesn't go with --ray: each run is on one device"),
        (("--checkpoint-every", "5"), "--checkpoint-every doesn't go with --ray: a chunk whose"),
    ],
)
def test_flags_that_do_not_go_with_it(flags, message, error_of):
    assert message in error_of(main, *QUICK, *flags)


@pytest.mark.parametrize("address", ["head", "head:port", "ray://head:10001"])
def test_what_is_no_address(address, error_of):
    message = error_of(main, *QUICK, address)
    assert repr(address) in message
    assert "HOST:PORT" in message or "a host and a port" in message


def test_without_the_package(monkeypatch, error_of):
    monkeypatch.setattr(connect, "find_spec", lambda name: None)
    assert 'isn\'t installed: pip install "medjax[ray]"' in error_of(main, *QUICK)


def test_nobody_answers(tmp_path, error_of):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    message = error_of(main, *QUICK, f"127.0.0.1:{port}", "--out", str(tmp_path / "sweep"))
    assert f"--ray 127.0.0.1:{port}: no Ray cluster answers there: Connection refused" in message
    assert list(tmp_path.iterdir()) == []


def test_the_address_in_the_environment_is_checked_too(monkeypatch, error_of):
    monkeypatch.setenv("RAY_ADDRESS", "nowhere.invalid:6379")
    assert "--ray nowhere.invalid:6379: no Ray cluster answers there" in error_of(main, *QUICK)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
def test_something_else_answers(answer, tmp_path, error_of):
    with listening(answer) as address:
        message = error_of(main, *QUICK, address, "--out", str(tmp_path / "sweep"))
    assert f"--ray {address}: what answers there is no Ray cluster" in message
    assert list(tmp_path.iterdir()) == []

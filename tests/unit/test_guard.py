"""Network guard: no test and no Python child process of a test connects to another machine."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from local.template import REPOSITORY

OUTSIDE = "192.0.2.1"  # addresses and names reserved for documentation: RFC 5737, RFC 2606


def send(data: bytes, address: tuple[str, int]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.sendto(data, address)


ATTEMPTS: dict[str, Callable[[], object]] = {
    "connect": lambda: socket.create_connection((OUTSIDE, 80), timeout=0.1),
    "connect by IPv6": lambda: socket.create_connection(("2001:db8::1", 80), timeout=0.1),
    "resolve": lambda: socket.getaddrinfo("example.com", 443),
    "resolve with gethostbyname": lambda: socket.gethostbyname("example.com"),
    "resolve bytes": lambda: socket.getaddrinfo(b"example.com", 443),
    "send a datagram": lambda: send(b"", (OUTSIDE, 53)),
}


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_outgoing_network_access_is_an_error(attempt: str) -> None:
    with pytest.raises(RuntimeError, match="a test tried to"):
        ATTEMPTS[attempt]()


def test_loopback_is_allowed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        assert socket.getaddrinfo("localhost", 80)


def run_child(code: str, environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", code], env=environment, cwd=REPOSITORY, capture_output=True, text=True)


@pytest.mark.parametrize(
    "code",
    [
        f"import socket; socket.create_connection(('{OUTSIDE}', 80), timeout=0.1)",
        "import socket; socket.getaddrinfo('example.com', 443)",
        "import urllib.request; urllib.request.urlopen('http://example.com')",
    ],
    ids=["connect", "resolve", "fetch"],
)
def test_guard_applies_to_child_processes(code: str) -> None:
    completed = run_child(code, dict(os.environ))
    assert completed.returncode != 0
    assert "LeftTheMachine" in completed.stderr


def test_guard_is_installed_beside_a_system_sitecustomize(
    tmp_path: Path,
) -> None:
    (tmp_path / "sitecustomize.py").write_text("")  # as on Debian and Ubuntu
    code = "import runpy, socket; runpy.run_path('tests/conftest.py'); socket.getaddrinfo('example.com', 443)"
    completed = run_child(code, {**os.environ, "PYTHONPATH": f"{tmp_path}:{REPOSITORY}"})
    assert "LeftTheMachine" in completed.stderr


def test_developer_credentials_are_removed_from_the_environment() -> None:
    assert [name for name in os.environ if name.startswith(("AWS_", "OPENAI_", "OLLAMA_"))] == []

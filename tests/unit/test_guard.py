"""No test, and no Python process a test starts, reaches beyond this machine."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from local.template import REPOSITORY

OUTSIDE = "192.0.2.1"  # documentation addresses and names: nobody's. RFC 5737, RFC 2606


def send(data: bytes, address: tuple[str, int]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.sendto(data, address)


ATTEMPTS: dict[str, Callable[[], object]] = {
    "connect": lambda: socket.create_connection((OUTSIDE, 80), timeout=0.1),
    "connect by IPv6": lambda: socket.create_connection(("2001:db8::1", 80), timeout=0.1),
    "resolve": lambda: socket.getaddrinfo("example.com", 443),
    "resolve the old way": lambda: socket.gethostbyname("example.com"),
    "resolve bytes": lambda: socket.getaddrinfo(b"example.com", 443),
    "send a datagram": lambda: send(b"", (OUTSIDE, 53)),
}


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_a_way_out_is_an_error(attempt: str) -> None:
    with pytest.raises(RuntimeError, match="a test tried to"):
        ATTEMPTS[attempt]()


def test_loopback_is_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        assert socket.getaddrinfo("localhost", 80)


def child(code: str, environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
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
def test_a_child_process_is_held_back_as_well(code: str) -> None:
    ended = child(code, dict(os.environ))
    assert ended.returncode != 0
    assert "LeftTheMachine" in ended.stderr


def test_the_guard_is_installed_though_the_system_s_python_brings_a_sitecustomize_of_its_own(
    tmp_path: Path,
) -> None:
    (tmp_path / "sitecustomize.py").write_text("")  # as Debian's and Ubuntu's do
    code = "import runpy, socket; runpy.run_path('tests/conftest.py'); socket.getaddrinfo('example.com', 443)"
    ended = child(code, {**os.environ, "PYTHONPATH": f"{tmp_path}:{REPOSITORY}"})
    assert "LeftTheMachine" in ended.stderr


def test_tests_do_not_see_the_developer_s_accounts() -> None:
    assert [name for name in os.environ if name.startswith(("AWS_", "OPENAI_", "OLLAMA_"))] == []

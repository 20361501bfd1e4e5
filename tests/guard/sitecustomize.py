"""Makes a call to anything but this machine an error, in tests and in every Python process they start.

Python imports a `sitecustomize` by itself at start; tests put this folder on PYTHONPATH for their children.
"""

import sys
from typing import Any

LOCAL_NAMES = {"", "localhost", "127.0.0.1", "::1", "0.0.0.0", "::", None, b"localhost", b"127.0.0.1"}


class LeftTheMachine(RuntimeError):
    """A test tried to reach beyond loopback."""


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = arguments[1]
        if isinstance(address, tuple) and not _is_local(address[0]):
            raise LeftTheMachine(f"a test tried to connect to {address[0]}")
    elif event in ("socket.getaddrinfo", "socket.gethostbyname") and not _is_local(arguments[0]):
        raise LeftTheMachine(f"a test tried to resolve {arguments[0]}")


def _is_local(host: Any) -> bool:
    return host in LOCAL_NAMES or str(host).startswith("127.")


sys.addaudithook(_refuse)

"""An HTTP server on 127.0.0.1 that knows which process is at the other end of each connection (Linux)."""

import os
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Answer:
    """What goes back over HTTP."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


class Handler(BaseHTTPRequestHandler):
    """One connection, and the process at its other end."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    pid: int | None

    def setup(self) -> None:
        super().setup()
        self.pid = pid_at(self.client_address[1], self.connection.getsockname()[1])

    def handle(self) -> None:
        with suppress(ConnectionError):  # the other end was killed
            super().handle()

    def answer(self, body: bytes) -> Answer | None:
        """What goes back; None cuts the connection."""
        raise NotImplementedError

    def do_POST(self) -> None:
        length = int(self.headers.get("content-length", 0))
        body = self.rfile.read(length)
        answer = self.answer(body) if len(body) == length else None  # less where its sender was killed over it
        if answer is None:
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name, value in {"content-type": "application/json", **answer.headers}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, format: str, *args: object) -> None:
        pass


class Loopback:
    """Serves on a free port of 127.0.0.1 while its block lasts."""

    def __init__(self, handler: type[Handler]) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def serving(self) -> Generator[None]:
        thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()


def pid_at(port: int, server_port: int) -> int | None:
    """The process that connected to us from `port` of 127.0.0.1, by the kernel's own tables (Linux).

    None where it has ended. A table that changes while it is read may lack a line, so a second look is taken.
    """
    for _ in range(2):
        with open("/proc/net/tcp", encoding="ascii") as connections:
            for line in connections:
                _, local, remote, *more = line.split()
                if local.endswith(f":{port:04X}") and remote.endswith(f":{server_port:04X}"):
                    return _owner(f"socket:[{more[6]}]")
    return None


def _owner(socket: str) -> int | None:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):  # it has ended, or is not ours to look at
            for descriptor in os.listdir(f"/proc/{pid}/fd"):
                with suppress(OSError):
                    if os.readlink(f"/proc/{pid}/fd/{descriptor}") == socket:
                        return int(pid)
    return None

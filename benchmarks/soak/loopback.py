"""An HTTP server on 127.0.0.1 that identifies the client process of each connection (Linux)."""

import os
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Response:
    """An HTTP response."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


class Handler(BaseHTTPRequestHandler):
    """One connection; `pid` is its client process."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    pid: int | None

    def setup(self) -> None:
        super().setup()
        self.pid = pid_at(self.client_address[1], self.connection.getsockname()[1])

    def handle(self) -> None:
        with suppress(ConnectionError):  # the client was killed
            super().handle()

    def respond(self, body: bytes) -> Response | None:
        """The response to a request; None cuts the connection."""
        raise NotImplementedError

    def do_POST(self) -> None:
        length = int(self.headers.get("content-length", 0))
        body = self.rfile.read(length)
        response = self.respond(body) if len(body) == length else None  # incomplete when the client was killed
        if response is None:
            self.close_connection = True
            return
        self.send_response(response.status)
        for name, value in {"content-type": "application/json", **response.headers}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(response.body)))
        self.end_headers()
        self.wfile.write(response.body)

    def log_message(self, format: str, *args: object) -> None:
        pass


class Loopback:
    """An HTTP server on a free port of 127.0.0.1."""

    def __init__(self, handler: type[Handler]) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def serving(self) -> Generator[None]:
        """Serve until the block ends."""
        thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()


def pid_at(port: int, server_port: int) -> int | None:
    """The process that connected from `port` of 127.0.0.1, by the kernel's tables (Linux); None, when it has ended.

    A table that changes during the read may lack a line, so it is read twice.
    """
    for _ in range(2):
        with open("/proc/net/tcp", encoding="ascii") as connections:
            for line in connections:
                _, local, remote, *columns = line.split()
                if local.endswith(f":{port:04X}") and remote.endswith(f":{server_port:04X}"):
                    return _owner(f"socket:[{columns[6]}]")
    return None


def _owner(socket: str) -> int | None:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):  # the process has ended or belongs to another user
            for descriptor in os.listdir(f"/proc/{pid}/fd"):
                with suppress(OSError):
                    if os.readlink(f"/proc/{pid}/fd/{descriptor}") == socket:
                        return int(pid)
    return None

"""A fake provider on loopback: it checks path and key, and sends scripted responses byte for byte."""

import threading
from collections import deque
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from local.scripted import RecordedRequest

POLL_S = 0.01  # interval at which the server checks for shutdown
NOT_FOUND_PAGE = b"<html>no such page</html>"


@dataclass(frozen=True)
class FakeResponse:
    """One scripted response."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": "application/json"})


@dataclass
class FakeProvider:
    """A running fake provider: `responses` are sent in order to requests with a known path and the credential."""

    origin: str
    responses: deque[FakeResponse] = field(default_factory=deque[FakeResponse])
    requests: list[RecordedRequest] = field(default_factory=list[RecordedRequest])


@contextmanager
def run_fake_provider(
    paths: set[str], credential: tuple[str, str], unauthorized: FakeResponse
) -> Generator[FakeProvider]:
    """Serve until the block ends: 404 at other paths, `unauthorized` without the credential header."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self._respond()

        def do_POST(self) -> None:
            self._respond()

        def _respond(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            provider.requests.append(RecordedRequest(self.command, self.path, headers, body, self.client_address[1]))
            if self.path not in paths:
                self._send(FakeResponse(404, NOT_FOUND_PAGE, {"content-type": "text/html"}))
            elif headers.get(credential[0]) != credential[1]:
                self._send(unauthorized)
            else:
                self._send(provider.responses.popleft())

        def _send(self, response: FakeResponse) -> None:
            self.send_response(response.status)
            for name, value in {**response.headers, "content-length": str(len(response.body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(response.body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    provider = FakeProvider(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(POLL_S,), daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

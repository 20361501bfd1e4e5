"""A server that stands where a provider's stands: at its path, behind its key, and with its answers, byte for byte."""

import threading
from collections import deque
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from local.scripted import RecordedRequest

POLL_S = 0.01  # until it sees that it should stop
NOWHERE = b"<html>no such page</html>"


@dataclass(frozen=True)
class Said:
    """One answer."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": "application/json"})


@dataclass
class StandIn:
    """Answers what was queued, in order, to whoever knows the path and shows the credential; refuses everybody else."""

    origin: str
    answers: deque[Said] = field(default_factory=deque[Said])
    requests: list[RecordedRequest] = field(default_factory=list[RecordedRequest])


@contextmanager
def stand_in(paths: set[str], credential: tuple[str, str], refused: Said) -> Generator[StandIn]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            standing.requests.append(RecordedRequest(self.command, self.path, headers, body, self.client_address[1]))
            if self.path not in paths:
                self._say(Said(404, NOWHERE, {"content-type": "text/html"}))
            elif headers.get(credential[0]) != credential[1]:
                self._say(refused)
            else:
                self._say(standing.answers.popleft())

        def _say(self, said: Said) -> None:
            self.send_response(said.status)
            for name, value in {**said.headers, "content-length": str(len(said.body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(said.body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    standing = StandIn(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(POLL_S,), daemon=True)
    thread.start()
    try:
        yield standing
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

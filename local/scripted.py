"""A scripted OpenAI-compatible provider for development and tests: a real HTTP server whose answers say what it is."""

import contextlib
import itertools
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from types import TracebackType
from typing import Self

from local.http_head import StrictHandler
from local.scripted_answers import answer

EVENT_STREAM = {"content-type": "text/event-stream"}
MAX_BODY_BYTES = 64 * 1024 * 1024
MODELS = ("llama3:8b", "gpt-4-turbo", "gpt-4o-mini", "text-embedding-3-small", "gpu-llama")


@dataclass(frozen=True)
class RecordedRequest:
    """One request as it arrived, on the connection from the caller's `port`; header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    port: int


@dataclass(frozen=True)
class ScriptedAnswer:
    """One answer, sent as it stands; `hold` is waited for first, and without a status the connection is cut.

    `pieces` come one by one instead of the body; where iterating them raises Cut, the answer ends in the middle.
    """

    status: int | None
    headers: dict[str, str]
    body: bytes
    hold: threading.Event | None = None
    pieces: Iterable[bytes] | None = None


class ConnectionCut(Exception):
    """The connection is gone."""


@dataclass
class ScriptedProvider:
    """Serves until its block ends, each answer after `takes_s`, each piece of a streamed one after `piece_s`.

    Those queued with `answer_with` and `stream_with` go first, in order.
    """

    port: int = 0
    takes_s: float = 0
    piece_s: float = 0
    requests: list[RecordedRequest] = field(default_factory=list[RecordedRequest])
    _script: deque[ScriptedAnswer] = field(default_factory=deque[ScriptedAnswer])

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def answer_with(
        self,
        status: int | None,
        body: bytes,
        headers: dict[str, str] | None = None,
        hold: threading.Event | None = None,
    ) -> None:
        """Queue one answer, byte for byte."""
        self._script.append(ScriptedAnswer(status, headers or {"content-type": "application/json"}, body, hold))

    def stream_with(self, pieces: Iterable[bytes], headers: dict[str, str] | None = None) -> None:
        """Queue one answer that comes piece by piece."""
        self._script.append(ScriptedAnswer(200, headers or EVENT_STREAM, b"", pieces=pieces))

    def __enter__(self) -> Self:
        provider = self
        count = itertools.count(1)

        class Handler(StrictHandler):
            def do_GET(self) -> None:
                self._answer(lambda _body: (200, models()))

            def do_POST(self) -> None:
                self._answer(lambda body: answer(self.path, body, next(count)))

            def _answer(self, unscripted: Callable[[bytes], tuple[int, bytes | list[bytes]]]) -> None:
                if (body := self.body_within(MAX_BODY_BYTES)) is None:
                    return
                headers = {name.lower(): value for name, value in self.headers.items()}
                provider.requests.append(
                    RecordedRequest(self.command, self.path, headers, body, self.client_address[1])
                )
                time.sleep(provider.takes_s)
                if provider._script:
                    self._play(provider._script.popleft())
                else:
                    status, made = unscripted(body)
                    if isinstance(made, bytes):
                        self._send(status, made)
                    else:
                        self._stream(status, made, EVENT_STREAM)

            def _play(self, scripted: ScriptedAnswer) -> None:
                if scripted.hold:
                    scripted.hold.wait(60)
                if scripted.status is None:
                    self.close_connection = True
                    return
                if scripted.pieces is None:
                    self._send(scripted.status, scripted.body, scripted.headers)
                else:
                    self._stream(scripted.status, scripted.pieces, scripted.headers)

            def _stream(self, status: int, pieces: Iterable[bytes], headers: dict[str, str]) -> None:
                self.send_response(status)
                for name, value in {**headers, "transfer-encoding": "chunked"}.items():
                    self.send_header(name, value)
                self.end_headers()
                try:
                    for piece in pieces:
                        time.sleep(provider.piece_s)
                        self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                    self.wfile.write(b"0\r\n\r\n")
                except ConnectionCut:
                    self.close_connection = True

            def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
                self.send_response(status)
                for name, value in (headers or {"content-type": "application/json"}).items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def handle(self) -> None:
                with contextlib.suppress(ConnectionError):  # the caller has heard enough
                    super().handle()

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def models() -> bytes:
    """The list of its models."""
    listed = [{"id": name, "object": "model", "created": 0, "owned_by": "scripted"} for name in MODELS]
    return json.dumps({"object": "list", "data": listed}).encode()

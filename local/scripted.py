"""A scripted OpenAI-compatible provider for development and tests: a real HTTP server without a model.

Its responses contain a sentence that identifies them as scripted.
"""

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
from local.scripted_answers import DefaultResponse, default_response

EVENT_STREAM = {"content-type": "text/event-stream"}
MAX_BODY_BYTES = 64 * 1024 * 1024
MODELS = (
    *("llama3:8b", "gpt-4-turbo", "gpt-4o-mini", "text-embedding-3-small", "whisper-1", "tts-1"),
    *("speech-to-text", "text-to-speech", "gpt-image-2", "image-to-image", "image-with-mask", "image-to-text"),
    "gpu-llama",
)


@dataclass(frozen=True)
class RecordedRequest:
    """One received request; header names in lower case. `port` is the caller's end of the connection."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    port: int


@dataclass(frozen=True)
class ScriptedResponse:
    """One response, sent byte for byte after `hold` is set. Without a status the connection is closed.

    `chunks` are sent one by one instead of the body. If iterating them raises ConnectionCut, the response is truncated.
    """

    status: int | None
    headers: dict[str, str]
    body: bytes
    hold: threading.Event | None = None
    chunks: Iterable[bytes] | None = None


class ConnectionCut(Exception):
    """Raised by a script's chunks to close the connection in the middle of a response."""


@dataclass
class ScriptedProvider:
    """Serves until its block ends. Responses queued with `respond_with` and `stream_with` are sent first, in order.

    `response_delay_s` is the time before each response, `chunk_delay_s` that before each chunk of a streamed one.
    """

    port: int = 0
    response_delay_s: float = 0
    chunk_delay_s: float = 0
    requests: list[RecordedRequest] = field(default_factory=list[RecordedRequest])
    _script: deque[ScriptedResponse] = field(default_factory=deque[ScriptedResponse])

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def respond_with(
        self,
        status: int | None,
        body: bytes,
        headers: dict[str, str] | None = None,
        hold: threading.Event | None = None,
    ) -> None:
        """Queue one response, byte for byte."""
        self._script.append(ScriptedResponse(status, headers or {"content-type": "application/json"}, body, hold))

    def stream_with(self, chunks: Iterable[bytes], headers: dict[str, str] | None = None) -> None:
        """Queue one response that is sent chunk by chunk."""
        self._script.append(ScriptedResponse(200, headers or EVENT_STREAM, b"", chunks=chunks))

    def __enter__(self) -> Self:
        provider = self
        count = itertools.count(1)

        class Handler(StrictHandler):
            def do_GET(self) -> None:
                self._respond(lambda _body: DefaultResponse(200, models()))

            def do_POST(self) -> None:
                content_type = self.headers.get("content-type", "")
                self._respond(lambda body: default_response(self.path, content_type, body, next(count)))

            def _respond(self, create_default: Callable[[bytes], DefaultResponse]) -> None:
                if (body := self.read_limited_body(MAX_BODY_BYTES)) is None:
                    return
                headers = {name.lower(): value for name, value in self.headers.items()}
                provider.requests.append(
                    RecordedRequest(self.command, self.path, headers, body, self.client_address[1])
                )
                time.sleep(provider.response_delay_s)
                if provider._script:
                    self._play(provider._script.popleft())
                else:
                    response = create_default(body)
                    headers = {"content-type": response.content_type}
                    if isinstance(response.content, bytes):
                        self._send(response.status, response.content, headers)
                    else:
                        self._stream(response.status, response.content, headers)

            def _play(self, scripted: ScriptedResponse) -> None:
                if scripted.hold:
                    scripted.hold.wait(60)
                if scripted.status is None:
                    self.close_connection = True
                    return
                if scripted.chunks is None:
                    self._send(scripted.status, scripted.body, scripted.headers)
                else:
                    self._stream(scripted.status, scripted.chunks, scripted.headers)

            def _stream(self, status: int, chunks: Iterable[bytes], headers: dict[str, str]) -> None:
                self.send_response(status)
                for name, value in {**headers, "transfer-encoding": "chunked"}.items():
                    self.send_header(name, value)
                self.end_headers()
                try:
                    for chunk in chunks:
                        time.sleep(provider.chunk_delay_s)
                        self.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
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
                with contextlib.suppress(ConnectionError):  # the caller closed the connection
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
    """The body of `GET /v1/models`."""
    entries = [{"id": name, "object": "model", "created": 0, "owned_by": "scripted"} for name in MODELS]
    return json.dumps({"object": "list", "data": entries}).encode()

"""A vendor's own server on loopback: it reads requests by its SDK's types, and answers what was asked for.

It calls the tools it is offered, tells what they gave back, fills in a schema, or repeats what was said to it; and
`fail 429`, `break off` or `think` in the last words make it do that.
"""

import json
import re
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiserver.providers.http import ProviderRequest
from local.scripted import RecordedRequest
from tests.providers.fake_provider import Said
from tests.vendors.dialect import Dialect
from tests.vendors.semantics import Answer, Called, Request, Result, ToolOffered, Words

POLL_S = 0.01  # until it sees that it should stop
SAMPLES: dict[str, Any] = {"string": "Rome", "integer": 3, "number": 2.5, "boolean": True, "array": [], "object": {}}


@dataclass
class VendorServer:
    """`key` is the one it knows; `down` are the statuses that it answers next, whatever it is asked."""

    dialect: Dialect
    key: str
    origin: str = ""
    requests: list[RecordedRequest] = field(default_factory=list[RecordedRequest])
    heard: list[Request] = field(default_factory=list[Request])
    down: list[int] = field(default_factory=list[int])

    def said(self, sent: RecordedRequest) -> Said | list[bytes]:
        """A whole answer, or the pieces of a stream."""
        self.requests.append(sent)
        header, credential = self.dialect.credential(self.key)
        if sent.headers.get(header) != credential:
            return self.dialect.error(401, f"No such key: {self.key[:5]}***")
        if self.down:
            return self.dialect.error(self.down.pop(0), "This server is down")
        try:
            request = self.dialect.read(ProviderRequest(sent.method, sent.path, None, sent.body, sent.headers))
        except AssertionError as wrong:
            return self.dialect.error(400, str(wrong))
        self.heard.append(request)
        last = _last_words(request)
        if failing := re.search(r"fail (\d{3})", last):
            return self.dialect.error(int(failing[1]), "As you wish")
        answer = answered(request, last)
        if not request.streams:
            return Said(200, self.dialect.message(answer), {"content-type": "application/json"} | self.dialect.headers)
        events = self.dialect.events(answer)
        if "break off" in last:
            events = [*events[: len(events) // 2], self.dialect.failure("As you wish")]
        return [self.dialect.framed(event) for event in events]


@contextmanager
def serving(dialect: Dialect, key: str) -> Generator[VendorServer]:
    """A server that runs until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            said = served.said(RecordedRequest(self.command, self.path, headers, body, self.client_address[1]))
            if isinstance(said, Said):
                self._head(said.status, {**said.headers, "content-length": str(len(said.body))})
                self.wfile.write(said.body)
                return
            self._head(200, {"content-type": dialect.stream_type, "transfer-encoding": "chunked"} | dialect.headers)
            for piece in said:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")

        def _head(self, status: int, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    served = VendorServer(dialect, key, f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(POLL_S,), daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def answered(request: Request, last: str) -> Answer:
    """What a model would say that does as it is asked."""
    reasoning = "I was told to think." if "think" in last else ""
    results = [said for said in request.turns[-1].said if isinstance(said, Result)]
    if results:
        return Answer("The tools said: " + "; ".join(result.text for result in results), reasoning)
    named = [tool for tool in request.tools if request.choice in (f"[{tool.name}]", "auto", "required", None)]
    if named and request.choice != "none":
        calls = [_called(i, tool) for i, tool in enumerate(named[:1] if request.one_call_at_a_time else named)]
        return Answer("", reasoning, tuple(calls), "tool_calls")
    if request.schema:
        return Answer(json.dumps(sample(request.schema)), reasoning)
    return Answer(f"You said: {last}", reasoning)


def sample(schema: dict[str, Any]) -> Any:
    """A value that fits a simple schema."""
    if "properties" not in schema:
        return SAMPLES[schema.get("type", "string")]
    return {name: sample(inner) for name, inner in schema["properties"].items()}


def _called(number: int, tool: ToolOffered) -> Called:
    return Called(f"call_{number}", tool.name, sample(tool.schema))


def _last_words(request: Request) -> str:
    return " ".join(said.text for said in request.turns[-1].said if isinstance(said, Words))

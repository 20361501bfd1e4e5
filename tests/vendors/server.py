"""A vendor's server on loopback: it validates requests by the SDK's types and simulates a model.

It calls the tools of the request, repeats their results, fills in a schema, or repeats the user's text. `fail 429`,
`break off` or `think` in the last text trigger a status, a failure within the stream or reasoning.
"""

import json
import re
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiserver.providers.request import ProviderRequest
from local.scripted import RecordedRequest
from tests.providers.fake_provider import FakeResponse
from tests.vendors.dialect import Dialect
from tests.vendors.semantics import Request, Response, TextPart, Tool, ToolCall, ToolResult

POLL_S = 0.01  # interval at which the server checks for shutdown
SAMPLES: dict[str, Any] = {"string": "Rome", "integer": 3, "number": 2.5, "boolean": True, "array": [], "object": {}}


@dataclass
class VendorServer:
    """`key` is the accepted key; `error_statuses` are returned first, one per request, whatever it contains."""

    dialect: Dialect
    key: str
    origin: str = ""
    requests: list[RecordedRequest] = field(default_factory=list[RecordedRequest])
    parsed_requests: list[Request] = field(default_factory=list[Request])
    error_statuses: list[int] = field(default_factory=list[int])

    def respond(self, recorded: RecordedRequest) -> FakeResponse | list[bytes]:
        """A complete response, or the frames of a stream."""
        self.requests.append(recorded)
        header, credential = self.dialect.credential(self.key)
        if recorded.headers.get(header) != credential:
            return self.dialect.error_response(401, f"No such key: {self.key[:5]}***")
        if self.error_statuses:
            return self.dialect.error_response(self.error_statuses.pop(0), "This server is down")
        try:
            request = self.dialect.parse_request(
                ProviderRequest(recorded.method, recorded.path, None, recorded.body, recorded.headers)
            )
        except AssertionError as error:
            return self.dialect.error_response(400, str(error))
        self.parsed_requests.append(request)
        last_text = _last_text(request)
        if status_command := re.search(r"fail (\d{3})", last_text):
            return self.dialect.error_response(int(status_command[1]), "As you wish")
        response = simulate_response(request, last_text)
        if not request.streams:
            return FakeResponse(
                200, self.dialect.encode_response(response), {"content-type": "application/json"} | self.dialect.headers
            )
        events = self.dialect.encode_events(response)
        if "break off" in last_text:
            events = [*events[: len(events) // 2], self.dialect.error_event("As you wish")]
        return [self.dialect.encode_frame(event) for event in events]


@contextmanager
def run_vendor_server(dialect: Dialect, key: str) -> Generator[VendorServer]:
    """Run a server until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            response = vendor_server.respond(
                RecordedRequest(self.command, self.path, headers, body, self.client_address[1])
            )
            if isinstance(response, FakeResponse):
                self._head(response.status, {**response.headers, "content-length": str(len(response.body))})
                self.wfile.write(response.body)
                return
            self._head(200, {"content-type": dialect.stream_type, "transfer-encoding": "chunked"} | dialect.headers)
            for event in response:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(event), event))
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
    vendor_server = VendorServer(dialect, key, f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(POLL_S,), daemon=True)
    thread.start()
    try:
        yield vendor_server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def simulate_response(request: Request, last_text: str) -> Response:
    """The response of an obedient model."""
    reasoning = "I was told to think." if "think" in last_text else ""
    results = [part for part in request.turns[-1].parts if isinstance(part, ToolResult)]
    if results:
        return Response("The tools said: " + "; ".join(result.text for result in results), reasoning)
    offered_tools = [tool for tool in request.tools if request.choice in (f"[{tool.name}]", "auto", "required", None)]
    if offered_tools and request.choice != "none":
        calls = [
            _tool_call(i, tool)
            for i, tool in enumerate(offered_tools[:1] if request.one_call_at_a_time else offered_tools)
        ]
        return Response("", reasoning, tuple(calls), "tool_calls")
    if request.schema:
        return Response(json.dumps(sample(request.schema)), reasoning)
    return Response(f"You said: {last_text}", reasoning)


def sample(schema: dict[str, Any]) -> Any:
    """A value that is valid for a simple schema."""
    if "properties" not in schema:
        return SAMPLES[schema.get("type", "string")]
    return {name: sample(inner) for name, inner in schema["properties"].items()}


def _tool_call(number: int, tool: Tool) -> ToolCall:
    return ToolCall(f"call_{number}", tool.name, sample(tool.schema))


def _last_text(request: Request) -> str:
    return " ".join(part.text for part in request.turns[-1].parts if isinstance(part, TextPart))

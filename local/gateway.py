"""The HTTP gateway of the embedded cloud: it behaves as API Gateway's REST API, on 127.0.0.1.

Routes and gateway responses come from the transformed template; handlers run in runtime_api's sandboxes.
"""

import base64
import binascii
import contextlib
import json
import re
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import ThreadingHTTPServer
from typing import Any, BinaryIO, cast
from urllib.parse import parse_qsl

from local.http_body import BodyTooLarge, MalformedBody, content_length, read_body
from local.http_head import StrictHandler
from local.runtime_api import FunctionFailed, Sink
from local.streamed_response import MalformedStream, StreamedResponse
from local.template import GatewayResponse, Route

MAX_BODY_BYTES = 10 * 1024 * 1024  # https://docs.aws.amazon.com/apigateway/latest/developerguide/limits.html
FRAMING_HEADERS = ("content-length", "transfer-encoding", "connection")  # set by the gateway itself
STATUSES_WITHOUT_BODY = (204, 304)
STOP_POLL_S = 0.1  # how often a listener checks whether to stop
Invoke = Callable[[str, bytes, str, Sink | None], bytes]
_PARAMETER = re.compile(r"\{(\w+)(\+?)\}")


@dataclass(frozen=True)
class _Pattern:
    route: Route
    matches: re.Pattern[str]
    rank: tuple[int, ...]


class Routes:
    """Finds the route of a request as API Gateway does: a literal segment before `{id}`, that before `{proxy+}`."""

    def __init__(self, routes: list[Route]) -> None:
        patterns = [_pattern(route) for route in routes]
        self._patterns = sorted(patterns, key=lambda pattern: pattern.rank)

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]] | None:
        """Route and path parameters. The path is matched first, then its method: None if the path lacks the method."""
        best_path: str | None = None
        for pattern in self._patterns:
            match = pattern.matches.fullmatch(path)
            if match and best_path in (None, pattern.route.path):
                best_path = pattern.route.path
                if pattern.route.method == method:
                    return pattern.route, match.groupdict()
        return None


def _pattern(route: Route) -> _Pattern:
    expression = ""
    rank: list[int] = []
    for segment in route.path.strip("/").split("/"):
        parameter = _PARAMETER.fullmatch(segment)
        if parameter is None:
            expression += "/" + re.escape(segment)
            rank.append(0)
        else:
            expression += f"/(?P<{parameter[1]}>{'.+' if parameter[2] else '[^/]+'})"
            rank.append(2 if parameter[2] else 1)
    return _Pattern(route, re.compile(expression + "/?"), (*rank, 3))


class Gateway:
    """Binds its port in the constructor, so that a port in use is detected first; serves after `open`."""

    def __init__(self, port: int) -> None:
        self._server = _Server(("127.0.0.1", port), _Handler)
        self.port: int = self._server.server_port

    def open(self, routes: list[Route], gateway_responses: Mapping[str, GatewayResponse], invoke: Invoke) -> None:
        """Serve. `invoke` runs a function by its logical id and writes to the sink if its route streams.

        `invoke` may raise FunctionFailed and the errors of the sink.
        """
        self._server.dispatcher = _Dispatcher(Routes(routes), gateway_responses, invoke)
        threading.Thread(target=self._server.serve_forever, args=(STOP_POLL_S,), daemon=True).start()

    def close(self) -> None:
        if self._server.dispatcher is not None:
            self._server.shutdown()
        self._server.server_close()


@dataclass(frozen=True)
class HttpRequest:
    """One request as it arrived."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    source_ip: str

    def header(self, name: str) -> str:
        """The first header with that lower-case name, or an empty string."""
        return next((value for header_name, value in self.headers if header_name.lower() == name), "")


@dataclass(frozen=True)
class HttpResponse:
    """One response to the caller."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class _Dispatcher:
    def __init__(self, routes: Routes, gateway_responses: Mapping[str, GatewayResponse], invoke: Invoke) -> None:
        self._routes = routes
        self._gateway_responses = gateway_responses
        self._invoke = invoke

    def dispatch(
        self, request: HttpRequest, create_streamed: Callable[[float], StreamedResponse]
    ) -> HttpResponse | None:
        """The response; None when it was streamed to the sink that `create_streamed` made for a timeout in seconds.

        Raises: ConnectionAbortedError, when a stream fails after its head was sent.
        """
        request_id = str(uuid.uuid4())
        path = request.target.partition("?")[0]
        match = self._routes.find(request.method, path)
        if match is None:
            return self.error("MISSING_AUTHENTICATION_TOKEN", 403, "Missing Authentication Token", request, request_id)
        route, params = match
        event = json.dumps(_event(request, route, params, request_id), ensure_ascii=False)  # docs/api.md, Limits
        deadline = time.monotonic() + route.timeout_s
        streamed = create_streamed(route.timeout_s) if route.is_streamed else None
        try:
            response = self._invoke(route.function, event.encode(), request_id, streamed)
            if streamed is None:
                accepts_binary = _is_binary(request.header("accept"), route)
                return _http_response(json.loads(response), accepts_binary=accepts_binary)
            streamed.end()
            return None
        except (FunctionFailed, MalformedStream) as failure:
            if streamed and streamed.has_begun:
                raise ConnectionAbortedError from failure  # the status has been sent: the body can only be truncated
            kind = failure.type if isinstance(failure, FunctionFailed) else "a malformed stream"
            if kind == "RequestTooLargeException":  # a 413; on AWS perhaps without the template's body: docs/api.md
                return self.error("REQUEST_TOO_LARGE", 413, "Request Too Long", request, request_id)
            if (streamed and streamed.is_late) or time.monotonic() >= deadline:  # API Gateway times out first
                return self.error("INTEGRATION_TIMEOUT", 504, "Endpoint request timed out", request, request_id)
        except binascii.Error:  # https://github.com/localstack/localstack/pull/12199 observed this status
            return self.error("DEFAULT_5XX", 500, "Internal server error", request, request_id)
        except (ValueError, TypeError, KeyError, AttributeError):
            pass  # a malformed proxy response
        return self.error("DEFAULT_5XX", 502, "Internal server error", request, request_id)

    def error(self, kind: str, status: int, message: str, request: HttpRequest, request_id: str) -> HttpResponse:
        """An error response of API Gateway itself, with status, headers and body from the template."""
        default = "DEFAULT_4XX" if status < 500 else "DEFAULT_5XX"
        responses = self._gateway_responses
        response = responses.get(kind) or responses.get(default) or GatewayResponse(None, {}, {})
        body = response.templates.get("application/json", '{"message":$context.error.messageString}')
        for name, value in {
            "$context.error.messageString": json.dumps(message),
            "$context.error.message": message,
            "$context.requestId": request_id,
        }.items():
            body = body.replace(name, value)
        headers = [("Content-Type", "application/json"), ("x-amzn-RequestId", request_id)]
        request_headers = {name.lower(): value for name, value in request.headers}
        for name, expression in response.headers.items():
            is_literal = expression[0] == "'"
            value = expression.strip("'") if is_literal else request_headers.get(expression.rpartition(".")[2])
            if value is not None:
                headers.append((name, value))
        return HttpResponse(response.status or status, headers, body.encode())


def _event(request: HttpRequest, route: Route, params: Mapping[str, str], request_id: str) -> dict[str, Any]:
    """The proxy event: path and path parameters percent-encoded as received, query parameters decoded.

    Source: https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-lambda-proxy-integrations.html; it does
    not document the encoding. Reports from deployed APIs: https://github.com/aws/aws-sam-cli/issues/3524,
    https://github.com/serverless/serverless/issues/5037, https://github.com/localstack/localstack/pull/7728.
    """
    path, _, query = request.target.partition("?")
    pairs = parse_qsl(query, keep_blank_values=True)
    multi_headers: dict[str, list[str]] = {}
    for name, value in [*request.headers, ("X-Forwarded-For", request.source_ip), ("X-Forwarded-Proto", "http")]:
        multi_headers.setdefault(name, []).append(value)
    multi_query: dict[str, list[str]] = {}
    for name, value in pairs:
        multi_query.setdefault(name, []).append(value)
    request_headers = {name.lower(): value for name, value in request.headers}
    now = time.time()
    body, is_base64 = _event_body(request, route)
    return {
        "resource": route.path,
        "path": path,
        "httpMethod": request.method,
        "headers": {name: values[-1] for name, values in multi_headers.items()},
        "multiValueHeaders": multi_headers,
        "queryStringParameters": {name: values[-1] for name, values in multi_query.items()} or None,
        "multiValueQueryStringParameters": multi_query or None,
        "pathParameters": {name: value.rstrip("/") for name, value in params.items()} or None,
        "stageVariables": None,
        "requestContext": {
            "resourcePath": route.path,
            "httpMethod": request.method,
            "path": path,
            "protocol": "HTTP/1.1",
            "stage": "local",
            "domainName": request_headers.get("host", "127.0.0.1"),
            "requestId": request_id,
            "extendedRequestId": request_id,
            "requestTime": time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(now)),
            "requestTimeEpoch": round(now * 1000),
            "accountId": "000000000000",
            "apiId": "local",
            "identity": {"sourceIp": request.source_ip, "userAgent": request_headers.get("user-agent")},
        },
        "body": body,
        "isBase64Encoded": is_base64,
    }


def _event_body(request: HttpRequest, route: Route) -> tuple[str | None, bool]:
    """The body in the event, and whether it is in base64. Other bodies are text: invalid UTF-8 becomes U+FFFD."""
    if not request.body:
        return None, False
    if _is_binary(request.header("content-type"), route):
        return base64.b64encode(request.body).decode(), True
    return request.body.decode("utf-8", "replace"), False


def _is_binary(header: str, route: Route) -> bool:
    """Whether a Content-Type, or the first media type of an Accept header, is one of the API's binary media types.

    A listed `*/*` matches everything, and `image/*` all images; a wildcard in the header matches no specific type.

    Source: https://docs.aws.amazon.com/apigateway/latest/developerguide/lambda-proxy-binary-media.html. Reports from
    deployed APIs: https://github.com/localstack/localstack/pull/12199,
    https://github.com/ministackorg/ministack/pull/767.
    """
    media_type = header.partition(",")[0].partition(";")[0].strip().lower()
    main_type, slash, _ = media_type.partition("/")
    matches = {"*/*", media_type, f"{main_type}{slash}*"}
    return any(binary_type.lower() in matches for binary_type in route.binary_media_types)


def _http_response(response: Mapping[str, Any], *, accepts_binary: bool = False) -> HttpResponse:
    """A proxy response as HTTP. Without `accepts_binary`, a base64 body is sent as text.

    Raises: binascii.Error, when the body is not base64; ValueError, TypeError, KeyError or AttributeError, when the
    response is malformed.
    """
    single_headers: dict[str, Any] = response.get("headers") or {}
    multi_headers: dict[str, list[Any]] = response.get("multiValueHeaders") or {}
    headers = [(name, str(value)) for name, value in single_headers.items()]
    for name, values in multi_headers.items():
        headers = [pair for pair in headers if pair[0].lower() != name.lower()]
        headers += [(name, str(value)) for value in values]
    body = response.get("body") or ""
    content = body.encode()
    if accepts_binary and response.get("isBase64Encoded"):
        content = base64.b64decode(content, validate=True)
    if any(character in text for pair in headers for text in pair for character in "\r\n"):
        raise ValueError("a header contains a line break")
    return HttpResponse(int(response["statusCode"]), headers, content)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128
    dispatcher: _Dispatcher | None = None


class _Handler(StrictHandler):
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def _serve(self) -> None:
        dispatcher = self.server.dispatcher
        if dispatcher is None:  # unreachable: no connection is accepted before `open`
            return
        source = cast(BinaryIO, self.rfile)
        try:
            body = read_body(source, self.headers, limit=MAX_BODY_BYTES)
        except BodyTooLarge:
            self._reject("REQUEST_TOO_LARGE", 413, "Request Too Long")
        except MalformedBody as malformed:
            self._reject("DEFAULT_4XX", 400, f"Bad Request: {malformed}")
        else:
            response = dispatcher.dispatch(self._request(body), self._create_streamed)
            if response is not None:
                self._send(response)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_HEAD = _serve

    def handle_expect_100(self) -> bool:
        """Reject a request before its body is sent, if Content-Length exceeds the limit."""
        try:
            if content_length(self.headers) <= MAX_BODY_BYTES:
                return super().handle_expect_100()
        except MalformedBody:
            return super().handle_expect_100()  # rejected when the body is read
        self._reject("REQUEST_TOO_LARGE", 413, "Request Too Long")
        return False

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Errors that http.server detects: invalid syntax, an unknown method."""
        if code == 501:
            self._reject("MISSING_AUTHENTICATION_TOKEN", 403, "Missing Authentication Token")
        else:
            self._reject("DEFAULT_4XX", 400, f"Bad Request: {message}" if message else "Bad Request")

    def _request(self, body: bytes) -> HttpRequest:
        return HttpRequest(self.command, self.path, self.headers.items(), body, self.client_address[0])

    def _reject(self, kind: str, status: int, message: str) -> None:
        """Send an error of API Gateway itself and close the connection, because its next request cannot be located."""
        self.close_connection = self.is_rejected = True
        if (dispatcher := self.server.dispatcher) is not None:
            self._send(dispatcher.error(kind, status, message, self._request(b""), str(uuid.uuid4())))

    def _send(self, response: HttpResponse) -> None:
        has_no_length = response.status in STATUSES_WITHOUT_BODY
        length = [] if has_no_length else [("Content-Length", str(len(response.body)))]
        content = response.body if self._sends_body(response.status) else b""
        self.wfile.write(self._head(response, length) + content)

    def _create_streamed(self, timeout_s: float) -> StreamedResponse:
        return StreamedResponse(self.connection, self._send_head, timeout_s=timeout_s)

    def _send_head(self, head: Mapping[str, Any]) -> Callable[[bytes], None]:
        """Send the head of a streamed response; the returned function sends body chunks, an empty one ends the body.

        The head of a response to HEAD is that of GET; nothing follows it (RFC 9112, section 6.3).
        """
        response = _http_response(head)
        sends_body = self._sends_body(response.status)
        is_chunked = self.request_version != "HTTP/1.0" and response.status not in STATUSES_WITHOUT_BODY
        if not is_chunked:  # HTTP/1.0 has no chunks: closing the connection ends the body
            self.close_connection = True
        self.wfile.write(self._head(response, [("Transfer-Encoding", "chunked")] if is_chunked else []))

        def send(chunk: bytes) -> None:
            if sends_body:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if is_chunked else chunk)

        return send

    def _sends_body(self, status: int) -> bool:
        return self.command != "HEAD" and status not in STATUSES_WITHOUT_BODY

    def _head(self, response: HttpResponse, framing: list[tuple[str, str]]) -> bytes:
        lines = [f"HTTP/1.1 {response.status} {self.responses.get(response.status, ('',))[0]}"]
        headers = [(name, value) for name, value in response.headers if name.lower() not in FRAMING_HEADERS]
        lines += [f"{name}: {value}" for name, value in [*headers, *framing]]
        if self.close_connection:
            lines.append("Connection: close")
        return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError):  # the caller disconnected
            super().handle()

"""The HTTP front of the embedded cloud: what API Gateway's REST API does with a call, on 127.0.0.1.

Routes and gateway responses are read from the transformed template; handlers run in runtime_api's sandboxes.
"""

import base64
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

from local.http_body import BodyBroken, BodyTooLarge, declared_length, read_body
from local.http_head import StrictHandler
from local.runtime_api import FunctionFailed, Sink
from local.streamed_response import MalformedStream, Reply
from local.template import GatewayResponse, Route

MAX_BODY_BYTES = 10 * 1024 * 1024  # https://docs.aws.amazon.com/apigateway/latest/developerguide/limits.html
FRAMING = ("content-length", "transfer-encoding", "connection")  # which are the door's own
STOP_POLL_S = 0.1  # how soon a listener sees that it is to stop
Invoke = Callable[[str, bytes, str, Sink | None], bytes]
_PARAMETER = re.compile(r"\{(\w+)(\+?)\}")


@dataclass(frozen=True)
class _Pattern:
    route: Route
    matches: re.Pattern[str]
    rank: tuple[int, ...]


class Routes:
    """Finds the route of a call as API Gateway does: a literal segment before `{id}`, that before `{proxy+}`."""

    def __init__(self, routes: list[Route]) -> None:
        patterns = [_pattern(route) for route in routes]
        self._patterns = sorted(patterns, key=lambda pattern: pattern.rank)

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]] | None:
        """The path is matched first, then its method: a path that lacks the method is nobody's."""
        best: str | None = None
        for pattern in self._patterns:
            match = pattern.matches.fullmatch(path)
            if match and best in (None, pattern.route.path):
                best = pattern.route.path
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
    """Listens from the start, so that a taken port is known before anything else runs; serves once `open`ed."""

    def __init__(self, port: int) -> None:
        self._server = _Server(("127.0.0.1", port), _Handler)
        self.port: int = self._server.server_port

    def open(self, routes: list[Route], answers: Mapping[str, GatewayResponse], invoke: Invoke) -> None:
        """Serve; `invoke` runs a function by its logical id, into a sink where its route streams.

        Raises (there): FunctionFailed, and what the sink raises.
        """
        self._server.front = _Dispatcher(Routes(routes), answers, invoke)
        threading.Thread(target=self._server.serve_forever, args=(STOP_POLL_S,), daemon=True).start()

    def close(self) -> None:
        if self._server.front is not None:
            self._server.shutdown()
        self._server.server_close()


@dataclass(frozen=True)
class HttpRequest:
    """One call as it arrived."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    source_ip: str


@dataclass(frozen=True)
class HttpResponse:
    """What goes back."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class _Dispatcher:
    def __init__(self, routes: Routes, answers: Mapping[str, GatewayResponse], invoke: Invoke) -> None:
        self._routes = routes
        self._answers = answers
        self._invoke = invoke

    def answer(self, asked: HttpRequest, begin: Callable[[float], Reply]) -> HttpResponse | None:
        """What goes back, or nothing where it has gone; `begin` makes the way back of what streams."""
        request_id = str(uuid.uuid4())
        path = asked.target.partition("?")[0]
        found = self._routes.find(asked.method, path)
        if found is None:
            return self.own("MISSING_AUTHENTICATION_TOKEN", 403, "Missing Authentication Token", asked, request_id)
        route, params = found
        event = json.dumps(_event(asked, route, params, request_id), ensure_ascii=False)  # docs/api.md, Limits
        until = time.monotonic() + route.timeout_s
        reply = begin(route.timeout_s) if route.streamed else None
        try:
            answer = self._invoke(route.function, event.encode(), request_id, reply)
            if reply is None:
                return _http_response(json.loads(answer))
            reply.end()
            return None
        except (FunctionFailed, MalformedStream) as failed:
            if reply and reply.has_begun:
                raise ConnectionAbortedError from failed  # a body that lacks its end is all that is left to say
            kind = failed.type if isinstance(failed, FunctionFailed) else "a malformed stream"
            if kind == "RequestTooLargeException":  # a 413; whether in the template's words: docs/api.md, Limits
                return self.own("REQUEST_TOO_LARGE", 413, "Request Too Long", asked, request_id)
            if (reply and reply.is_late) or time.monotonic() >= until:  # API Gateway gives up first
                return self.own("INTEGRATION_TIMEOUT", 504, "Endpoint request timed out", asked, request_id)
        except (ValueError, TypeError, KeyError, AttributeError):
            pass  # a malformed proxy response
        return self.own("DEFAULT_5XX", 502, "Internal server error", asked, request_id)

    def own(self, kind: str, status: int, message: str, asked: HttpRequest, request_id: str) -> HttpResponse:
        """An answer API Gateway gives itself, as the template words it."""
        default = "DEFAULT_4XX" if status < 500 else "DEFAULT_5XX"
        answer = self._answers.get(kind) or self._answers.get(default) or GatewayResponse(None, {}, {})
        body = answer.templates.get("application/json", '{"message":$context.error.messageString}')
        for name, value in {
            "$context.error.messageString": json.dumps(message),
            "$context.error.message": message,
            "$context.requestId": request_id,
        }.items():
            body = body.replace(name, value)
        headers = [("Content-Type", "application/json"), ("x-amzn-RequestId", request_id)]
        sent = {name.lower(): value for name, value in asked.headers}
        for name, expression in answer.headers.items():
            value = sent.get(expression.rpartition(".")[2]) if expression[0] != "'" else expression.strip("'")
            if value is not None:
                headers.append((name, value))
        return HttpResponse(answer.status or status, headers, body.encode())


def _event(asked: HttpRequest, route: Route, params: Mapping[str, str], request_id: str) -> dict[str, Any]:
    """The proxy event: path and path parameters percent-encoded as sent, query parameters decoded.

    Source: https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-lambda-proxy-integrations.html; it is
    silent on encoding, reports from deployed APIs are not: https://github.com/aws/aws-sam-cli/issues/3524,
    https://github.com/serverless/serverless/issues/5037, https://github.com/localstack/localstack/pull/7728.
    """
    path, _, query = asked.target.partition("?")
    pairs = parse_qsl(query, keep_blank_values=True)
    many_headers: dict[str, list[str]] = {}
    for name, value in [*asked.headers, ("X-Forwarded-For", asked.source_ip), ("X-Forwarded-Proto", "http")]:
        many_headers.setdefault(name, []).append(value)
    many_query: dict[str, list[str]] = {}
    for name, value in pairs:
        many_query.setdefault(name, []).append(value)
    sent = {name.lower(): value for name, value in asked.headers}
    now = time.time()
    return {
        "resource": route.path,
        "path": path,
        "httpMethod": asked.method,
        "headers": {name: values[-1] for name, values in many_headers.items()},
        "multiValueHeaders": many_headers,
        "queryStringParameters": {name: values[-1] for name, values in many_query.items()} or None,
        "multiValueQueryStringParameters": many_query or None,
        "pathParameters": {name: value.rstrip("/") for name, value in params.items()} or None,
        "stageVariables": None,
        "requestContext": {
            "resourcePath": route.path,
            "httpMethod": asked.method,
            "path": path,
            "protocol": "HTTP/1.1",
            "stage": "local",
            "domainName": sent.get("host", "127.0.0.1"),
            "requestId": request_id,
            "extendedRequestId": request_id,
            "requestTime": time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(now)),
            "requestTimeEpoch": round(now * 1000),
            "accountId": "000000000000",
            "apiId": "local",
            "identity": {"sourceIp": asked.source_ip, "userAgent": sent.get("user-agent")},
        },
        "body": asked.body.decode("utf-8", "replace") if asked.body else None,
        "isBase64Encoded": False,
    }


def _http_response(response: Mapping[str, Any]) -> HttpResponse:
    single: dict[str, Any] = response.get("headers") or {}
    many: dict[str, list[Any]] = response.get("multiValueHeaders") or {}
    headers = [(name, str(value)) for name, value in single.items()]
    for name, values in many.items():
        headers = [pair for pair in headers if pair[0].lower() != name.lower()]
        headers += [(name, str(value)) for value in values]
    body = response.get("body") or ""
    content = base64.b64decode(body) if response.get("isBase64Encoded") else body.encode()
    if any(sign in text for pair in headers for text in pair for sign in "\r\n"):
        raise ValueError("a header holds a line break")
    return HttpResponse(int(response["statusCode"]), headers, content)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128
    front: _Dispatcher | None = None


class _Handler(StrictHandler):
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def _serve(self) -> None:
        front = self.server.front
        if front is None:  # unreachable: nothing is accepted before `open`
            return
        source = cast(BinaryIO, self.rfile)
        try:
            body = read_body(source, self.headers, limit=MAX_BODY_BYTES)
        except BodyTooLarge:
            self._refuse("REQUEST_TOO_LARGE", 413, "Request Too Long")
        except BodyBroken as broken:
            self._refuse("DEFAULT_4XX", 400, f"Bad Request: {broken}")
        else:
            answer = front.answer(self._asked(body), self._reply)
            if answer is not None:
                self._send(answer)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_HEAD = _serve

    def handle_expect_100(self) -> bool:
        """Refuse before the body is sent, where its length already tells."""
        try:
            if declared_length(self.headers) <= MAX_BODY_BYTES:
                return super().handle_expect_100()
        except BodyBroken:
            return super().handle_expect_100()  # refused when it is read
        self._refuse("REQUEST_TOO_LARGE", 413, "Request Too Long")
        return False

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What http.server itself refuses: bad syntax, a method nobody knows."""
        if code == 501:
            self._refuse("MISSING_AUTHENTICATION_TOKEN", 403, "Missing Authentication Token")
        else:
            self._refuse("DEFAULT_4XX", 400, f"Bad Request: {message}" if message else "Bad Request")

    def _asked(self, body: bytes) -> HttpRequest:
        return HttpRequest(self.command, self.path, self.headers.items(), body, self.client_address[0])

    def _refuse(self, kind: str, status: int, message: str) -> None:
        """One of API Gateway's own answers, and the end of a connection whose next request cannot be found."""
        self.close_connection = self.is_refused = True
        if self.server.front is not None:
            self._send(self.server.front.own(kind, status, message, self._asked(b""), str(uuid.uuid4())))

    def _send(self, answer: HttpResponse) -> None:
        bodiless = answer.status in (204, 304)
        length = [] if bodiless else [("Content-Length", str(len(answer.body)))]
        content = b"" if bodiless or self.command == "HEAD" else answer.body
        self.wfile.write(self._head(answer, length) + content)

    def _reply(self, timeout_s: float) -> Reply:
        return Reply(self.connection, self._begin, timeout_s=timeout_s)

    def _begin(self, head: Mapping[str, Any]) -> Callable[[bytes], None]:
        """Send the head of what streams; what is given back sends the rest, and its end as an empty piece."""
        answer = _http_response(head)
        is_chunked = self.request_version != "HTTP/1.0" and answer.status not in (204, 304)
        if not is_chunked:  # HTTP/1.0 knows no chunks: the end of the connection is the body's
            self.close_connection = True
        self.wfile.write(self._head(answer, [("Transfer-Encoding", "chunked")] if is_chunked else []))

        def send(piece: bytes) -> None:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if is_chunked else piece)

        return send

    def _head(self, answer: HttpResponse, more: list[tuple[str, str]]) -> bytes:
        lines = [f"HTTP/1.1 {answer.status} {self.responses.get(answer.status, ('',))[0]}"]
        sent = [(name, value) for name, value in answer.headers if name.lower() not in FRAMING]
        lines += [f"{name}: {value}" for name, value in [*sent, *more]]
        if self.close_connection:
            lines.append("Connection: close")
        return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError):  # the caller went away
            super().handle()

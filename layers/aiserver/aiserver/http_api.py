"""HTTP boundary: converts API Gateway events into requests, and responses and errors into API Gateway responses.

Errors become responses here only, so that a handler parses, calls one use case and responds.
"""

import base64
import json
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, cast
from urllib.parse import unquote

from aws_lambda_powertools import Logger

from aiserver import cors, log_events
from aiserver.clock import Clock, Deadline
from aiserver.errors import AiServerError, NotFound, ProviderError
from aiserver.limits import MAX_BUFFERED_BYTES
from aiserver.request_body import read_body
from aiserver.wire import errors as wire_errors
from aiserver.wire import media_types
from aiserver.wire.media_types import is_event_stream
from aiserver.wire.render import JSON_TYPE

STREAM_MARGIN_MS = 5_000  # the same for streaming routes: time to record an interrupted response
RESPONSE_MARGIN_MS = 1_500  # reserved before the function's timeout, to send a timeout error
NOSNIFF = {"x-content-type-options": "nosniff"}
METHODS = {"GET", "POST", "OPTIONS"}  # allowed in every preflight, besides the methods of its path
HEADER_SPELLINGS = {
    "etag": "ETag",
    "ratelimit": "RateLimit",
    "www": "WWW",
}  # parts of header names that are not capitalized

# Lower layers use the standard library's logging, with children of this name, independent of the stack's name.
logger = Logger(service="aiserver")


@dataclass(frozen=True)
class Request:
    """The HTTP request of an invocation.

    Header names are lower-case; `params` are the path parameters, decoded; `path` is as it was sent.
    """

    path: str
    headers: Mapping[str, str]
    query: Mapping[str, str]
    params: Mapping[str, str]
    body: bytes
    base_url: str
    deadline: Deadline


@dataclass(frozen=True)
class Response:
    """A complete or streamed response; JSON unless `headers` contain another content type.

    A generator yields None when there is nothing to send, and may raise an AiServerError. It must be closed, even if it
    was never read.
    """

    body: bytes | Generator[bytes | None]
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


Routes = Mapping[tuple[str, str], Callable[[Request], Response]]


@dataclass(frozen=True)
class HttpContext:
    """What all HTTP functions share; `public_base_url` is empty where the API's own URL is the public one.

    `streams`: whether the function's routes stream; its runtime client is lambda_runtime.py then.
    """

    clock: Clock
    origins: list[str]
    public_base_url: str = ""
    streams: bool = False


def respond(event: Mapping[str, Any], context: Any, routes: Routes, http: HttpContext) -> dict[str, Any]:
    """Serve one request of a REST API proxy integration by the route that API Gateway matched."""
    response = _dispatch(event, context, routes, http, lambda response: _buffer(response, _request_id(event)))
    # API Gateway decodes a body in base64 if the request accepts a binary media type.
    body, is_text = cast(bytes, response.body), media_types.is_text(response.headers.get("content-type", JSON_TYPE))
    # A provider's stream may contain invalid UTF-8.
    text = body.decode(errors="replace") if is_text else base64.b64encode(body).decode()
    return {**_head(response), "body": text, "isBase64Encoded": not is_text}


def respond_streaming(
    event: Mapping[str, Any], context: Any, routes: Routes, http: HttpContext
) -> dict[str, Any] | Generator[dict[str, Any] | bytes | None]:
    """Like `respond`; where the function's routes stream, yields the head, then the body in chunks.

    An error after the head ends a stream of events with an error event, and aborts the connection of any other stream.
    """
    return _stream_response(event, context, routes, http) if http.streams else respond(event, context, routes, http)


def _stream_response(
    event: Mapping[str, Any], context: Any, routes: Routes, http: HttpContext
) -> Generator[dict[str, Any] | bytes | None]:
    response = _dispatch(event, context, routes, http, lambda response: response)
    body = response.body
    if isinstance(body, bytes):
        yield _head(response)
        yield body
        return
    with closing(body):
        yield _head(response)
        yield from _relay(response, body, _request_id(event))


def _head(response: Response) -> dict[str, Any]:
    """The head of every response, in one place, so that all header names are spelled alike."""
    headers = {canonical_name(name): value for name, value in {**response.headers, **NOSNIFF}.items()}
    return {"statusCode": response.status, "headers": headers}


def canonical_name(name: str) -> str:
    """`Content-Type`, `X-Request-Id`: some clients look up HTTP/1.1 headers by this spelling only."""
    return "-".join(HEADER_SPELLINGS.get(part, part.capitalize()) for part in name.lower().split("-"))


def _dispatch(
    event: Mapping[str, Any], context: Any, routes: Routes, http: HttpContext, convert: Callable[[Response], Response]
) -> Response:
    """The response of the route, after `convert`; an error as an error response."""
    request_headers = {name.lower(): value for name, value in _string_map(event, "headers").items()}
    request_id = _request_id(event)
    logger.append_keys(request_id=request_id)  # to every event of this request
    if event["httpMethod"] == "OPTIONS":
        return _preflight(event["resource"], routes, request_headers, http)
    try:
        route = routes.get((event["httpMethod"], event["resource"]))
        if route is None:
            raise NotFound(f"No such route: {event['httpMethod']} {event['path']}")
        response = convert(route(_request(event, request_headers, context, http)))
    except Exception as exception:
        error = _to_error(exception, request_id)
        response = Response(wire_errors.render_error(error), error.status, wire_errors.error_headers(error))
    defaults = {"content-type": JSON_TYPE, "x-request-id": request_id}
    headers = defaults | dict(response.headers) | {"x-aiserver-request-id": request_id}
    cors_headers = cors.response_headers(request_headers.get("origin"), http.origins, headers)
    return replace(response, headers=headers | cors_headers)


def _to_error(exception: Exception, request_id: str) -> AiServerError:
    """Log the exception and return the error to send to the caller."""
    if isinstance(exception, AiServerError):
        context = {"status": exception.status, "error": exception.error_code, "request_id": request_id}
        logger.info(log_events.REQUEST_REJECTED, extra=context)
        return exception
    logger.exception(log_events.REQUEST_FAILED, extra={"request_id": request_id})
    return AiServerError(f"Internal error; quote request ID {request_id} when you report it")


def _relay(response: Response, body: Generator[bytes | None], request_id: str) -> Generator[bytes | None]:
    """The chunks of `body`; if it raises, a stream of events ends with an error event, and any other one raises."""
    try:
        yield from body
    except Exception as exception:
        error = _to_error(exception, request_id)
        if not is_event_stream(response.headers.get("content-type", "")):
            raise error from None
        yield wire_errors.render_error_event(error)


def no_such_route(request: Request) -> Response:
    """Route handler of the catch-all routes. Raises: NotFound."""
    raise NotFound("No such route")


def remaining_ms(context: Any) -> int:
    """The time until the function's timeout."""
    return int(context.get_remaining_time_in_millis())


def _request(event: Mapping[str, Any], headers: Mapping[str, str], context: Any, http: HttpContext) -> Request:
    margin_ms = STREAM_MARGIN_MS if http.streams else RESPONSE_MARGIN_MS
    return Request(
        path=event["path"],
        headers=headers,
        query=_string_map(event, "queryStringParameters"),
        params={k: unquote(v) for k, v in _string_map(event, "pathParameters").items()},
        body=read_body(event, headers),
        base_url=http.public_base_url or _request_base_url(event),
        deadline=Deadline(http.clock.now_ms() + remaining_ms(context) - margin_ms),
    )


def _request_id(event: Mapping[str, Any]) -> str:
    return event["requestContext"].get("requestId", "")


def _string_map(event: Mapping[str, Any], name: str) -> Mapping[str, str]:
    """A map of the event; API Gateway sends null for an empty one."""
    return event.get(name) or {}


def _request_base_url(event: Mapping[str, Any]) -> str:
    """`https://{domainName}` and the prefix of the matched path: the stage, or a custom domain's base path."""
    route_path = event["resource"]
    for name, value in _string_map(event, "pathParameters").items():
        route_path = route_path.replace(f"{{{name}+}}", value).replace(f"{{{name}}}", value)
    context = event["requestContext"]
    segments = context["path"].rstrip("/").split("/")
    prefix = segments[: len(segments) - route_path.strip("/").count("/") - 1]
    return f"https://{context['domainName']}{'/'.join(prefix)}"


def _buffer(response: Response, request_id: str) -> Response:
    """The response with its complete body. Raises: ProviderError, when that exceeds Lambda's response limit."""
    body = (
        response.body
        if isinstance(response.body, bytes)
        else b"".join(filter(None, _relay(response, response.body, request_id)))
    )
    # Measured only in case of doubt: as text the body takes four times as much memory, or more. Escaping never shrinks
    # a JSON text and at most doubles it; Lambda's own client does not escape letters.
    size = len(body)
    if size > MAX_BUFFERED_BYTES or (
        size * 2 > MAX_BUFFERED_BYTES and _event_size(response, body) > MAX_BUFFERED_BYTES
    ):
        message = (
            "The response is too large to send at once: request less output, or queue the request and fetch its result"
        )
        raise ProviderError(message, may_be_billed=True)
    return replace(response, body=body)


def _event_size(response: Response, body: bytes) -> int:
    """The size of a body in Lambda's response: base64, or a JSON string."""
    if not media_types.is_text(response.headers.get("content-type", JSON_TYPE)):
        return len(body) * 4 // 3
    return len(json.dumps(body.decode(errors="replace"), ensure_ascii=False).encode())


def _preflight(resource: str, routes: Routes, headers: Mapping[str, str], http: HttpContext) -> Response:
    methods = sorted({method for method, path in routes if path == resource} | METHODS)
    return Response(b"", 204, cors.preflight_headers(headers, http.origins, methods))

"""HTTP in and out: API Gateway's events as requests, our answers and errors as its responses.

One place turns an error into an answer, so that handlers are parse, one use case, answer.
"""

import json
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, cast
from urllib.parse import unquote

from aws_lambda_powertools import Logger

from aiserver import cors
from aiserver.clock import Clock
from aiserver.errors import AiServerError, NotFound, ProviderError
from aiserver.limits import MAX_BUFFERED_BYTES
from aiserver.request_body import read_body
from aiserver.wire import errors as wire_errors
from aiserver.wire.render import JSON_TYPE

STREAM_MARGIN_MS = 5_000  # the same where routes stream: an answer that breaks off is recorded then
RESPONSE_MARGIN_MS = 1_500  # kept free at the end of a function's time, to say that time is over
NOSNIFF = {"x-content-type-options": "nosniff"}
METHODS = {"GET", "POST", "OPTIONS"}  # of a preflight, whatever else its path has
HEADER_SPELLINGS = {
    "etag": "ETag",
    "ratelimit": "RateLimit",
    "www": "WWW",
}  # of parts of header names, where not capitalized

# Lower floors log by the standard library, to children of this name, whatever the stack is called.
logger = Logger(service="aiserver")


@dataclass(frozen=True)
class Request:
    """What a handler needs of a call. Header names are lower-case; `params` are the path's."""

    headers: Mapping[str, str]
    query: Mapping[str, str]
    params: Mapping[str, str]
    body: bytes
    base_url: str
    deadline_ms: int


@dataclass(frozen=True)
class Response:
    """What goes back, whole or as it comes; JSON unless `headers` says otherwise.

    What comes may end with an AiServerError, and is to be closed whether it was read or not.
    """

    body: bytes | Generator[bytes]
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


Routes = Mapping[tuple[str, str], Callable[[Request], Response]]


@dataclass(frozen=True)
class HttpContext:
    """What all HTTP functions share; `public_base_url` is empty where the API's own address is the public one.

    `streams` is whether the function's routes do: then its runtime client is lambda_runtime.py.
    """

    clock: Clock
    origins: list[str]
    public_base_url: str = ""
    streams: bool = False


def respond(event: Mapping[str, Any], context: Any, routes: Routes, http: HttpContext) -> dict[str, Any]:
    """Serve one call of a REST API proxy integration by the route API Gateway has matched."""
    response = _dispatch(event, context, routes, http, lambda response: _buffer(response, _request_id(event)))
    body = cast(bytes, response.body).decode(errors="replace")  # what a provider streams may be no UTF-8
    return {**_head(response), "body": body, "isBase64Encoded": False}


def respond_streaming(
    event: Mapping[str, Any], context: Any, routes: Routes, http: HttpContext
) -> dict[str, Any] | Generator[dict[str, Any] | bytes]:
    """The same, where the function's routes stream: first the head, then the body as it comes.

    What fails once the head is out ends the stream with an event that says so.
    """
    return _stream_response(event, context, routes, http) if http.streams else respond(event, context, routes, http)


def _stream_response(
    event: Mapping[str, Any], context: Any, routes: Routes, http: HttpContext
) -> Generator[dict[str, Any] | bytes]:
    response = _dispatch(event, context, routes, http, lambda response: response)
    body = response.body
    if isinstance(body, bytes):
        yield _head(response)
        yield body
        return
    with closing(body):
        yield _head(response)
        yield from _with_error_event(body, _request_id(event))


def _head(response: Response) -> dict[str, Any]:
    """The one exit of every response, so that all header names are spelled alike."""
    headers = {canonical_name(name): value for name, value in {**response.headers, **NOSNIFF}.items()}
    return {"statusCode": response.status, "headers": headers}


def canonical_name(name: str) -> str:
    """`Content-Type`, `X-Request-Id`: over HTTP/1.1 some clients look a header up by this spelling alone."""
    return "-".join(HEADER_SPELLINGS.get(part, part.capitalize()) for part in name.lower().split("-"))


def _dispatch(
    event: Mapping[str, Any], context: Any, routes: Routes, http: HttpContext, convert: Callable[[Response], Response]
) -> Response:
    """What the route says, `made` into what can be sent; an error as its answer."""
    sent = {name.lower(): value for name, value in _string_map(event, "headers").items()}
    request_id = _request_id(event)
    if event["httpMethod"] == "OPTIONS":
        return _preflight(event["resource"], routes, sent, http)
    try:
        route = routes.get((event["httpMethod"], event["resource"]))
        if route is None:
            raise NotFound(f"There is no {event['httpMethod']} {event['path']} here")
        response = convert(route(_request(event, sent, context, http)))
    except Exception as failed:
        error = _to_error(failed, request_id)
        response = Response(wire_errors.render_error(error), error.status, wire_errors.error_headers(error))
    own = {"content-type": JSON_TYPE, "x-request-id": request_id}
    headers = own | dict(response.headers) | {"x-aiserver-request-id": request_id}
    return replace(response, headers=headers | cors.response_headers(sent.get("origin"), http.origins, headers))


def _to_error(failed: Exception, request_id: str) -> AiServerError:
    """The error for the caller, and a line in the log."""
    if isinstance(failed, AiServerError):
        told = {"status": failed.status, "error": failed.error_code, "request_id": request_id}
        logger.info("refused", extra=told)
        return failed
    logger.exception("failed", extra={"request_id": request_id})
    return AiServerError(f"Something failed on our side; quote request id {request_id}")


def _with_error_event(body: Generator[bytes], request_id: str) -> Generator[bytes]:
    """What comes, and an event that tells what went wrong, if anything did."""
    try:
        yield from body
    except Exception as failed:
        yield wire_errors.render_error_event(_to_error(failed, request_id))


def no_such_route(request: Request) -> Response:
    """For the routes that catch whatever no other takes."""
    raise NotFound("No such route")


def remaining_ms(context: Any) -> int:
    """What is left of the function's time limit."""
    return int(context.get_remaining_time_in_millis())


def _request(event: Mapping[str, Any], headers: Mapping[str, str], context: Any, http: HttpContext) -> Request:
    return Request(
        headers=headers,
        query=_string_map(event, "queryStringParameters"),
        params={k: unquote(v) for k, v in _string_map(event, "pathParameters").items()},
        body=read_body(event, headers),
        base_url=http.public_base_url or _request_base_url(event),
        deadline_ms=http.clock.now_ms()
        + remaining_ms(context)
        - (STREAM_MARGIN_MS if http.streams else RESPONSE_MARGIN_MS),
    )


def _request_id(event: Mapping[str, Any]) -> str:
    return event["requestContext"].get("requestId", "")


def _string_map(event: Mapping[str, Any], name: str) -> Mapping[str, str]:
    """A map of the event; API Gateway writes an empty one as null."""
    return event.get(name) or {}


def _request_base_url(event: Mapping[str, Any]) -> str:
    """`https://{domainName}` and what stands before the matched path: the stage, or a custom domain's base path."""
    matched = event["resource"]
    for name, value in _string_map(event, "pathParameters").items():
        matched = matched.replace(f"{{{name}+}}", value).replace(f"{{{name}}}", value)
    context = event["requestContext"]
    segments = context["path"].rstrip("/").split("/")
    before = segments[: len(segments) - matched.strip("/").count("/") - 1]
    return f"https://{context['domainName']}{'/'.join(before)}"


def _buffer(response: Response, request_id: str) -> Response:
    """With all of its body, as far as that can be sent at once."""
    body = response.body if isinstance(response.body, bytes) else b"".join(_with_error_event(response.body, request_id))
    # Only what may or may not fit is measured: as text it takes four times as much memory, or more. Escaping makes no
    # JSON text smaller and at most doubles it; Lambda's own client escapes no letters.
    size = len(body)
    if size > MAX_BUFFERED_BYTES or (size * 2 > MAX_BUFFERED_BYTES and _escaped_size(body) > MAX_BUFFERED_BYTES):
        said = "The answer is too large to be sent at once: ask for less, or queue a chat and fetch its result"
        raise ProviderError(said, may_be_billed=True)
    return replace(response, body=body)


def _escaped_size(body: bytes) -> int:
    return len(json.dumps(body.decode(), ensure_ascii=False).encode())


def _preflight(resource: str, routes: Routes, headers: Mapping[str, str], http: HttpContext) -> Response:
    methods = sorted({method for method, path in routes if path == resource} | METHODS)
    return Response(b"", 204, cors.preflight_headers(headers, http.origins, methods))

"""HTTP in and out: API Gateway's events as requests, our answers and errors as its responses.

One place turns an error into an answer, so that handlers are parse, one use case, answer.
"""

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from aws_lambda_powertools import Logger

from aiserver.clock import Clock
from aiserver.errors import AiServerError, NotFound, PayloadTooLarge, ProviderError
from aiserver.wire import errors as wire_errors
from aiserver.wire.render import JSON_TYPE

MAX_BODY_BYTES = 5 * 1024 * 1024  # escaped in the event it must stay under Lambda's 6 MB, beyond which we never run
MAX_ANSWER_BYTES = 6 * 1024 * 1024 - 64 * 1024  # Lambda's limit, less what stands around a body
ANSWER_MS = 1_500  # kept free at the end of a function's time, to say that time is over
ALLOWED_HEADERS = (
    "authorization, content-type, x-api-key, idempotency-key, x-ref-id, x-tag, x-reply-to, x-provider, x-deadline"
)
EXPOSED_HEADERS = (
    "location, retry-after, x-aiserver-request-id, x-attempts, x-provider, x-replayed, x-request-id, x-should-retry"
)

# Lower floors log by the standard library, to children of this name, whatever the stack is called.
logger = Logger(service="aiserver")


@dataclass(frozen=True)
class Request:
    """What a handler needs of a call. Header names are lower-case; `params` are the path's."""

    headers: Mapping[str, str]
    query: Mapping[str, str]
    params: Mapping[str, str]
    body: str
    base_url: str
    deadline_ms: int


@dataclass(frozen=True)
class Response:
    """What goes back; JSON unless `headers` says otherwise."""

    body: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


Routes = Mapping[tuple[str, str], Callable[[Request], Response]]


@dataclass(frozen=True)
class Edge:
    """What all HTTP functions share; `public_base_url` is empty where the API's own address is the public one."""

    clock: Clock
    origins: list[str]
    public_base_url: str = ""


def answer(event: Mapping[str, Any], context: Any, routes: Routes, edge: Edge) -> dict[str, Any]:
    """Serve one call of a REST API proxy integration by the route API Gateway has matched."""
    sent = {name.lower(): value for name, value in _texts(event, "headers").items()}
    request_id = event["requestContext"].get("requestId", "")
    cors = _cors(sent.get("origin"), edge.origins)
    if event["httpMethod"] == "OPTIONS":
        return _preflight(event["resource"], routes, cors)
    try:
        route = routes.get((event["httpMethod"], event["resource"]))
        if route is None:
            raise NotFound(f"There is no {event['httpMethod']} {event['path']} here")
        response = _checked(route(_request(event, sent, context, edge)))
    except AiServerError as error:
        logger.info("refused", extra={"status": error.status, "error": error.error_code, "request_id": request_id})
        response = Response(wire_errors.body(error), error.status, wire_errors.headers(error))
    except Exception:
        logger.exception("failed", extra={"request_id": request_id})
        error = AiServerError(f"Something failed on our side; quote request id {request_id}")
        response = Response(wire_errors.body(error), error.status)
    own = {"content-type": JSON_TYPE, "x-request-id": request_id}
    headers = own | dict(response.headers) | cors | {"x-aiserver-request-id": request_id}
    return {"statusCode": response.status, "headers": headers, "body": response.body.decode(), "isBase64Encoded": False}


def no_such_route(request: Request) -> Response:
    """For the routes that catch whatever no other takes."""
    raise NotFound("No such route")


def remaining_ms(context: Any) -> int:
    """What is left of the function's time limit."""
    return int(context.get_remaining_time_in_millis())


def _request(event: Mapping[str, Any], sent: Mapping[str, str], context: Any, edge: Edge) -> Request:
    body = event.get("body") or ""
    if event.get("isBase64Encoded"):
        body = base64.b64decode(body).decode("utf-8", "replace")
    if len(body) > MAX_BODY_BYTES or len(body.encode("utf-8", "surrogatepass")) > MAX_BODY_BYTES:
        raise PayloadTooLarge(f"The request body is over {MAX_BODY_BYTES // 1024 // 1024} MB")
    return Request(
        headers=sent,
        query=_texts(event, "queryStringParameters"),
        params={k: unquote(v) for k, v in _texts(event, "pathParameters").items()},
        body=body.removeprefix("\ufeff"),
        base_url=edge.public_base_url or _own_address(event),
        deadline_ms=edge.clock.now_ms() + remaining_ms(context) - ANSWER_MS,
    )


def _texts(event: Mapping[str, Any], name: str) -> Mapping[str, str]:
    """A map of the event; API Gateway writes an empty one as null."""
    return event.get(name) or {}


def _own_address(event: Mapping[str, Any]) -> str:
    """`https://{domainName}` and what stands before the matched path: the stage, or a custom domain's base path."""
    matched = event["resource"]
    for name, value in _texts(event, "pathParameters").items():
        matched = matched.replace(f"{{{name}+}}", value).replace(f"{{{name}}}", value)
    context = event["requestContext"]
    segments = context["path"].rstrip("/").split("/")
    before = segments[: len(segments) - matched.strip("/").count("/") - 1]
    return f"https://{context['domainName']}{'/'.join(before)}"


def _checked(response: Response) -> Response:
    # Only what may or may not fit is measured: as text it takes four times as much memory, or more. Escaping makes no
    # JSON text smaller and at most doubles it; Lambda's own client escapes no letters.
    size = len(response.body)
    if size > MAX_ANSWER_BYTES or (size * 2 > MAX_ANSWER_BYTES and _as_sent(response.body) > MAX_ANSWER_BYTES):
        said = "The answer is too large to be sent at once: ask for less, or queue a chat and fetch its result"
        raise ProviderError(said, may_be_billed=True)
    return response


def _as_sent(body: bytes) -> int:
    return len(json.dumps(body.decode(), ensure_ascii=False).encode())


def _cors(origin: str | None, allowed: list[str]) -> dict[str, str]:
    if not allowed:
        return {}
    if origin not in allowed:
        return {"vary": "Origin"}
    return {
        "vary": "Origin",
        "access-control-allow-origin": origin,
        "access-control-allow-credentials": "true",
        "access-control-expose-headers": EXPOSED_HEADERS,
    }


def _preflight(resource: str, routes: Routes, cors: Mapping[str, str]) -> dict[str, Any]:
    methods = sorted({method for method, path in routes if path == resource} | {"GET", "POST", "OPTIONS"})
    more = {
        "access-control-allow-methods": ", ".join(methods),
        "access-control-allow-headers": ALLOWED_HEADERS,
        "access-control-max-age": "600",
    }
    headers = {**cors, **(more if "access-control-allow-origin" in cors else {})}
    return {"statusCode": 204, "headers": headers, "body": "", "isBase64Encoded": False}

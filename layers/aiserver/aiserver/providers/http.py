"""Sends one HTTP request to a provider and reads its response, complete or as a stream. All adapters use it."""

import io
import re
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from http.cookiejar import CookieJar, DefaultCookiePolicy
from itertools import chain
from typing import cast

import httpcore
import httpx

from aiserver.errors import ProviderAuth, ProviderError, ProviderTimeout, ProviderUnavailable
from aiserver.http_client.background_reader import read_ahead
from aiserver.http_client.decompression import ACCEPT_ENCODING, ContentCodingError, decode_body
from aiserver.http_client.transport import (
    WAKE_S,
    DeadlineBackend,
    NetworkDeadline,
    Transport,
    remaining_s,
    total_deadline,
)
from aiserver.limits import MAX_ERROR_BYTES, MAX_HEADER_CHARS, MAX_HEADERS_CHARS
from aiserver.operations import ResponseKind
from aiserver.providers.memory_budget import reserve
from aiserver.providers.provider import Provider
from aiserver.providers.redaction import Redaction
from aiserver.providers.request import ProviderRequest
from aiserver.providers.response import ProviderResponse
from aiserver.wire import json_scan, sse
from aiserver.wire.media_types import is_event_stream, media_type
from aiserver.wire.render import JSON_MEDIA_TYPE

BEARER_HEADER = "authorization"  # any other header contains the bare key, without "Bearer"
RELAYED_HEADERS = ("content-type", "retry-after", "x-request-id", "x-should-retry")
JSON_LABEL = re.compile(r'application/json(?:\s*;\s*charset="?utf-8"?)?', re.IGNORECASE)
RELAYED_HEADER_PREFIX = "x-ratelimit-"
UNLABELLED_TYPES = {ResponseKind.BYTES: "application/octet-stream", ResponseKind.TEXT: "text/plain; charset=utf-8"}
NOT_AUDIO = ("text/html", "text/plain")
CONNECT_TIMEOUT_S = 10
KEEP_ALIVE_S = 4  # less than the 5 s of uvicorn, which vLLM uses: no request is written to a closing connection
GRACE_S = 1.0  # the stream's consumer checks its deadline twice a second, and should end it first
STREAMING = {"accept": "text/event-stream", "accept-encoding": "identity"}  # compression delays events
BODY_ERRORS = (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError)  # ways a body can end early


def create_client() -> httpx.Client:
    """Create the HTTP client shared by all calls of a container: thread-safe, without cookies."""
    transport = Transport(DeadlineBackend(CONNECT_TIMEOUT_S), keep_alive_s=KEEP_ALIVE_S)
    no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=[]))  # they would leak from one caller to another
    headers = {"accept-encoding": ACCEPT_ENCODING}
    return httpx.Client(transport=transport, cookies=no_cookies, headers=headers, trust_env=False)


def send(http: httpx.Client, provider: Provider, request: ProviderRequest, *, timeout_s: float) -> ProviderResponse:
    """Return the complete response of any status. `timeout_s` is wall time from connecting to the last byte.

    Raises: ProviderUnavailable (nothing was sent), ProviderTimeout (sent, outcome unknown), ProviderAuth (invalid key
    or base_url), ProviderError (too large, unsupported coding or invalid redirect).
    """
    with total_deadline(timeout_s), _open_response(http, provider, request) as response:
        return _build_response(
            response, request, _read_body(response, decode_body(response), request.max_response_bytes)
        )


@dataclass(frozen=True)
class StreamTimeouts:
    """Limits of a streamed response, in seconds of wall time from now, and between two chunks (`idle_s`)."""

    head_s: float
    total_s: float
    idle_s: float


@dataclass(frozen=True)
class OpenResponse:
    """The head of a response, and its body as batches of chunks; None where the head contains the complete body."""

    head: ProviderResponse
    chunks: Iterator[list[bytes] | None] | None


@contextmanager
def open_stream(
    http: httpx.Client, provider: Provider, request: ProviderRequest, timeouts: StreamTimeouts
) -> Generator[OpenResponse]:
    """Yield a response once its head is received. Its chunks are read by a thread, which ends with the `with` block.

    A batch contains the chunks received since the last one; None means that none was received for half a second.
    A response that is not a stream is complete in the head.
    Raises, here and when the chunks are iterated: as `send`.
    """
    deadline = NetworkDeadline(timeouts.head_s, WAKE_S)
    with closing(read_ahead(_read_stream(http, provider, request, deadline, timeouts), deadline.cancel)) as batches:
        head, *first_chunks = next(batch for batch in batches if batch)
        assert isinstance(head, _Head)  # `_read_stream` yields it first
        if not head.is_stream:
            yield OpenResponse(head.response, None)
            return
        all_batches = chain([first_chunks], batches) if first_chunks else batches
        yield OpenResponse(head.response, cast(Iterator[list[bytes] | None], all_batches))


@dataclass(frozen=True)
class _Head:
    """The head of a streamed response, or the complete response if it is not a stream."""

    response: ProviderResponse
    is_stream: bool


def _read_stream(
    http: httpx.Client,
    provider: Provider,
    request: ProviderRequest,
    deadline: NetworkDeadline,
    timeouts: StreamTimeouts,
) -> Generator[_Head | bytes]:
    """Yield the head, then the chunks of the body. `deadline` limits the current wait."""
    end_time = time.monotonic() + timeouts.total_s + GRACE_S
    streaming_request = replace(request, headers=STREAMING | request.headers)
    with total_deadline(deadline), _open_response(http, provider, streaming_request) as response:
        body = decode_body(response)
        start = _read_start(response, body, request.max_response_bytes)
        if not _is_stream(response, start, request):
            content = _read_body(response, chain([start], body), request.max_response_bytes)
            yield _Head(_build_response(response, request, content), is_stream=False)
            return
        yield _Head(_build_response(response, request, b""), is_stream=True)
        if start:
            yield start
        while True:
            deadline.reset(min(timeouts.idle_s, end_time - time.monotonic()))
            try:
                chunk = next(body)
            except StopIteration:
                return
            except httpcore.ReadTimeout as error:
                if time.monotonic() >= end_time:
                    raise
                message = f"Provider {provider.name}: no event received within its timeout_s"
                raise ProviderTimeout(message, may_be_billed=True) from error
            yield chunk


def _is_stream(response: httpx.Response, start: bytes, request: ProviderRequest) -> bool:
    """Whether the body is relayed as a stream: any successful one, unless it is labelled and starts as JSON.

    A transcript is one only if it is labelled as events; audio is none if it is labelled as text.
    """
    if request.is_media and request.response is not ResponseKind.BYTES:
        return response.is_success and is_event_stream(response.headers.get("content-type", ""))
    if request.is_media and media_type(response.headers.get("content-type", "")) in NOT_AUDIO:
        return False
    return response.is_success and (not _is_labelled_json(response) or sse.starts_with_field(start))


def _is_labelled_json(response: httpx.Response) -> bool:
    """Whether the content type is JSON. Some servers label event streams so, too: then the body decides."""
    return "json" in response.headers.get("content-type", "").lower()


def _read_start(response: httpx.Response, body: Iterator[bytes], max_bytes: int) -> bytes:
    """Return the start of a successful body that is labelled as JSON, without leading white space; else b"".

    It is long enough to distinguish events from JSON. Raises: ProviderError, when the body is too large.
    """
    if not response.is_success or not _is_labelled_json(response):
        return b""
    start, size = b"", 0
    for chunk in body:
        size += len(chunk)
        if size > max_bytes:
            raise ProviderError("The provider's response is too large", may_be_billed=True)
        start += chunk if start else chunk.lstrip()
        if len(start) >= sse.MAX_PREFIX_BYTES or b":" in start or start[:1] in (b"{", b"["):
            break
    return start


@contextmanager
def _open_response(http: httpx.Client, provider: Provider, request: ProviderRequest) -> Generator[httpx.Response]:
    """Send the request and map the HTTP errors of the `with` block, which reads the response, to ProviderErrors."""
    name = provider.name
    headers = request.headers | auth_headers(provider, request.api_key)
    url = provider.base_url.rstrip("/") + request.path
    try:
        with http.stream(request.method, url, content=request.body, headers=headers) as response:
            yield response
    except (httpcore.ConnectError, httpcore.ConnectTimeout, httpcore.WriteError, httpcore.WriteTimeout) as error:
        raise ProviderUnavailable(f"Provider {name}: could not connect") from error
    except (
        httpcore.LocalProtocolError,
        UnicodeEncodeError,
    ):  # nothing was sent; the original message would reveal the key
        raise ProviderAuth(f"Provider {name}: the API key contains characters not allowed in an HTTP header") from None
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError) as error:
        raise ProviderAuth(f"Provider {name}: invalid base_url") from error
    except httpcore.TimeoutException as error:
        raise ProviderTimeout(f"Provider {name}: no response within the time limit", may_be_billed=True) from error
    except (httpcore.NetworkError, httpcore.ProtocolError) as error:
        raise ProviderTimeout(f"Provider {name}: the response is incomplete", may_be_billed=True) from error
    except ContentCodingError as error:
        raise ProviderError(f"Provider {name}: {error}", may_be_billed=True) from error
    except httpx.RemoteProtocolError as error:  # httpx parses the URL of a redirect, even if it is not followed
        raise ProviderError(f"Provider {name}: the response redirects to an invalid URL") from error


def auth_headers(provider: Provider, api_key: str | None) -> dict[str, str]:
    """The header with the provider's API key; empty without a key."""
    if not api_key:
        return {}
    return {provider.auth_header: f"Bearer {api_key}" if provider.auth_header == BEARER_HEADER else api_key}


def _build_response(response: httpx.Response, request: ProviderRequest, body: bytes) -> ProviderResponse:
    redaction = Redaction(request.api_key)
    headers = redaction.mask_headers(_select_headers(response.headers, request))
    return ProviderResponse(response.status_code, headers, redaction.mask(body))


def _read_body(response: httpx.Response, chunks: Iterator[bytes], max_bytes: int) -> bytes:
    """Return the body. A broken end does not matter after a complete JSON object, or when the status is an error."""
    content = io.BytesIO()  # its value is its buffer, not a copy
    try:
        for chunk in chunks:
            content.write(chunk)
            reserve(content.tell(), remaining_s)
            if content.tell() > max_bytes:
                raise ProviderError("The provider's response is too large", may_be_billed=True)
            if content.tell() > MAX_ERROR_BYTES and not response.is_success:
                break
    except (*BODY_ERRORS, ContentCodingError):
        if response.is_success and json_scan.find_members(content.getvalue()) is None:
            raise
    return content.getvalue()


def _select_headers(headers: httpx.Headers, request: ProviderRequest) -> dict[str, str]:
    """The headers relayed to callers, the most useful first; headers over the size limits are omitted."""
    names = request.relayed_headers
    candidates = {names.get(k, k): v for k, v in headers.items()}
    if request.response in UNLABELLED_TYPES:
        candidates.setdefault("content-type", UNLABELLED_TYPES[request.response])
    if request.response is ResponseKind.JSON and not JSON_LABEL.fullmatch(
        candidates.get("content-type", JSON_MEDIA_TYPE)
    ):
        candidates["content-type"] = JSON_MEDIA_TYPE
    rate_limits = (name for name in candidates if name.startswith(RELAYED_HEADER_PREFIX))
    relayed: dict[str, str] = {}
    remaining_chars = MAX_HEADERS_CHARS
    for name in dict.fromkeys([*names.values(), *RELAYED_HEADERS, *rate_limits]):
        size = len(name) + len(candidates.get(name, ""))
        if name in candidates and len(candidates[name]) <= MAX_HEADER_CHARS and size <= remaining_chars:
            relayed[name] = candidates[name]
            remaining_chars -= size
    return relayed

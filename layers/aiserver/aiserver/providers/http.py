"""Sends one HTTP request to a provider and reads its response, complete or as a stream. All adapters use it."""

import io
import re
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from http.cookiejar import CookieJar, DefaultCookiePolicy
from itertools import chain

import httpcore
import httpx

from aiserver.errors import ProviderAuth, ProviderError, ProviderResponse, ProviderTimeout, ProviderUnavailable
from aiserver.http_client.background_reader import read_ahead
from aiserver.http_client.decompression import ACCEPT_ENCODING, ContentCodingError, decode_body
from aiserver.http_client.transport import WAKE_S, Deadline, DeadlineBackend, Transport, remaining_s, total_deadline
from aiserver.limits import MAX_ERROR_BYTES, MAX_HEADER_CHARS, MAX_HEADERS_CHARS, MAX_RESPONSE_BYTES
from aiserver.providers.memory_budget import reserve
from aiserver.providers.provider import Provider
from aiserver.providers.redaction import Redaction
from aiserver.wire import json_scan, sse

BEARER_HEADER = "authorization"  # any other header contains the bare key, without "Bearer"
RELAYED_HEADERS = ("content-type", "retry-after", "x-request-id", "x-should-retry")
JSON_TYPE = "application/json"
JSON_LABEL = re.compile(r'application/json(?:\s*;\s*charset="?utf-8"?)?', re.IGNORECASE)
RELAYED_HEADER_PREFIX = "x-ratelimit-"
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


@dataclass(frozen=True)
class ProviderRequest:
    """A request to a provider. `api_key` goes into its `auth_header`; a response over `max_response_bytes` fails.

    `relayed_headers` maps the provider's header names to the names that callers get.
    """

    method: str
    path: str
    api_key: str | None
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict[str, str])
    max_response_bytes: int = MAX_RESPONSE_BYTES
    relayed_headers: Mapping[str, str] = field(default_factory=dict[str, str])


def send(http: httpx.Client, provider: Provider, request: ProviderRequest, *, timeout_s: float) -> ProviderResponse:
    """Return the complete response of any status. `timeout_s` is wall time from connecting to the last byte.

    Raises: ProviderUnavailable (nothing was sent), ProviderTimeout (sent, outcome unknown), ProviderAuth (invalid key
    or base_url), ProviderError (too large, unsupported coding or invalid redirect).
    """
    with total_deadline(timeout_s), _open_response(http, provider, request) as response:
        return _build_response(
            response, request, _read_body(response, decode_body(response), request.max_response_bytes)
        )


@contextmanager
def open_stream(
    http: httpx.Client, provider: Provider, request: ProviderRequest, *, head_timeout_s: float, total_timeout_s: float
) -> Generator[tuple[ProviderResponse, Generator[list[bytes]] | None]]:
    """Yield the response head and its body as batches of chunks (an empty batch after half a second of silence).

    A response that is not a stream is complete in the head, with None as its body. The body is closed when the `with`
    block fails, else by its consumer. `head_timeout_s` is wall time until the head, `total_timeout_s` until the end.
    Raises, here and when the body is iterated: as `send`.
    """
    deadline = Deadline(head_timeout_s, WAKE_S)
    batches = read_ahead(_read_stream(http, provider, request, deadline, total_timeout_s), lambda: deadline.extend(0))
    with ExitStack() as cleanup:
        cleanup.callback(batches.close)
        head, *first = next(batch for batch in batches if batch)
        assert isinstance(head, _Head)  # `_read_stream` yields it first
        yield head.response, _remaining_batches(first, batches) if head.is_stream else None
        cleanup.pop_all()


@dataclass(frozen=True)
class _Head:
    """The head of a streamed response, or the complete response if it is not a stream."""

    response: ProviderResponse
    is_stream: bool


def _read_stream(
    http: httpx.Client, provider: Provider, request: ProviderRequest, deadline: Deadline, total_timeout_s: float
) -> Generator[_Head | bytes]:
    end_time = time.monotonic() + total_timeout_s
    with (
        total_deadline(deadline),
        _open_response(http, provider, replace(request, headers=STREAMING | request.headers)) as response,
    ):
        body = decode_body(response)
        is_labelled = response.is_success and _is_labelled_json(response)
        start = b"".join(_read_start(body, request.max_response_bytes)) if is_labelled else b""
        if not response.is_success or (_is_labelled_json(response) and not sse.starts_with_field(start)):
            content = _read_body(response, chain([start], body), request.max_response_bytes)
            yield _Head(_build_response(response, request, content), is_stream=False)
            return
        deadline.extend(end_time + GRACE_S - time.monotonic())
        yield _Head(_build_response(response, request, b""), is_stream=True)
        if start:
            yield start
        yield from body


def _is_labelled_json(response: httpx.Response) -> bool:
    """Whether the content type is JSON. Some servers label event streams so, too: then the body decides."""
    return "json" in response.headers.get("content-type", "").lower()


def _read_start(body: Iterator[bytes], max_bytes: int) -> Generator[bytes]:
    """Yield the start of a body, enough to distinguish events from JSON, without leading white space."""
    start, size = b"", 0
    for chunk in body:
        size += len(chunk)
        if size > max_bytes:
            raise ProviderError("The provider's response is too large", may_be_billed=True)
        content = chunk if start else chunk.lstrip()
        yield content
        start = (start + content)[: sse.MAX_PREFIX_BYTES]
        if len(start) == sse.MAX_PREFIX_BYTES or b":" in start or start[:1] in (b"{", b"["):
            return


def _remaining_batches(first: list[_Head | bytes], batches: Generator[list[_Head | bytes]]) -> Generator[list[bytes]]:
    """Yield the chunks after the head."""
    with closing(batches):
        for batch in chain([first], batches):
            yield [chunk for chunk in batch if isinstance(chunk, bytes)]


@contextmanager
def _open_response(http: httpx.Client, provider: Provider, request: ProviderRequest) -> Generator[httpx.Response]:
    """Send the request and map the HTTP errors of the `with` block, which reads the response, to ProviderErrors."""
    name = provider.name
    headers = request.headers | _auth_headers(provider, request.api_key)
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


def _auth_headers(provider: Provider, api_key: str | None) -> dict[str, str]:
    if not api_key:
        return {}
    return {provider.auth_header: f"Bearer {api_key}" if provider.auth_header == BEARER_HEADER else api_key}


def _build_response(response: httpx.Response, request: ProviderRequest, body: bytes) -> ProviderResponse:
    redaction = Redaction(request.api_key)
    headers = redaction.mask_headers(_select_headers(response.headers, request.relayed_headers))
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


def _select_headers(headers: httpx.Headers, names: Mapping[str, str]) -> dict[str, str]:
    """The headers relayed to callers, the most useful first; headers over the size limits are omitted."""
    candidates = {names.get(k, k): v for k, v in headers.items()}
    if not JSON_LABEL.fullmatch(candidates.get("content-type", JSON_TYPE)):  # only JSON is relayed
        candidates["content-type"] = JSON_TYPE
    rate_limits = (name for name in candidates if name.startswith(RELAYED_HEADER_PREFIX))
    relayed: dict[str, str] = {}
    remaining_chars = MAX_HEADERS_CHARS
    for name in dict.fromkeys([*names.values(), *RELAYED_HEADERS, *rate_limits]):
        size = len(name) + len(candidates.get(name, ""))
        if name in candidates and len(candidates[name]) <= MAX_HEADER_CHARS and size <= remaining_chars:
            relayed[name] = candidates[name]
            remaining_chars -= size
    return relayed

"""One request to a provider over HTTP, and its answer, whole or piece by piece: what every protocol stands on."""

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
from aiserver.limits import MAX_ANSWER_BYTES, MAX_ERROR_BYTES, MAX_HEADER_CHARS, MAX_HEADERS_CHARS
from aiserver.providers.background_reader import read_ahead
from aiserver.providers.decompression import ACCEPT_ENCODING, ContentCodingError, decode_body
from aiserver.providers.memory_budget import reserve
from aiserver.providers.provider import Provider
from aiserver.providers.redaction import Redaction
from aiserver.providers.transport import WAKE_S, Deadline, DeadlineBackend, Transport, remaining_s, total_deadline
from aiserver.wire import json_scan, sse

BEARER_HEADER = "authorization"  # any other header carries the key bare
RELAYED_HEADERS = ("content-type", "retry-after", "x-request-id", "x-should-retry")
JSON_TYPE = "application/json"
JSON_LABEL = re.compile(r'application/json(?:\s*;\s*charset="?utf-8"?)?', re.IGNORECASE)
RELAYED_HEADER_PREFIX = "x-ratelimit-"
CONNECT_S = 10
KEEP_ALIVE_S = 4  # under the 5 s of uvicorn, on which vLLM runs: no request is written into a dying connection
GRACE_S = 1.0  # whoever passes a stream on looks at the time twice a second, and ends it first
STREAMING = {"accept": "text/event-stream", "accept-encoding": "identity"}  # what is packed comes late
BODY_ERRORS = (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError)  # how a body can end early


def create_client() -> httpx.Client:
    """One HTTP client for all calls of a container; safe to share between threads. It keeps no cookies."""
    transport = Transport(DeadlineBackend(CONNECT_S), keep_alive_s=KEEP_ALIVE_S)
    none = CookieJar(DefaultCookiePolicy(allowed_domains=[]))  # one caller's would go out with another's request
    headers = {"accept-encoding": ACCEPT_ENCODING}
    return httpx.Client(transport=transport, cookies=none, headers=headers, trust_env=False)


@dataclass(frozen=True)
class ProviderRequest:
    """What is sent to a provider, `api_key` in the header where it reads it, and how much of the answer is taken.

    `relayed_as` are its names for headers that are kept by other names, or by the same.
    """

    method: str
    path: str
    api_key: str | None
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict[str, str])
    max_response_bytes: int = MAX_ANSWER_BYTES
    relayed_headers: Mapping[str, str] = field(default_factory=dict[str, str])


def send(http: httpx.Client, provider: Provider, request: ProviderRequest, *, timeout_s: float) -> ProviderResponse:
    """Whatever it answers, read to its end, in `timeout_s` of wall time from connecting to the last byte.

    Raises, where there is no answer, what that means: ProviderUnavailable (nothing was sent), ProviderTimeout (sent,
    outcome unknown), ProviderAuth (its key or address cannot be), ProviderError (too large).
    """
    with total_deadline(timeout_s), _open_response(http, provider, request) as response:
        return _build_response(
            response, request, _read_body(response, decode_body(response), request.max_response_bytes)
        )


@contextmanager
def open_stream(
    http: httpx.Client, provider: Provider, request: ProviderRequest, *, head_timeout_s: float, total_timeout_s: float
) -> Generator[tuple[ProviderResponse, Generator[list[bytes]] | None]]:
    """The head of the answer, and its body as it comes (nothing for half a second is an empty list).

    One that is no stream comes whole with its head, and nothing follows. What follows is closed where the block fails,
    and else by whoever took it. `head_timeout_s` is wall time until the head, `total_timeout_s` until the end.
    Raises, here and when what follows is iterated: as `send`.
    """
    deadline = Deadline(head_timeout_s, WAKE_S)
    came = read_ahead(_read_stream(http, provider, request, deadline, total_timeout_s), lambda: deadline.extend(0))
    with ExitStack() as failed:
        failed.callback(came.close)
        head, *first = next(batch for batch in came if batch)
        assert isinstance(head, _Head)  # it is what `_pieces` yields first
        yield head.response, _remaining_batches(first, came) if head.is_stream else None
        failed.pop_all()


@dataclass(frozen=True)
class _Head:
    """The start of a streamed response, or all of one that is no stream."""

    response: ProviderResponse
    is_stream: bool


def _read_stream(
    http: httpx.Client, provider: Provider, request: ProviderRequest, deadline: Deadline, total_timeout_s: float
) -> Generator[_Head | bytes]:
    ends = time.monotonic() + total_timeout_s
    with (
        total_deadline(deadline),
        _open_response(http, provider, replace(request, headers=STREAMING | request.headers)) as response,
    ):
        body = decode_body(response)
        is_labelled = response.is_success and _is_labelled_json(response)
        start = b"".join(_read_start(body, request.max_response_bytes)) if is_labelled else b""
        if not response.is_success or (_is_labelled_json(response) and not sse.starts_with_field(start)):
            rest = _read_body(response, chain([start], body), request.max_response_bytes)
            yield _Head(_build_response(response, request, rest), is_stream=False)
            return
        deadline.extend(ends + GRACE_S - time.monotonic())
        yield _Head(_build_response(response, request, b""), is_stream=True)
        if start:
            yield start
        yield from body


def _is_labelled_json(response: httpx.Response) -> bool:
    """Some servers say so of events, too: then the body tells."""
    return "json" in response.headers.get("content-type", "").lower()


def _read_start(body: Iterator[bytes], max_bytes: int) -> Generator[bytes]:
    """As much of a body as tells events from JSON, less the white space before it."""
    start, size = b"", 0
    for piece in body:
        size += len(piece)
        if size > max_bytes:
            raise ProviderError("The provider's answer is too large", may_be_billed=True)
        content = piece if start else piece.lstrip()
        yield content
        start = (start + content)[: sse.MAX_PREFIX_BYTES]
        if len(start) == sse.MAX_PREFIX_BYTES or b":" in start or start[:1] in (b"{", b"["):
            return


def _remaining_batches(first: list[_Head | bytes], rest: Generator[list[_Head | bytes]]) -> Generator[list[bytes]]:
    """What comes after the head."""
    with closing(rest):
        for batch in chain([first], rest):
            yield [piece for piece in batch if isinstance(piece, bytes)]


@contextmanager
def _open_response(http: httpx.Client, provider: Provider, request: ProviderRequest) -> Generator[httpx.Response]:
    """Around the reading of one answer."""
    name = provider.name
    headers = request.headers | _auth_headers(provider, request.api_key)
    url = provider.base_url.rstrip("/") + request.path
    try:
        with http.stream(request.method, url, content=request.body, headers=headers) as response:
            yield response
    except (httpcore.ConnectError, httpcore.ConnectTimeout, httpcore.WriteError, httpcore.WriteTimeout) as error:
        raise ProviderUnavailable(f"Provider {name} cannot be reached") from error
    except (httpcore.LocalProtocolError, UnicodeEncodeError):  # nothing was sent; its words would tell the key
        raise ProviderAuth(f"The key of provider {name} cannot stand in a header") from None
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError) as error:
        raise ProviderAuth(f"The base_url of provider {name} leads nowhere") from error
    except httpcore.TimeoutException as error:
        raise ProviderTimeout(f"Provider {name} did not answer in time", may_be_billed=True) from error
    except (httpcore.NetworkError, httpcore.ProtocolError) as error:
        raise ProviderTimeout(f"Provider {name} gave no whole answer", may_be_billed=True) from error
    except ContentCodingError as error:
        raise ProviderError(f"Provider {name}: {error}", may_be_billed=True) from error
    except httpx.RemoteProtocolError as error:  # httpx looks where a redirect leads, though it is not followed
        raise ProviderError(f"Provider {name} answered with a redirect to nowhere") from error


def _auth_headers(provider: Provider, api_key: str | None) -> dict[str, str]:
    if not api_key:
        return {}
    return {provider.auth_header: f"Bearer {api_key}" if provider.auth_header == BEARER_HEADER else api_key}


def _build_response(response: httpx.Response, request: ProviderRequest, body: bytes) -> ProviderResponse:
    redaction = Redaction(request.api_key)
    headers = redaction.mask_headers(_select_headers(response.headers, request.relayed_headers))
    return ProviderResponse(response.status_code, headers, redaction.mask(body))


def _read_body(response: httpx.Response, chunks: Iterator[bytes], max_bytes: int) -> bytes:
    """The body. How a connection ends does not matter where a whole JSON object has come, or the status is an error."""
    content = io.BytesIO()  # its value is its buffer, not a copy
    try:
        for chunk in chunks:
            content.write(chunk)
            reserve(content.tell(), remaining_s)
            if content.tell() > max_bytes:
                raise ProviderError("The provider's answer is too large", may_be_billed=True)
            if content.tell() > MAX_ERROR_BYTES and not response.is_success:
                break
    except (*BODY_ERRORS, ContentCodingError):
        if response.is_success and json_scan.find_members(content.getvalue()) is None:
            raise
    return content.getvalue()


def _select_headers(headers: httpx.Headers, names: Mapping[str, str]) -> dict[str, str]:
    """Those that callers get, the most useful first; beyond a limit of each and of all they are left out."""
    named = {names.get(k, k): v for k, v in headers.items()}
    if not JSON_LABEL.fullmatch(named.get("content-type", JSON_TYPE)):  # whatever its label, only JSON is relayed
        named["content-type"] = JSON_TYPE
    wanted = [*names.values(), *RELAYED_HEADERS, *(name for name in named if name.startswith(RELAYED_HEADER_PREFIX))]
    kept: dict[str, str] = {}
    left = MAX_HEADERS_CHARS
    for name in dict.fromkeys(wanted):
        size = len(name) + len(named.get(name, ""))
        if name in named and len(named[name]) <= MAX_HEADER_CHARS and size <= left:
            kept[name] = named[name]
            left -= size
    return kept

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

from aiserver.errors import ProviderAuth, ProviderError, ProviderTimeout, ProviderUnavailable, UpstreamAnswer
from aiserver.limits import MAX_ANSWER_BYTES, MAX_ERROR_BYTES, MAX_HEADER_CHARS, MAX_HEADERS_CHARS
from aiserver.providers.background_reader import ticking
from aiserver.providers.decompression import ACCEPTED, CodingError, decoded
from aiserver.providers.memory_budget import reserve
from aiserver.providers.provider import Provider
from aiserver.providers.redaction import Redaction
from aiserver.providers.transport import WAKE_S, Deadline, DeadlineBackend, Transport, remaining_s, total_deadline
from aiserver.wire import json_scan, sse

BEARER_HEADER = "authorization"  # any other header carries the key bare
RELAYED = ("content-type", "retry-after", "x-request-id", "x-should-retry")
JSON_TYPE = "application/json"
JSON_LABEL = re.compile(r'application/json(?:\s*;\s*charset="?utf-8"?)?', re.IGNORECASE)
RELAYED_PREFIX = "x-ratelimit-"
CONNECT_S = 10
KEEP_ALIVE_S = 4  # under the 5 s of uvicorn, on which vLLM runs: no request is written into a dying connection
GRACE_S = 1.0  # whoever passes a stream on looks at the time twice a second, and ends it first
STREAMING = {"accept": "text/event-stream", "accept-encoding": "identity"}  # what is packed comes late
INCOMPLETE = (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError)  # how a body can end early


def client() -> httpx.Client:
    """One HTTP client for all calls of a container; safe to share between threads. It keeps no cookies."""
    transport = Transport(DeadlineBackend(CONNECT_S), keep_alive_s=KEEP_ALIVE_S)
    none = CookieJar(DefaultCookiePolicy(allowed_domains=[]))  # one caller's would go out with another's request
    headers = {"accept-encoding": ACCEPTED}
    return httpx.Client(transport=transport, cookies=none, headers=headers, trust_env=False)


@dataclass(frozen=True)
class Asked:
    """What is sent to a provider, `api_key` in the header where it reads it, and how much of the answer is taken.

    `relayed_as` are its names for headers that are kept by other names, or by the same.
    """

    method: str
    path: str
    api_key: str | None
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict[str, str])
    max_answer_bytes: int = MAX_ANSWER_BYTES
    relayed_as: Mapping[str, str] = field(default_factory=dict[str, str])


def send(http: httpx.Client, provider: Provider, asked: Asked, *, deadline_s: float) -> UpstreamAnswer:
    """Whatever it answers, read to its end, in `deadline_s` of wall time from connecting to the last byte.

    Raises, where there is no answer, what that means: ProviderUnavailable (nothing was sent), ProviderTimeout (sent,
    outcome unknown), ProviderAuth (its key or address cannot be), ProviderError (too large).
    """
    with total_deadline(deadline_s), _sent(http, provider, asked) as response:
        return _answer(response, asked, _read(response, decoded(response), asked.max_answer_bytes))


@contextmanager
def open_stream(
    http: httpx.Client, provider: Provider, asked: Asked, *, begin_s: float, total_s: float
) -> Generator[tuple[UpstreamAnswer, Generator[list[bytes]] | None]]:
    """The head of the answer, and its body as it comes (nothing for half a second is an empty list).

    One that is no stream comes whole with its head, and nothing follows. What follows is closed where the block fails,
    and else by whoever took it. `begin_s` is wall time until the head, `total_s` until the end.
    Raises, here and when what follows is iterated: as `send`.
    """
    deadline = Deadline(begin_s, WAKE_S)
    came = ticking(_pieces(http, provider, asked, deadline, total_s), lambda: deadline.extend(0))
    with ExitStack() as failed:
        failed.callback(came.close)
        head, *first = next(batch for batch in came if batch)
        assert isinstance(head, _Head)  # it is what `_pieces` yields first
        yield head.answer, _following(first, came) if head.is_stream else None
        failed.pop_all()


@dataclass(frozen=True)
class _Head:
    """The start of a streamed response, or all of one that is no stream."""

    answer: UpstreamAnswer
    is_stream: bool


def _pieces(
    http: httpx.Client, provider: Provider, asked: Asked, deadline: Deadline, total_s: float
) -> Generator[_Head | bytes]:
    ends = time.monotonic() + total_s
    with total_deadline(deadline), _sent(http, provider, replace(asked, headers=STREAMING | asked.headers)) as response:
        body = decoded(response)
        is_labelled = response.is_success and _is_labelled_json(response)
        start = b"".join(_start(body, asked.max_answer_bytes)) if is_labelled else b""
        if not response.is_success or (_is_labelled_json(response) and not sse.begins(start)):
            rest = _read(response, chain([start], body), asked.max_answer_bytes)
            yield _Head(_answer(response, asked, rest), is_stream=False)
            return
        deadline.extend(ends + GRACE_S - time.monotonic())
        yield _Head(_answer(response, asked, b""), is_stream=True)
        if start:
            yield start
        yield from body


def _is_labelled_json(response: httpx.Response) -> bool:
    """Some servers say so of events, too: then the body tells."""
    return "json" in response.headers.get("content-type", "").lower()


def _start(body: Iterator[bytes], max_bytes: int) -> Generator[bytes]:
    """As much of a body as tells events from JSON, less the white space before it."""
    start, size = b"", 0
    for piece in body:
        size += len(piece)
        if size > max_bytes:
            raise ProviderError("The provider's answer is too large", may_be_billed=True)
        content = piece if start else piece.lstrip()
        yield content
        start = (start + content)[: sse.LONGEST_START]
        if len(start) == sse.LONGEST_START or b":" in start or start[:1] in (b"{", b"["):
            return


def _following(first: list[_Head | bytes], rest: Generator[list[_Head | bytes]]) -> Generator[list[bytes]]:
    """What comes after the head."""
    with closing(rest):
        for batch in chain([first], rest):
            yield [piece for piece in batch if isinstance(piece, bytes)]


@contextmanager
def _sent(http: httpx.Client, provider: Provider, asked: Asked) -> Generator[httpx.Response]:
    """Around the reading of one answer."""
    name = provider.name
    headers = asked.headers | _credential(provider, asked.api_key)
    url = provider.base_url.rstrip("/") + asked.path
    try:
        with http.stream(asked.method, url, content=asked.body, headers=headers) as response:
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
    except CodingError as error:
        raise ProviderError(f"Provider {name}: {error}", may_be_billed=True) from error
    except httpx.RemoteProtocolError as error:  # httpx looks where a redirect leads, though it is not followed
        raise ProviderError(f"Provider {name} answered with a redirect to nowhere") from error


def _credential(provider: Provider, api_key: str | None) -> dict[str, str]:
    if not api_key:
        return {}
    return {provider.auth_header: f"Bearer {api_key}" if provider.auth_header == BEARER_HEADER else api_key}


def _answer(response: httpx.Response, asked: Asked, body: bytes) -> UpstreamAnswer:
    redaction = Redaction(asked.api_key)
    headers = redaction.headers(_relayed(response.headers, asked.relayed_as))
    return UpstreamAnswer(response.status_code, headers, redaction.masked(body))


def _read(response: httpx.Response, chunks: Iterator[bytes], max_bytes: int) -> bytes:
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
    except (*INCOMPLETE, CodingError):
        if response.is_success and json_scan.members(content.getvalue()) is None:
            raise
    return content.getvalue()


def _relayed(headers: httpx.Headers, names: Mapping[str, str]) -> dict[str, str]:
    """Those that callers get, the most useful first; beyond a limit of each and of all they are left out."""
    named = {names.get(k, k): v for k, v in headers.items()}
    if not JSON_LABEL.fullmatch(named.get("content-type", JSON_TYPE)):  # whatever its label, only JSON is relayed
        named["content-type"] = JSON_TYPE
    wanted = [*names.values(), *RELAYED, *(name for name in named if name.startswith(RELAYED_PREFIX))]
    kept: dict[str, str] = {}
    left = MAX_HEADERS_CHARS
    for name in dict.fromkeys(wanted):
        size = len(name) + len(named.get(name, ""))
        if name in named and len(named[name]) <= MAX_HEADER_CHARS and size <= left:
            kept[name] = named[name]
            left -= size
    return kept

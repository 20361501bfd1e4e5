"""OpenAI's protocol: OpenAI itself, and whatever else speaks it (the rows of catalogue.py, and others).

Source: https://platform.openai.com/docs/api-reference/chat/create
"""

import io
from collections.abc import Generator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from http.cookiejar import CookieJar, DefaultCookiePolicy
from itertools import chain

import httpcore
import httpx

from aiserver.clock import Clock
from aiserver.errors import ProviderAuth, ProviderError, ProviderTimeout, ProviderUnavailable, UpstreamAnswer
from aiserver.providers.openai_answers import MAX_ERROR_BYTES, failure, judged, model_ids
from aiserver.providers.openai_events import OpenAiEvents
from aiserver.providers.provider import Provider
from aiserver.providers.stream import Stream
from aiserver.providers.ticking import ticking
from aiserver.providers.transport import WAKE_S, Deadline, DeadlineBackend, Transport, total_deadline
from aiserver.wire.dates import retry_after_s
from aiserver.wire.model import with_usage

PATHS = {"chat.completions": "/chat/completions", "embeddings": "/embeddings", "responses": "/responses"}
MODELS_PATH = "/models"
BEARER_HEADER = "authorization"  # any other header carries the key bare
RELAYED = ("content-type", "retry-after", "x-request-id", "x-should-retry")
RELAYED_PREFIX = "x-ratelimit-"
MAX_ANSWER_BYTES = 64 * 1024 * 1024  # far beyond any chat answer; keeps one upstream from filling the memory
MAX_LIST_BYTES = 16 * 1024 * 1024  # far beyond any list of models
CONNECT_S = 10
PATIENCE_MS = 15_000  # for the first event of a stream that has begun: till then another may be asked
KEEP_ALIVE_S = 4  # under the 5 s of uvicorn, on which vLLM runs: no request is written into a dying connection


def client() -> httpx.Client:
    """One HTTP client for all calls of a container; safe to share between threads. It keeps no cookies."""
    transport = Transport(DeadlineBackend(CONNECT_S), keep_alive_s=KEEP_ALIVE_S)
    none = CookieJar(DefaultCookiePolicy(allowed_domains=[]))  # one caller's would go out with another's request
    return httpx.Client(transport=transport, cookies=none, trust_env=False)


@dataclass(frozen=True)
class _Request:
    """What is sent to a provider but for its key, and how much of the answer is taken."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes | None
    max_answer_bytes: int


class OpenAi:
    """Calls providers of type `openai`."""

    def __init__(self, http: httpx.Client, clock: Clock) -> None:
        self._http = http
        self._clock = clock

    def call(
        self,
        provider: Provider,
        operation: str,
        body: bytes,
        *,
        api_key: str | None,
        idempotency_key: str | None,
        model_is_configured: bool,
        deadline_s: float,
    ) -> UpstreamAnswer:
        """Send one request and wait for the whole answer; `body` goes out and comes back byte for byte.

        `deadline_s` is total wall time in seconds, from connecting to the last byte.

        Raises: ProviderUnavailable (nothing was sent), ProviderTimeout (sent, outcome unknown), ProviderRateLimited,
        ProviderAuth, ProviderRejected (other 4xx, final), ProviderError (5xx, not JSON, or 200 with an error).
        """
        headers = {"content-type": "application/json"}
        if idempotency_key:
            headers["idempotency-key"] = idempotency_key
        asked = _Request("POST", PATHS[operation], headers, body, MAX_ANSWER_BYTES)
        return self._judge(
            provider, operation, self._exchange(provider, asked, api_key, deadline_s), model_is_configured
        )

    def stream(
        self,
        provider: Provider,
        operation: str,
        body: bytes,
        *,
        api_key: str | None,
        model_is_configured: bool,
        begin_s: float,
        total_s: float,
    ) -> Stream:
        """Send one request and wait for the first event of its answer, or for PATIENCE_MS once it has begun.

        `begin_s` is wall time in seconds until its head, `total_s` from then to its end. A server that knows how to is
        asked for its usage; the event that tells it is kept from a caller who did not ask.

        Raises: as `call`; ProviderTimeout, where it broke off before its first event.
        """
        asks = operation == "chat.completions" and provider.row.stream_usage
        sent = with_usage(body) if asks else body
        headers = {"content-type": "application/json", "accept": "text/event-stream", "accept-encoding": "identity"}
        asked = _Request("POST", PATHS[operation], headers, sent, MAX_ANSWER_BYTES)
        deadline = Deadline(begin_s, WAKE_S)
        came = ticking(self._events(provider, asked, api_key, deadline, total_s), lambda: deadline.extend(0))
        with ExitStack() as opened:
            opened.callback(came.close)
            head, *pieces = next(batch for batch in came if batch)
            assert isinstance(head, UpstreamAnswer)  # it is what `_events` yields first
            if not _is_stream(head):
                self._judge(provider, operation, head, model_is_configured)
                raise ProviderError(f"Provider {provider.name} did not stream its answer", may_be_billed=True)
            events = OpenAiEvents(
                provider, operation, hides_usage=sent is not body, model_is_configured=model_is_configured
            )
            stream = Stream(provider.name, head.headers, _pieces(pieces, came), events)
            late = self._clock.now_ms() + PATIENCE_MS
            stream.begin(lambda: self._clock.now_ms() >= late)
            opened.pop_all()
        return stream

    def _events(
        self, provider: Provider, asked: _Request, api_key: str | None, deadline: Deadline, total_s: float
    ) -> Generator[UpstreamAnswer | bytes]:
        """The head of the answer, then its body as it comes; one that is no stream comes whole with its head."""
        with total_deadline(deadline), self._sent(provider, asked, api_key) as response:
            head = UpstreamAnswer(response.status_code, _relayed(response.headers), b"")
            if not _is_stream(head):
                yield replace(head, body=_read(response, asked.max_answer_bytes))
                return
            deadline.extend(total_s)
            yield head
            yield from response.iter_bytes()

    def models(self, provider: Provider, *, api_key: str | None, deadline_s: float) -> list[str]:
        """The ids of the models that the provider lists, sorted, as a request would name them.

        Raises: what `call` raises; ProviderError where the answer is no list.
        """
        asked = _Request("GET", MODELS_PATH, {}, None, MAX_LIST_BYTES)
        answer = self._exchange(provider, asked, api_key, deadline_s)
        if not answer.is_success:
            raise failure(provider, answer, model_is_configured=False, wait_s=self._wait_s(answer))
        return model_ids(provider, answer)

    def _exchange(self, provider: Provider, asked: _Request, api_key: str | None, deadline_s: float) -> UpstreamAnswer:
        """Whatever it answers, read to its end. Raises: where there is no answer, what that means."""
        with total_deadline(deadline_s), self._sent(provider, asked, api_key) as response:
            return UpstreamAnswer(
                response.status_code, _relayed(response.headers), _read(response, asked.max_answer_bytes)
            )

    @contextmanager
    def _sent(self, provider: Provider, asked: _Request, api_key: str | None) -> Generator[httpx.Response]:
        """Around the reading of one answer. Raises: where there is none, or no whole one, what that means."""
        name = provider.name
        headers = asked.headers | _credential(provider, api_key)
        url = provider.base_url.rstrip("/") + asked.path
        try:
            with self._http.stream(asked.method, url, content=asked.body, headers=headers) as response:
                yield response
        except (httpcore.ConnectError, httpcore.ConnectTimeout, httpcore.WriteError, httpcore.WriteTimeout) as error:
            raise ProviderUnavailable(f"Provider {name} cannot be reached") from error
        except (httpcore.LocalProtocolError, UnicodeEncodeError):  # nothing was sent; its words would tell the key
            raise ProviderAuth(f"The key of provider {name} cannot stand in a header") from None
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError) as error:
            raise ProviderAuth(f"The base_url of provider {name} leads nowhere") from error
        except httpcore.TimeoutException as error:
            raise ProviderTimeout(f"Provider {name} did not answer in time", may_be_billed=True) from error
        except (httpcore.NetworkError, httpcore.ProtocolError, httpx.DecodingError) as error:
            raise ProviderTimeout(f"Provider {name} gave no whole answer", may_be_billed=True) from error
        except httpx.RemoteProtocolError as error:  # httpx looks where a redirect leads, though it is not followed
            raise ProviderError(f"Provider {name} answered with a redirect to nowhere") from error

    def _judge(
        self, provider: Provider, operation: str, answer: UpstreamAnswer, model_is_configured: bool
    ) -> UpstreamAnswer:
        wait_s = self._wait_s(answer)
        return judged(provider, operation, answer, model_is_configured=model_is_configured, wait_s=wait_s)

    def _wait_s(self, answer: UpstreamAnswer) -> int | None:
        return retry_after_s(answer.headers.get("retry-after"), self._clock.now_ms())


def _is_stream(head: UpstreamAnswer) -> bool:
    """Whether events follow; a server that does not stream answers in JSON, whatever it says it does."""
    return head.is_success and "json" not in head.headers.get("content-type", "")


def _pieces(
    first: list[UpstreamAnswer | bytes], rest: Generator[list[UpstreamAnswer | bytes]]
) -> Generator[list[bytes]]:
    """What follows the head."""
    with closing(rest):
        for batch in chain([first], rest):
            yield [piece for piece in batch if isinstance(piece, bytes)]


def _credential(provider: Provider, api_key: str | None) -> dict[str, str]:
    if not api_key:
        return {}
    return {provider.auth_header: f"Bearer {api_key}" if provider.auth_header == BEARER_HEADER else api_key}


def _read(response: httpx.Response, max_bytes: int) -> bytes:
    content = io.BytesIO()  # its value is its buffer, not a copy
    for chunk in response.iter_bytes():
        content.write(chunk)
        if content.tell() > max_bytes:
            raise ProviderError("The provider's answer is too large", may_be_billed=True)
        if content.tell() > MAX_ERROR_BYTES and not response.is_success:
            break
    return content.getvalue()


def _relayed(headers: httpx.Headers) -> dict[str, str]:
    return {k: v for k, v in headers.items() if k in RELAYED or k.startswith(RELAYED_PREFIX)}

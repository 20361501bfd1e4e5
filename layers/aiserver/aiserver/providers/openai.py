"""OpenAI's protocol: OpenAI itself, and whatever else speaks it (the rows of catalogue.py, and others).

Source: https://platform.openai.com/docs/api-reference/chat/create
"""

import io
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpcore
import httpx

from aiserver.clock import Clock
from aiserver.errors import ProviderAuth, ProviderError, ProviderTimeout, ProviderUnavailable, UpstreamAnswer
from aiserver.providers.openai_answers import MAX_ERROR_BYTES, failure, judged, model_ids
from aiserver.providers.provider import Provider
from aiserver.providers.transport import DeadlineBackend, Transport, total_deadline
from aiserver.wire.dates import retry_after_s

PATHS = {"chat.completions": "/chat/completions", "embeddings": "/embeddings", "responses": "/responses"}
MODELS_PATH = "/models"
BEARER_HEADER = "authorization"  # any other header carries the key bare
RELAYED = ("content-type", "retry-after", "x-request-id", "x-should-retry")
RELAYED_PREFIX = "x-ratelimit-"
MAX_ANSWER_BYTES = 64 * 1024 * 1024  # far beyond any chat answer; keeps one upstream from filling the memory
MAX_LIST_BYTES = 16 * 1024 * 1024  # far beyond any list of models
CONNECT_S = 10
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
        answer = self._exchange(provider, asked, api_key, deadline_s)
        wait_s = self._wait_s(answer)
        return judged(provider, operation, answer, model_is_configured=model_is_configured, wait_s=wait_s)

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
        name = provider.name
        headers = asked.headers | _credential(provider, api_key)
        url = provider.base_url.rstrip("/") + asked.path
        sent = self._http.stream(asked.method, url, content=asked.body, headers=headers)
        try:
            with total_deadline(deadline_s), sent as response:
                status, answered = response.status_code, _relayed(response.headers)
                content = _read(response, asked.max_answer_bytes)
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
        return UpstreamAnswer(status, answered, content)

    def _wait_s(self, answer: UpstreamAnswer) -> int | None:
        return retry_after_s(answer.headers.get("retry-after"), self._clock.now_ms())


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

"""OpenAI's protocol: OpenAI itself, and whatever else speaks it (vLLM, llama.cpp, Ollama's /v1, OpenRouter, …).

Source: https://platform.openai.com/docs/api-reference/chat/create
"""

import io
import json
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpcore
import httpx

from aiserver.clock import Clock
from aiserver.errors import (
    ProviderAuth,
    ProviderError,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
    UpstreamAnswer,
)
from aiserver.providers.provider import Provider
from aiserver.providers.transport import DeadlineBackend, Transport, total_deadline
from aiserver.wire import scan
from aiserver.wire.dates import retry_after_s

PATHS = {"chat.completions": "/chat/completions", "embeddings": "/embeddings", "responses": "/responses"}
RELAYED = ("content-type", "retry-after", "x-request-id", "x-should-retry")
RELAYED_PREFIX = "x-ratelimit-"
MAX_ANSWER_BYTES = 64 * 1024 * 1024  # far beyond any chat answer; keeps one upstream from filling the memory
CONNECT_S = 10
KEEP_ALIVE_S = 4  # under the 5 s of uvicorn, on which vLLM runs: no request is written into a dying connection
GATEWAY_TIMEOUTS = (504, 524)  # a proxy gave up on a provider that has the request
MAX_ERROR_BYTES = 1024 * 1024  # of an answer that is an error: more is cut, and so is no JSON
MAX_USAGE_BYTES = 2048  # kept with the job


def client() -> httpx.Client:
    """One HTTP client for all calls of a container; safe to share between threads. It keeps no cookies."""
    transport = Transport(DeadlineBackend(CONNECT_S), keep_alive_s=KEEP_ALIVE_S)
    none = CookieJar(DefaultCookiePolicy(allowed_domains=[]))  # one caller's would go out with another's request
    return httpx.Client(transport=transport, cookies=none, trust_env=False)


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
        ProviderAuth, ProviderRejected (other 4xx, final), ProviderError (5xx, or not JSON).
        """
        headers = {"content-type": "application/json"}
        if api_key:
            headers["authorization"] = f"Bearer {api_key}"
        if idempotency_key:
            headers["idempotency-key"] = idempotency_key
        url = provider.base_url.rstrip("/") + PATHS[operation]
        try:
            with total_deadline(deadline_s), self._http.stream("POST", url, content=body, headers=headers) as response:
                status, answered = response.status_code, _relayed(response.headers)
                content = _read(response)
        except (httpcore.ConnectError, httpcore.ConnectTimeout, httpcore.WriteError, httpcore.WriteTimeout) as error:
            raise ProviderUnavailable(f"Provider {provider.name} cannot be reached") from error
        except (httpcore.LocalProtocolError, UnicodeEncodeError):  # nothing was sent; its words would tell the key
            raise ProviderAuth(f"The key of provider {provider.name} cannot stand in a header") from None
        except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError, httpx.DecodingError) as error:
            raise ProviderTimeout(f"Provider {provider.name} did not answer in time", may_be_billed=True) from error
        except httpx.RemoteProtocolError as error:  # httpx looks where a redirect leads, though it is not followed
            raise ProviderError(f"Provider {provider.name} answered with a redirect to nowhere") from error
        answer = UpstreamAnswer(status, answered, content)
        wait_s = retry_after_s(answered.get("retry-after"), self._clock.now_ms())
        return _judge(provider, answer, model_is_configured, wait_s)


def _read(response: httpx.Response) -> bytes:
    content = io.BytesIO()  # its value is its buffer, not a copy
    for chunk in response.iter_bytes():
        content.write(chunk)
        if content.tell() > MAX_ANSWER_BYTES:
            raise ProviderError("The provider's answer is too large", may_be_billed=True)
        if content.tell() > MAX_ERROR_BYTES and not response.is_success:
            break
    return content.getvalue()


def _relayed(headers: httpx.Headers) -> dict[str, str]:
    return {k: v for k, v in headers.items() if k in RELAYED or k.startswith(RELAYED_PREFIX)}


def _judge(
    provider: Provider, answer: UpstreamAnswer, model_is_configured: bool, retry_after_s: int | None
) -> UpstreamAnswer:
    """The answer, if it is one. Raises: what it means otherwise."""
    status, told = answer.status, _Told(answer.body)
    if 200 <= status < 300:
        if not told.is_object:
            raise ProviderError(f"Provider {provider.name} answered something that is not JSON", may_be_billed=True)
        return UpstreamAnswer(status, answer.headers, answer.body, usage=told.usage)
    message = told.message or f"Provider {provider.name} answered status {status}"
    if status in (401, 402, 403) or (status == 404 and model_is_configured) or told.code == "insufficient_quota":
        raise ProviderAuth("The provider refused the gateway's own account or configuration", upstream_status=status)
    if status in GATEWAY_TIMEOUTS and not told.is_object:
        raise ProviderTimeout(message, upstream_status=status, may_be_billed=True)
    if not told.is_object or status < 400:
        kind = ProviderUnavailable if status == 503 else ProviderRateLimited if status == 429 else ProviderError
        said = f"Provider {provider.name} answered status {status} without JSON"
        raise kind(said, retry_after_s=retry_after_s, upstream_status=status)
    if status == 429:
        raise ProviderRateLimited(message, upstream=answer, retry_after_s=retry_after_s)
    if status == 503:
        raise ProviderUnavailable(message, upstream=answer, retry_after_s=retry_after_s)
    if status in GATEWAY_TIMEOUTS:
        raise ProviderTimeout(message, upstream=answer, may_be_billed=True)
    if status >= 500:
        raise ProviderError(message, upstream=answer, retry_after_s=retry_after_s)
    raise ProviderRejected(message, upstream=answer, code=told.code, param=told.param)


class _Told:
    """What an upstream's body says of itself: `error` as an object or a string, `detail`, or `message`."""

    def __init__(self, body: bytes) -> None:
        found = scan.members(body, "usage", "error", "detail", "message")
        self.is_object = found is not None
        found = found or {}
        usage = found.get("usage", b"")
        self.usage = usage.decode() if usage[:1] == b"{" and len(usage) <= MAX_USAGE_BYTES else None
        inner = scan.members(found.get("error", b""), "message", "code", "param") or {}
        said = (inner.get("message"), found.get("error"), found.get("detail"), found.get("message"))
        self.message = next((words for words in map(_string, said) if words), "")
        self.code = _string(inner.get("code")) or ""
        self.param = _string(inner.get("param"))


def _string(text: bytes | None) -> str | None:
    """What a JSON text says, if it is a string and no longer than an error can be."""
    return json.loads(text) if text and text[:1] == b'"' and len(text) <= MAX_ERROR_BYTES else None

"""OpenAI's protocol: OpenAI itself, and whatever else speaks it (the rows of catalogue.py, and others).

Source: https://platform.openai.com/docs/api-reference/chat/create
"""

import httpx

from aiserver.clock import Clock
from aiserver.errors import ProviderError, UpstreamAnswer
from aiserver.limits import MAX_LIST_BYTES
from aiserver.providers.http import Asked, open_stream, send
from aiserver.providers.openai_response import failure, judged, model_ids
from aiserver.providers.openai_stream import OpenAiEvents
from aiserver.providers.provider import Provider
from aiserver.providers.redaction import Redaction
from aiserver.providers.stream import Stream
from aiserver.wire.http_dates import retry_after_s
from aiserver.wire.upstream_body import with_usage, without_own

PATHS = {"chat.completions": "/chat/completions", "embeddings": "/embeddings", "responses": "/responses"}
MODELS_PATH = "/models"
JSON = {"content-type": "application/json"}


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

        But what is for other vendors only (wire/upstream_body.py) stays here.

        `deadline_s` is total wall time in seconds, from connecting to the last byte.

        Raises: ProviderUnavailable (nothing was sent), ProviderTimeout (sent, outcome unknown), ProviderRateLimited,
        ProviderAuth, ProviderRejected (other 4xx, final), ProviderError (5xx, not JSON, or 200 with an error).
        """
        headers = JSON | ({"idempotency-key": idempotency_key} if idempotency_key else {})
        asked = Asked("POST", PATHS[operation], api_key, without_own(body), headers)
        with Redaction(api_key).of_errors():
            answer = send(self._http, provider, asked, deadline_s=deadline_s)
            return self._judged(provider, operation, answer, model_is_configured)

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
        """Send one request and wait for the first event of its answer, or for a while once it has begun.

        `begin_s` is wall time in seconds until its head, `total_s` until its end. A server that knows how to is
        asked for its usage; the event that tells it is kept from a caller who did not ask.

        Raises: as `call`; ProviderTimeout, where it broke off before its first event.
        """
        ends_ms = self._clock.now_ms() + total_s * 1000
        own = without_own(body)
        asks = operation == "chat.completions" and provider.row.stream_usage
        sent = with_usage(own) if asks else own
        asked = Asked("POST", PATHS[operation], api_key, sent, JSON)
        redaction = Redaction(api_key)
        streamed = open_stream(self._http, provider, asked, begin_s=begin_s, total_s=total_s)
        with redaction.of_errors(), streamed as (head, pieces):
            if pieces is None:
                self._judged(provider, operation, head, model_is_configured)
                raise ProviderError(f"Provider {provider.name} did not stream its answer", may_be_billed=True)
            hides = sent is not own
            events = OpenAiEvents(provider, operation, hides_usage=hides, model_is_configured=model_is_configured)
            stream = Stream(provider.name, head.headers, pieces, events, redaction)
            stream.begin(self._clock, min(provider.timeout_s * 1000, ends_ms - self._clock.now_ms()))
        return stream

    def models(self, provider: Provider, *, api_key: str | None, deadline_s: float) -> list[str]:
        """The ids of the models that the provider lists, sorted, as a request would name them.

        Raises: what `call` raises; ProviderError where the answer is no list.
        """
        asked = Asked("GET", MODELS_PATH, api_key, max_answer_bytes=MAX_LIST_BYTES)
        with Redaction(api_key).of_errors():
            answer = send(self._http, provider, asked, deadline_s=deadline_s)
            if not answer.is_success:
                raise failure(provider, answer, model_is_configured=False, wait_s=self._wait_s(answer))
            return model_ids(provider, answer)

    def _judged(
        self, provider: Provider, operation: str, answer: UpstreamAnswer, model_is_configured: bool
    ) -> UpstreamAnswer:
        wait_s = self._wait_s(answer)
        return judged(provider, operation, answer, model_is_configured=model_is_configured, wait_s=wait_s)

    def _wait_s(self, answer: UpstreamAnswer) -> int | None:
        return retry_after_s(answer.headers.get("retry-after"), self._clock.now_ms())

"""Client for OpenAI's protocol: OpenAI, the compatible presets of catalogue.py, and other compatible servers.

Source: https://platform.openai.com/docs/api-reference/chat/create
"""

import httpx

from aiserver.clock import Clock
from aiserver.errors import ProviderError, ProviderResponse
from aiserver.limits import MAX_LIST_BYTES
from aiserver.providers.adapters.openai.errors import check_response, map_error, parse_model_ids
from aiserver.providers.adapters.openai.stream import OpenAiEventMapper
from aiserver.providers.http import ProviderRequest, open_stream, send
from aiserver.providers.provider import Provider
from aiserver.providers.redaction import Redaction
from aiserver.providers.stream import ProviderStream
from aiserver.wire.http_dates import retry_after_s
from aiserver.wire.upstream_body import with_usage, without_vendor_members

PATHS = {"chat.completions": "/chat/completions", "embeddings": "/embeddings", "responses": "/responses"}
MODELS_PATH = "/models"
JSON = {"content-type": "application/json"}


class OpenAiClient:
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
        timeout_s: float,
    ) -> ProviderResponse:
        """Send one request and wait for the complete response. Request and response bodies are passed byte for byte.

        Only members for other vendors are removed from the request (wire/upstream_body.py).
        `timeout_s` is total wall time in seconds, from connecting to the last byte.

        Raises: ProviderUnavailable (nothing was sent), ProviderTimeout (sent, outcome unknown), ProviderRateLimited,
        ProviderAuth, ProviderRejected (other 4xx, final), ProviderError (5xx, not JSON, or 200 with an error).
        """
        headers = JSON | ({"idempotency-key": idempotency_key} if idempotency_key else {})
        request = ProviderRequest("POST", PATHS[operation], api_key, without_vendor_members(body), headers)
        with Redaction(api_key).redact_errors():
            response = send(self._http, provider, request, timeout_s=timeout_s)
            return self._check_response(provider, operation, response, model_is_configured)

    def stream(
        self,
        provider: Provider,
        operation: str,
        body: bytes,
        *,
        api_key: str | None,
        model_is_configured: bool,
        head_timeout_s: float,
        total_timeout_s: float,
    ) -> ProviderStream:
        """Send one request; wait for the response head, then a limited time for the first event.

        `head_timeout_s` is wall time in seconds until the response head, `total_timeout_s` until its end.
        Usage is requested from servers that support it; its event is hidden from callers that did not request it.

        Raises: as `call`; ProviderTimeout, when the stream ended before its first event.
        """
        deadline_ms = self._clock.now_ms() + total_timeout_s * 1000
        caller_body = without_vendor_members(body)
        requests_usage = operation == "chat.completions" and provider.catalogue_preset.stream_usage
        upstream_body = with_usage(caller_body) if requests_usage else caller_body
        request = ProviderRequest("POST", PATHS[operation], api_key, upstream_body, JSON)
        redaction = Redaction(api_key)
        streamed = open_stream(
            self._http, provider, request, head_timeout_s=head_timeout_s, total_timeout_s=total_timeout_s
        )
        with redaction.redact_errors(), streamed as (head, batches):
            if batches is None:
                self._check_response(provider, operation, head, model_is_configured)
                raise ProviderError(f"Provider {provider.name}: the response is not a stream", may_be_billed=True)
            hides_usage = upstream_body is not caller_body
            events = OpenAiEventMapper(
                provider, operation, hides_usage=hides_usage, model_is_configured=model_is_configured
            )
            stream = ProviderStream(provider.name, head.headers, batches, events, redaction)
            stream.await_first_event(self._clock, min(provider.timeout_s * 1000, deadline_ms - self._clock.now_ms()))
        return stream

    def list_models(self, provider: Provider, *, api_key: str | None, timeout_s: float) -> list[str]:
        """Return the sorted ids of the models that the provider lists, in the form that requests use.

        Raises: as `call`; ProviderError, when the response is not a list of models.
        """
        request = ProviderRequest("GET", MODELS_PATH, api_key, max_response_bytes=MAX_LIST_BYTES)
        with Redaction(api_key).redact_errors():
            response = send(self._http, provider, request, timeout_s=timeout_s)
            if not response.is_success:
                wait_s = self._retry_after_s(response)
                raise map_error(provider, response, model_is_configured=False, retry_after_s=wait_s)
            return parse_model_ids(provider, response)

    def _check_response(
        self, provider: Provider, operation: str, response: ProviderResponse, model_is_configured: bool
    ) -> ProviderResponse:
        wait_s = self._retry_after_s(response)
        return check_response(
            provider, operation, response, model_is_configured=model_is_configured, retry_after_s=wait_s
        )

    def _retry_after_s(self, response: ProviderResponse) -> int | None:
        return retry_after_s(response.headers.get("retry-after"), self._clock.now_ms())

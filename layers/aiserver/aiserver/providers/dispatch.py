"""Sends one call to one upstream, complete or as a stream, and lists a provider's models."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain

import httpx

from aiserver.clock import Clock, Deadline
from aiserver.errors import ProviderError
from aiserver.limits import MAX_LIST_BYTES
from aiserver.operations import ResponseKind
from aiserver.providers import http
from aiserver.providers.adapters.base.adapter import DECODE_ERRORS, Exchange
from aiserver.providers.call import ProviderCall, Upstream
from aiserver.providers.redaction import Redaction
from aiserver.providers.registry import AdapterRegistry
from aiserver.providers.response import ProviderResponse
from aiserver.providers.stream import (
    ByteCounter,
    ProviderStream,
    keep_alive,
    map_events,
    read_first_bytes,
    read_first_event,
    relay_bytes,
    split_events,
)
from aiserver.wire.media_types import is_event_stream

MAX_PAGES = 20  # of a list of models


class Dispatcher:
    """Calls providers of all types over one HTTP client."""

    def __init__(self, client: httpx.Client, adapters: AdapterRegistry, clock: Clock) -> None:
        self._client = client
        self._adapters = adapters
        self._clock = clock

    def check(self, upstream: Upstream, call: ProviderCall) -> None:
        """Raises: InvalidRequest, when the provider's protocol does not support a field of the request."""
        self._adapters.check(upstream, call)

    def send(self, upstream: Upstream, call: ProviderCall) -> ProviderResponse:
        """Return the complete response, in OpenAI's format.

        Raises: ProviderUnavailable (nothing was sent), ProviderTimeout (sent, outcome unknown), ProviderRateLimited,
        ProviderAuth, ProviderRejected (other 4xx, final), ProviderError (5xx, or no valid response).
        """
        exchange = self._prepare(upstream, call)
        timeout_s = self._timeout_s(upstream, call.begin_deadline)
        with Redaction(upstream.api_key).redact_errors():
            return exchange.map_response(
                http.send(self._client, upstream.provider, exchange.request, timeout_s=timeout_s)
            )

    @contextmanager
    def open_stream(self, upstream: Upstream, call: ProviderCall) -> Generator[ProviderStream | ProviderResponse]:
        """Yield the stream once its first event has arrived, or a limited time after its head.

        A complete response is yielded where a provider may send one instead of a stream (media only).
        The connection ends with the `with` block. Raises: as `send`, also when the events are iterated;
        ProviderTimeout, when the stream ends before its first event.
        """
        exchange, provider = self._prepare(upstream, call), upstream.provider
        redaction = Redaction(upstream.api_key)
        timeouts = http.StreamTimeouts(
            head_s=self._timeout_s(upstream, call.begin_deadline),
            total_s=call.deadline.remaining_s(self._clock),
            idle_s=provider.timeout_s,
        )
        opened = http.open_stream(self._client, provider, exchange.request, timeouts)
        with redaction.redact_errors(), opened as response:
            if response.chunks is None:
                complete_response = exchange.map_response(response.head)
                if not call.operation.is_media:
                    raise ProviderError(f"Provider {provider.name}: the response is not a stream", may_be_billed=True)
                yield complete_response
                return
            mapper = exchange.create_event_mapper()
            if _is_file(call, response.head):
                counter = ByteCounter(mapper.usage)
                chunks = relay_bytes(response.chunks, counter, provider.name)
                timeout_ms = self._timeout_s(upstream, call.begin_deadline) * 1000
                first_bytes = read_first_bytes(chunks, self._clock, timeout_ms, provider.name)
                headers = response.head.headers
                yield ProviderStream(headers, chain([first_bytes], chunks), counter, has_events=False)
                return
            vendor_events = (exchange.decode_frames or split_events)(response.chunks, provider.name)
            can_end_with_connection = call.operation.is_media
            events = map_events(
                vendor_events, mapper, provider.name, redaction, can_end_with_connection=can_end_with_connection
            )
            timeout_ms = min(provider.timeout_s, call.deadline.remaining_s(self._clock)) * 1000
            first = read_first_event(events, self._clock, timeout_ms, provider.name)
            headers = response.head.headers
            if mapper.request_id:
                headers = {"x-request-id": mapper.request_id} | headers
            received = [event for event in first if event] or [None]  # no ping before an event that has arrived
            yield ProviderStream(headers, keep_alive(chain(received, events), self._clock), mapper)

    def list_models(self, upstream: Upstream, *, timeout_s: float) -> list[str]:
        """Return the sorted ids of the models that the provider lists, in the form that requests use.

        Raises: as `send`; ProviderError, when the response is not a list of models.
        """
        provider, adapter = upstream.provider, self._adapters.adapter_for(upstream.provider.type)
        assert adapter.model_pages  # the provider's catalogue preset has a model list
        ids: set[str] = set()
        page_token: str | None = None
        for _ in range(MAX_PAGES):
            request = adapter.model_pages.build_request(page_token)
            request = replace(request, api_key=upstream.api_key, max_response_bytes=MAX_LIST_BYTES)
            with Redaction(upstream.api_key).redact_errors():
                response = http.send(self._client, provider, request, timeout_s=timeout_s)
                if not response.is_success:
                    raise adapter.map_error(upstream, response)
            try:
                page_ids, page_token = adapter.model_pages.parse(response.body)
            except DECODE_ERRORS:
                raise ProviderError(f"Provider {provider.name}: the response is not a list of models") from None
            ids.update(id.removeprefix(provider.catalogue_preset.id_prefix) for id in page_ids)
            if page_token is None:
                break
        return sorted(ids)

    def _prepare(self, upstream: Upstream, call: ProviderCall) -> Exchange:
        return self._adapters.adapter_for(upstream.provider.type).prepare(upstream, call)

    def _timeout_s(self, upstream: Upstream, deadline: Deadline) -> float:
        return min(deadline.remaining_s(self._clock), upstream.provider.timeout_s)


def _is_file(call: ProviderCall, head: ProviderResponse) -> bool:
    """Whether a streamed response is a file, by its content type: some servers ignore a request for events."""
    return call.operation.response is ResponseKind.BYTES and not is_event_stream(head.content_type)

"""The stages of a streamed response. dispatch.open_stream composes them:

    read_ahead -> split_events -> map_events -> keep_alive -> http_api
    read_ahead -> relay_bytes -> http_api                                (an audio file)

Each stage is a generator over the stage before it. None means in every stage: nothing to pass on yet. The stages of
this module close none: the connection belongs to the `with` block of dispatch.open_stream.

Vendors differ only in their events: a new vendor needs one EventMapper (tests/providers/toy.py is an example).
"""

import re
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from aiserver.clock import Clock
from aiserver.errors import ProviderError, ProviderTimeout
from aiserver.limits import MAX_EVENT_BYTES, MAX_RESPONSE_BYTES
from aiserver.providers.error_message import extract_message
from aiserver.providers.redaction import Redaction
from aiserver.wire import json_scan, sse

FIRST_EVENT_TIMEOUT_MS = 15_000  # after the response head; then the client receives a ping
JSON = (b"{", b"[")
NO_REDACTION = Redaction(None)
_TYPE = re.compile(rb'"type"\s*:')
NON_EVENT_PREFIXES = (*JSON, b"<")  # first bytes of a body that is not an event stream, whatever its content type


class EventMapper(Protocol):
    """Maps a vendor's events. `usage` is the JSON text of the call's usage in OpenAI's format, if the vendor sent it.

    `content_events` counts the events with content: an estimate of the tokens when the stream ends early.
    `is_complete`: the response is complete. `is_done`: no further event matters.
    `request_id` is set after the first event, where the vendor's events contain it.
    """

    @property
    def usage(self) -> str | None: ...
    @property
    def content_events(self) -> int: ...
    @property
    def is_complete(self) -> bool: ...
    @property
    def is_done(self) -> bool: ...
    @property
    def request_id(self) -> str | None: ...

    def on_event(self, event: bytes) -> bytes:
        """Return the client events for one event of the vendor, or b"". Raises: ProviderError."""
        ...

    def on_end(self) -> bytes:
        """Return the client events for the end of a complete response without a final event of the vendor."""
        ...


@dataclass(frozen=True)
class ProviderStream:
    """A response that has begun. `events` are the events and pings for the caller.

    They raise: ProviderError, when the provider sends an error; ProviderTimeout, when the response is incomplete.
    After a complete response, a broken connection is no error.
    `has_events` is False for bytes: nothing may be added to them, neither pings nor errors.
    """

    headers: dict[str, str]
    events: Iterator[bytes | None]
    mapper: EventMapper
    has_events: bool = True


def split_events(batches: Iterator[list[bytes] | None], provider: str) -> Generator[list[bytes] | None]:
    """Yield the events that each batch of chunks completes, byte for byte; at the end an IncompleteEvent.

    Raises: ProviderError, when an event is larger than MAX_EVENT_BYTES; errors of `batches`.
    """
    splitter = sse.EventSplitter()
    try:
        for chunks in batches:
            yield splitter.split(b"".join(chunks or ())) or None
            if len(splitter.buffer) > MAX_EVENT_BYTES:
                raise _event_too_large(provider)
    except ProviderError:
        if splitter.buffer:
            yield [sse.IncompleteEvent(splitter.buffer)]
        raise
    if splitter.buffer:
        yield [sse.IncompleteEvent(splitter.buffer)]


def map_events(
    batches: Iterator[list[bytes] | None],
    mapper: EventMapper,
    provider: str,
    redaction: Redaction = NO_REDACTION,
    *,
    can_end_with_connection: bool = False,
) -> Generator[bytes | None]:
    """Yield the client events for the events of the provider, and detect responses that are incomplete or no events.

    `redaction` masks the provider's API key in events and errors. `can_end_with_connection`: a response whose events
    have no `type` is complete when the connection ends. Raises: ProviderError.
    """
    response = _MappedResponse(mapper, provider, redaction, can_end_with_connection)
    with redaction.redact_errors():
        for events in response.until_error(batches):
            client_events: list[bytes] = []
            try:
                response.map_batch(events or [], client_events)
            except ProviderError:
                if any(client_events):
                    yield b"".join(client_events)
                raise
            yield b"".join(client_events) or None
            if mapper.is_done:
                with suppress(ProviderError):  # read the end of the body, so that the connection can be reused
                    next(batches, None)
                return
        yield response.finish() or None


class ByteCounter:
    """The EventMapper of a response that is relayed as bytes, such as an audio file: it has no events."""

    def __init__(self, usage: str | None) -> None:
        self.usage = usage
        self.content_events = 0
        self.is_complete = self.is_done = False
        self.request_id: str | None = None

    def on_event(self, event: bytes) -> bytes:
        return event

    def on_end(self) -> bytes:
        return b""


def relay_bytes(batches: Iterator[list[bytes] | None], counter: ByteCounter, provider: str) -> Generator[bytes | None]:
    """Yield the bytes of a response as they arrive. Nothing is added to them.

    Raises: errors of `batches`; ProviderError, when the response is empty or larger than MAX_RESPONSE_BYTES.
    """
    size = 0
    for chunks in batches:
        data = b"".join(chunks or ())
        size += len(data)
        if size > MAX_RESPONSE_BYTES:
            raise ProviderError(f"Provider {provider}: the response is too large", may_be_billed=True)
        counter.content_events += bool(data)
        yield data or None
    if not size:
        raise ProviderError(f"Provider {provider}: the response is empty", may_be_billed=True)
    counter.is_complete = counter.is_done = True


def read_first_bytes(chunks: Iterator[bytes | None], clock: Clock, timeout_ms: float, provider: str) -> bytes:
    """Read until the first bytes; until then, failover to another provider is possible.

    Raises: errors of `chunks`; ProviderTimeout, when none was received within `timeout_ms`.
    """
    deadline_ms = clock.now_ms() + timeout_ms
    for data in chunks:
        if data:
            return data
        if clock.now_ms() >= deadline_ms:
            raise ProviderTimeout(f"Provider {provider}: no response within the time limit", may_be_billed=True)
    return b""


def keep_alive(events: Iterator[bytes | None], clock: Clock) -> Generator[bytes | None]:
    """Yield the events, and a ping when nothing was sent for PING_MS, or at all."""
    ping_at = clock.now_ms()
    for event in events:
        if not event and clock.now_ms() < ping_at:
            yield None
        else:
            yield event or sse.PING
            ping_at = clock.now_ms() + sse.PING_MS


def read_first_event(
    events: Iterator[bytes | None], clock: Clock, timeout_ms: float, provider: str
) -> list[bytes | None]:
    """Read until the first event with data, for FIRST_EVENT_TIMEOUT_MS or `timeout_ms`, whichever is less.

    Until then, failover to another provider is possible. Comments do not count as events.

    Raises: errors of `events`; ProviderTimeout, when no event was received within `timeout_ms`.
    """
    deadline_ms = clock.now_ms() + min(FIRST_EVENT_TIMEOUT_MS, timeout_ms)
    received: list[bytes | None] = []
    size = 0
    for event in events:
        received.append(event)
        size += len(event or b"")
        if has_event([event]):
            return received
        if size > MAX_EVENT_BYTES:
            raise ProviderError(f"Provider {provider}: the stream contains only comments", may_be_billed=True)
        if clock.now_ms() >= deadline_ms:
            break
    else:
        return received
    if timeout_ms <= FIRST_EVENT_TIMEOUT_MS:
        raise ProviderTimeout(f"Provider {provider}: no response within the time limit", may_be_billed=True)
    return received


def has_event(received: list[bytes | None]) -> bool:
    """Whether one of the items contains an event with data, and not only comments."""
    return any(sse.event_data(item or b"") for item in received)


class _MappedResponse:
    """The mapping of one response, with what is known of a response that is not a complete event stream."""

    def __init__(self, mapper: EventMapper, provider: str, redaction: Redaction, can_end_with_connection: bool) -> None:
        self._mapper = mapper
        self._can_end_with_connection = can_end_with_connection
        self._provider = provider
        self._redaction = redaction
        self._has_events = False
        self._other_body = bytearray()  # a body without events: a response or an error, as JSON or HTML
        self._incomplete_event = b""
        self._first_ignored_data = b""  # the data of the first event without content
        self._read_error: ProviderError | None = None

    def until_error(self, batches: Iterator[list[bytes] | None]) -> Generator[list[bytes] | None]:
        """The batches; an error that ends the connection is kept, because the response may be complete."""
        try:
            for events in batches:  # noqa: UP028  `yield from` would close `batches`
                yield events
        except ProviderError as error:
            self._read_error = error

    def map_batch(self, events: list[bytes], client_events: list[bytes]) -> None:
        """Append the client events of these events. Raises: ProviderError."""
        for upstream_event in events:
            event = self._redaction.mask(upstream_event)
            if isinstance(upstream_event, sse.IncompleteEvent):
                self._incomplete_event = event
                return
            self._has_events = self._has_events or bool(sse.event_data(event))
            if not self._has_events and (self._other_body or event.lstrip()[:1] in NON_EVENT_PREFIXES):
                self._add_other_body(event)
                continue
            self._can_end_with_connection = self._can_end_with_connection and not _TYPE.search(event)
            client_events.append(self._mapper.on_event(_wrap_bare_json(event)))
            if not (client_events[-1] or self._first_ignored_data):
                self._first_ignored_data = sse.event_data(event)
            if self._mapper.is_done:
                return

    def _add_other_body(self, text: bytes) -> None:
        self._other_body += text
        if len(self._other_body) > MAX_EVENT_BYTES:
            raise _event_too_large(self._provider)

    def finish(self) -> bytes:
        """Return the client events for the end of the stream: the last event may lack its blank line.

        Raises: ProviderError, when the response is incomplete.
        """
        if not self._has_events and not self._mapper.content_events:
            self._raise_for_body(bytes(self._other_body + self._incomplete_event))
        event = _wrap_bare_json(self._incomplete_event + b"\n\n")
        data = sse.event_data(event)
        is_event = data.strip() == sse.DONE or json_scan.find_members(data) is not None
        client_events = self._mapper.on_event(event) if is_event else b""
        is_cut = bool(self._read_error or (data.strip() and not is_event))
        ended_with_connection = self._can_end_with_connection and self._has_events and not is_cut
        if not self._mapper.is_complete and not ended_with_connection:
            raise self._incomplete_error()
        return client_events if self._mapper.is_done else client_events + self._mapper.on_end()

    def _raise_for_body(self, text: bytes) -> None:
        """Raises: ProviderError, where the body is JSON or text instead of events."""
        is_json = text.lstrip()[:1] in JSON
        if self._read_error and not (is_json and _is_json_object(text)):
            raise self._read_error
        if is_json:
            self._mapper.on_event(sse.format_event(text))
        elif len(text.strip()) <= sse.MAX_PREFIX_BYTES or sse.starts_with_field(text):
            return  # empty, comments, or an incomplete event
        message = extract_message(text) or f"Provider {self._provider}: the response is not a stream"
        raise ProviderError(message, may_be_billed=True)

    def _incomplete_error(self) -> ProviderError:
        has_no_content = self._first_ignored_data and not self._mapper.content_events
        if has_no_content and (message := extract_message(self._first_ignored_data)):
            return ProviderError(message, may_be_billed=True)
        message = f"Provider {self._provider}: the stream ended before the response was complete"
        return self._read_error or ProviderTimeout(message, may_be_billed=True)


def _event_too_large(provider: str) -> ProviderError:
    return ProviderError(f"Provider {provider}: an event of the stream is too large", may_be_billed=True)


def _wrap_bare_json(event: bytes) -> bytes:
    """Wrap bare JSON as an event: some servers write an error without event framing into a running stream."""
    text = event.strip()
    return sse.format_event(text) if text[:1] in JSON and _is_json_object(text) else event


def _is_json_object(text: bytes) -> bool:
    return json_scan.find_members(json_scan.unwrap_single(text)) is not None

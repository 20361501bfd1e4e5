"""A streamed response: maps the vendor's events to OpenAI's and detects incomplete streams.

Vendors differ only in their events: a new vendor needs one EventMapper (tests/providers/toy.py is an example).
"""

from collections.abc import Generator
from contextlib import suppress
from typing import Protocol

from aiserver.clock import Clock
from aiserver.errors import ProviderError, ProviderTimeout
from aiserver.limits import MAX_EVENT_BYTES
from aiserver.providers.error_message import extract_message
from aiserver.providers.redaction import Redaction
from aiserver.wire import json_scan, sse

FIRST_EVENT_TIMEOUT_MS = 15_000  # after the response head; then the client receives a ping
JSON = (b"{", b"[")
NO_REDACTION = Redaction(None)
NON_EVENT_PREFIXES = (*JSON, b"<")  # first bytes of a body that is not an event stream, whatever its content type


class EventMapper(Protocol):
    """Maps a vendor's events. `usage` is the JSON text of the call's usage in OpenAI's format, if the vendor sent it.

    `content_events` counts the events with content: an estimate of the tokens when the stream ends early.
    `is_complete`: the response is complete. `is_done`: no further event matters.
    """

    @property
    def usage(self) -> str | None: ...
    @property
    def content_events(self) -> int: ...
    @property
    def is_complete(self) -> bool: ...
    @property
    def is_done(self) -> bool: ...

    def on_event(self, event: bytes) -> bytes:
        """Return the client events for one event of the vendor, or b"". Raises: ProviderError."""
        ...

    def on_end(self) -> bytes:
        """Return the client events for the end of a complete response without a final event of the vendor."""
        ...


class ProviderStream:
    """A response that has begun: iterate once, then close. None: nothing was received for half a second.

    b"": an upstream event that produced no client event. Raises, when iterated: ProviderError, when the provider sends
    an error; ProviderTimeout, when the response is incomplete. After a complete response, a broken connection is no
    error. `redaction` masks the provider's API key in events and errors.
    """

    def __init__(
        self,
        name: str,
        headers: dict[str, str],
        batches: Generator[list[bytes]],
        mapper: EventMapper,
        redaction: Redaction = NO_REDACTION,
    ) -> None:
        self.headers = headers
        self.mapper = mapper
        self.has_first_event = False  # comments do not count
        self._name = name
        self._batches = batches
        self._redaction = redaction
        self._events = self._mask()
        self._first: list[bytes] = []
        self._splitter = sse.EventSplitter()
        self._has_events = False
        self._text = bytearray()  # a body without events: a response or an error, as JSON or HTML
        self._first_ignored_data = b""  # the data of the first event without content
        self._read_error: ProviderError | None = None  # the error that ended the connection early

    def await_first_event(self, clock: Clock, timeout_ms: float) -> None:
        """Wait for the first event with data, for FIRST_EVENT_TIMEOUT_MS or `timeout_ms`, whichever is less.

        Until then, failover to another provider is possible.

        Raises: as iteration does; ProviderTimeout, when no event was received within `timeout_ms`.
        """
        deadline_ms = clock.now_ms() + min(FIRST_EVENT_TIMEOUT_MS, timeout_ms)
        size = 0
        while not self.has_first_event and clock.now_ms() < deadline_ms:
            events = next(self._events, b"") or b""
            self._first.append(events)
            self.has_first_event = bool(sse.event_data(events))
            size += len(events)
            if size > MAX_EVENT_BYTES and not self.has_first_event:
                raise ProviderError(f"Provider {self._name}: the stream contains only comments", may_be_billed=True)
        if not self.has_first_event and timeout_ms <= FIRST_EVENT_TIMEOUT_MS:
            raise ProviderTimeout(f"Provider {self._name}: no response within the time limit", may_be_billed=True)

    def __iter__(self) -> Generator[bytes | None]:
        if first := b"".join(self._first):
            yield first
        yield from self._events

    def close(self) -> None:
        self._events.close()
        self._batches.close()

    def _mask(self) -> Generator[bytes | None]:
        with self._redaction.redact_errors():
            yield from self._map_events()

    def _map_events(self) -> Generator[bytes | None]:
        for chunks in self._read_batches():
            client_events: list[bytes] = []
            try:
                self._map_chunk(b"".join(chunks), client_events)
            except ProviderError:
                if any(client_events):
                    yield b"".join(client_events)
                raise
            if len(self._splitter.buffer) + len(self._text) > MAX_EVENT_BYTES:
                raise ProviderError(f"Provider {self._name}: an event of the stream is too large", may_be_billed=True)
            yield b"".join(client_events) if chunks else None
            if self.mapper.is_done:
                with suppress(ProviderError):  # read the end of the body, so that the connection can be reused
                    next(self._batches, None)
                return
        if not self._has_events and not self.mapper.content_events:
            self._raise_for_body(self._redaction.mask(bytes(self._text + self._splitter.buffer)))
        yield self._finish()

    def _read_batches(self) -> Generator[list[bytes]]:
        try:
            yield from self._batches
        except ProviderError as error:
            self._read_error = error

    def _map_chunk(self, chunk: bytes, output: list[bytes]) -> None:
        """Append the client events for the upstream events that this chunk completes."""
        for upstream_event in self._splitter.split(chunk):
            event = self._redaction.mask(upstream_event)
            self._has_events = self._has_events or bool(sse.event_data(event))
            if not self._has_events and (self._text or event.lstrip()[:1] in NON_EVENT_PREFIXES):
                self._text += event
                continue
            output.append(self.mapper.on_event(_wrap_bare_json(event)))
            if not (output[-1] or self._first_ignored_data):
                self._first_ignored_data = sse.event_data(event)
            if self.mapper.is_done:
                return

    def _raise_for_body(self, text: bytes) -> None:
        """Raises: ProviderError, where the body is JSON or text instead of events."""
        is_json = text.lstrip()[:1] in JSON
        if self._read_error and not (is_json and json_scan.find_members(json_scan.unwrap_single(text)) is not None):
            raise self._read_error
        if is_json:
            self.mapper.on_event(sse.format_event(text))
        elif len(text.strip()) <= sse.MAX_PREFIX_BYTES or sse.starts_with_field(text):
            return  # empty, comments, or an incomplete event
        message = extract_message(text) or f"Provider {self._name}: the response is not a stream"
        raise ProviderError(message, may_be_billed=True)

    def _finish(self) -> bytes:
        """Return the client events for the last upstream event, which may lack its blank line.

        Raises: ProviderError, when the response is incomplete.
        """
        event = _wrap_bare_json(self._redaction.mask(bytes(self._splitter.buffer)) + b"\n\n")
        data = sse.event_data(event)
        is_event = data.strip() == sse.DONE or json_scan.find_members(data) is not None
        client_events = self.mapper.on_event(event) if is_event else b""
        if not self.mapper.is_complete:
            if (
                self._first_ignored_data
                and not self.mapper.content_events
                and (message := extract_message(self._first_ignored_data))
            ):
                raise ProviderError(message, may_be_billed=True)
            message = f"Provider {self._name}: the stream ended before the response was complete"
            raise self._read_error or ProviderTimeout(message, may_be_billed=True)
        return client_events if self.mapper.is_done else client_events + self.mapper.on_end()


def _wrap_bare_json(event: bytes) -> bytes:
    """Wrap bare JSON as an event: some servers write an error without event framing into a running stream."""
    text = event.strip()
    return (
        sse.format_event(text)
        if text[:1] in JSON and json_scan.find_members(json_scan.unwrap_single(text)) is not None
        else event
    )

"""An answer that comes event by event: the vendor's events in, OpenAI's out, and a cut told from an end.

Vendors differ in how they speak, and nothing else: a Translation is all that one needs (tests/providers/toy.py is one).
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

FIRST_EVENT_TIMEOUT_MS = 15_000  # for the first event of an answer that has begun; then its caller hears a ping
JSON = (b"{", b"[")
NO_REDACTION = Redaction(None)
NON_EVENT_PREFIXES = (*JSON, b"<")  # how a body begins that is not events, whatever its content-type


class EventMapper(Protocol):
    """What a vendor's events mean. `usage` is the JSON text of what the call used, in OpenAI's words, where it told.

    `pieces` counts the events that held some of the answer: what is known of its tokens when it breaks off.
    `is_whole` is whether the answer is complete, `is_over` whether nothing comes any more that matters.
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
        """The events that our caller gets for this one of the vendor's, or nothing. Raises: ProviderError."""
        ...

    def on_end(self) -> bytes:
        """The events that our caller gets when a whole answer ends that is not over by its own word."""
        ...


class ProviderStream:
    """An answer that has begun: iterate once, and close it. None means that nothing has come for half a second.

    b"" means that something has come of which nothing is told. Raises, when iterated: ProviderError, where the provider
    says so; ProviderTimeout, where the answer broke off. One that is complete ends well, however its connection does.
    `redaction` masks in events and errors what no caller may see.
    """

    def __init__(
        self,
        name: str,
        headers: dict[str, str],
        pieces: Generator[list[bytes]],
        mapper: EventMapper,
        redaction: Redaction = NO_REDACTION,
    ) -> None:
        self.headers = headers
        self.mapper = mapper
        self.has_first_event = False  # whether it began with an event; comments are none
        self._name = name
        self._pieces = pieces
        self._redaction = redaction
        self._events = self._mask()
        self._first: list[bytes] = []
        self._splitter = sse.EventSplitter()
        self._has_events = False
        self._text = bytearray()  # what came instead of events: an answer, or an error, in JSON or as a page
        self._first_ignored_data = b""  # the data of the first event that held none of the answer
        self._read_error: ProviderError | None = None  # how the connection ended, where that was too soon

    def await_first_event(self, clock: Clock, timeout_ms: float) -> None:
        """Wait for the first event that says something, or for PATIENCE_MS, or less where the caller has less.

        Till then another provider may be asked. Raises: what iterating raises; ProviderTimeout, where all of the
        caller's patience was not enough.
        """
        late = clock.now_ms() + min(FIRST_EVENT_TIMEOUT_MS, timeout_ms)
        size = 0
        while not self.has_first_event and clock.now_ms() < late:
            events = next(self._events, b"") or b""
            self._first.append(events)
            self.has_first_event = bool(sse.event_data(events))
            size += len(events)
            if size > MAX_EVENT_BYTES and not self.has_first_event:
                raise ProviderError(f"Provider {self._name} sent comments without end", may_be_billed=True)
        if not self.has_first_event and timeout_ms <= FIRST_EVENT_TIMEOUT_MS:
            raise ProviderTimeout(f"Provider {self._name} did not answer in time", may_be_billed=True)

    def __iter__(self) -> Generator[bytes | None]:
        if first := b"".join(self._first):
            yield first
        yield from self._events

    def close(self) -> None:
        self._events.close()
        self._pieces.close()

    def _mask(self) -> Generator[bytes | None]:
        with self._redaction.redact_errors():
            yield from self._map_events()

    def _map_events(self) -> Generator[bytes | None]:
        for pieces in self._read_pieces():
            told: list[bytes] = []
            try:
                self._map_piece(b"".join(pieces), told)
            except ProviderError:
                if any(told):
                    yield b"".join(told)
                raise
            if len(self._splitter.rest) + len(self._text) > MAX_EVENT_BYTES:
                raise ProviderError(f"Provider {self._name} sent an event that is too large", may_be_billed=True)
            yield b"".join(told) if pieces else None
            if self.mapper.is_done:
                with suppress(ProviderError):  # its connection can be used again once its end has come
                    next(self._pieces, None)
                return
        if not self._has_events and not self.mapper.content_events:
            self._raise_for_body(self._redaction.mask(bytes(self._text + self._splitter.rest)))
        yield self._finish()

    def _read_pieces(self) -> Generator[list[bytes]]:
        try:
            yield from self._pieces
        except ProviderError as error:
            self._read_error = error

    def _map_piece(self, piece: bytes, output: list[bytes]) -> None:
        """Append the client events for the upstream events that this piece completes."""
        for whole in self._splitter.split(piece):
            event = self._redaction.mask(whole)
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
        elif len(text.strip()) <= sse.MAX_PREFIX_BYTES or sse.starts_with_field(
            text
        ):  # nothing, comments, or half an event
            return
        words = extract_message(text)
        raise ProviderError(words or f"Provider {self._name} did not stream its answer", may_be_billed=True)

    def _finish(self) -> bytes:
        """The client events for the last upstream event, which may lack its blank line.

        Raises: ProviderError, where the stream broke off.
        """
        event = _wrap_bare_json(self._redaction.mask(bytes(self._splitter.rest)) + b"\n\n")
        data = sse.event_data(event)
        is_event = data.strip() == sse.DONE or json_scan.find_members(data) is not None
        told = self.mapper.on_event(event) if is_event else b""
        if not self.mapper.is_complete:
            if (
                self._first_ignored_data
                and not self.mapper.content_events
                and (words := extract_message(self._first_ignored_data))
            ):
                raise ProviderError(words, may_be_billed=True)
            raise self._read_error or ProviderTimeout(f"Provider {self._name} broke off its answer", may_be_billed=True)
        return told if self.mapper.is_done else told + self.mapper.on_end()


def _wrap_bare_json(event: bytes) -> bytes:
    """JSON among events as one of them: an error, which some servers write bare into a stream that has begun."""
    text = event.strip()
    return (
        sse.format_event(text)
        if text[:1] in JSON and json_scan.find_members(json_scan.unwrap_single(text)) is not None
        else event
    )

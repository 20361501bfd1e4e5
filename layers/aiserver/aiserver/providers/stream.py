"""An answer that comes event by event: the vendor's events in, OpenAI's out, and a cut told from an end.

Vendors differ in how they speak, and nothing else: a Translation is all that one needs (tests/providers/toy.py is one).
"""

from collections.abc import Generator
from contextlib import suppress
from typing import Protocol

from aiserver.clock import Clock
from aiserver.errors import ProviderError, ProviderTimeout
from aiserver.limits import MAX_EVENT_BYTES
from aiserver.providers.error_message import reason
from aiserver.providers.redaction import Redaction
from aiserver.wire import json_scan, sse

PATIENCE_MS = 15_000  # for the first event of an answer that has begun; then its caller hears a ping
JSON = (b"{", b"[")
NOTHING_TO_MASK = Redaction(None)
NO_EVENT = (*JSON, b"<")  # how a body begins that is not events, whatever its content-type


class Translation(Protocol):
    """What a vendor's events mean. `usage` is the JSON text of what the call used, in OpenAI's words, where it told.

    `pieces` counts the events that held some of the answer: what is known of its tokens when it breaks off.
    `is_whole` is whether the answer is complete, `is_over` whether nothing comes any more that matters.
    """

    @property
    def usage(self) -> str | None: ...
    @property
    def pieces(self) -> int: ...
    @property
    def is_whole(self) -> bool: ...
    @property
    def is_over(self) -> bool: ...

    def told(self, event: bytes) -> bytes:
        """The events that our caller gets for this one of the vendor's, or nothing. Raises: ProviderError."""
        ...

    def ended(self) -> bytes:
        """The events that our caller gets when a whole answer ends that is not over by its own word."""
        ...


class Stream:
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
        translation: Translation,
        redaction: Redaction = NOTHING_TO_MASK,
    ) -> None:
        self.headers = headers
        self.translation = translation
        self.has_said_something = False  # whether it began with an event; comments are none
        self._name = name
        self._pieces = pieces
        self._redaction = redaction
        self._events = self._masked()
        self._first: list[bytes] = []
        self._splitter = sse.Splitter()
        self._has_events = False
        self._text = bytearray()  # what came instead of events: an answer, or an error, in JSON or as a page
        self._unanswered = b""  # the data of the first event that held none of the answer
        self._cut: ProviderError | None = None  # how the connection ended, where that was too soon

    def begin(self, clock: Clock, patience_ms: float) -> None:
        """Wait for the first event that says something, or for PATIENCE_MS, or less where the caller has less.

        Till then another provider may be asked. Raises: what iterating raises; ProviderTimeout, where all of the
        caller's patience was not enough.
        """
        late = clock.now_ms() + min(PATIENCE_MS, patience_ms)
        size = 0
        while not self.has_said_something and clock.now_ms() < late:
            events = next(self._events, b"") or b""
            self._first.append(events)
            self.has_said_something = bool(sse.data(events))
            size += len(events)
            if size > MAX_EVENT_BYTES and not self.has_said_something:
                raise ProviderError(f"Provider {self._name} sent comments without end", may_be_billed=True)
        if not self.has_said_something and patience_ms <= PATIENCE_MS:
            raise ProviderTimeout(f"Provider {self._name} did not answer in time", may_be_billed=True)

    def __iter__(self) -> Generator[bytes | None]:
        if first := b"".join(self._first):
            yield first
        yield from self._events

    def close(self) -> None:
        self._events.close()
        self._pieces.close()

    def _masked(self) -> Generator[bytes | None]:
        with self._redaction.of_errors():
            yield from self._translated()

    def _translated(self) -> Generator[bytes | None]:
        for pieces in self._received():
            told: list[bytes] = []
            try:
                self._tell(b"".join(pieces), told)
            except ProviderError:
                if any(told):
                    yield b"".join(told)
                raise
            if len(self._splitter.rest) + len(self._text) > MAX_EVENT_BYTES:
                raise ProviderError(f"Provider {self._name} sent an event that is too large", may_be_billed=True)
            yield b"".join(told) if pieces else None
            if self.translation.is_over:
                with suppress(ProviderError):  # its connection can be used again once its end has come
                    next(self._pieces, None)
                return
        if not self._has_events and not self.translation.pieces:
            self._judge(self._redaction.masked(bytes(self._text + self._splitter.rest)))
        yield self._last()

    def _received(self) -> Generator[list[bytes]]:
        try:
            yield from self._pieces
        except ProviderError as error:
            self._cut = error

    def _tell(self, piece: bytes, told: list[bytes]) -> None:
        """Append the client events for the upstream events that this piece completes."""
        for whole in self._splitter.events(piece):
            event = self._redaction.masked(whole)
            self._has_events = self._has_events or bool(sse.data(event))
            if not self._has_events and (self._text or event.lstrip()[:1] in NO_EVENT):
                self._text += event
                continue
            told.append(self.translation.told(_as_event(event)))
            if not (told[-1] or self._unanswered):
                self._unanswered = sse.data(event)
            if self.translation.is_over:
                return

    def _judge(self, text: bytes) -> None:
        """Raises: ProviderError, where the body is JSON or text instead of events."""
        is_json = text.lstrip()[:1] in JSON
        if self._cut and not (is_json and json_scan.members(json_scan.sole(text)) is not None):
            raise self._cut
        if is_json:
            self.translation.told(sse.event(text))
        elif len(text.strip()) <= sse.LONGEST_START or sse.begins(text):  # nothing, comments, or half an event
            return
        words = reason(text)
        raise ProviderError(words or f"Provider {self._name} did not stream its answer", may_be_billed=True)

    def _last(self) -> bytes:
        """The client events for the last upstream event, which may lack its blank line.

        Raises: ProviderError, where the stream broke off.
        """
        event = _as_event(self._redaction.masked(bytes(self._splitter.rest)) + b"\n\n")
        data = sse.data(event)
        is_event = data.strip() == sse.DONE or json_scan.members(data) is not None
        told = self.translation.told(event) if is_event else b""
        if not self.translation.is_whole:
            if self._unanswered and not self.translation.pieces and (words := reason(self._unanswered)):
                raise ProviderError(words, may_be_billed=True)
            raise self._cut or ProviderTimeout(f"Provider {self._name} broke off its answer", may_be_billed=True)
        return told if self.translation.is_over else told + self.translation.ended()


def _as_event(event: bytes) -> bytes:
    """JSON among events as one of them: an error, which some servers write bare into a stream that has begun."""
    text = event.strip()
    return sse.event(text) if text[:1] in JSON and json_scan.members(json_scan.sole(text)) is not None else event

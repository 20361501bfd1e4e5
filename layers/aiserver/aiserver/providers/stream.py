"""An answer that comes event by event: the vendor's events in, OpenAI's out, and a cut told from an end.

Vendors differ in how they speak, and nothing else: a Translation is all that one needs (tests/providers/toy.py is one).
"""

from collections.abc import Generator
from contextlib import suppress
from typing import Protocol

from aiserver.clock import Clock
from aiserver.errors import ProviderError, ProviderTimeout
from aiserver.limits import MAX_EVENT_BYTES
from aiserver.wire import sse

PATIENCE_MS = 15_000  # for the first event of an answer that has begun; then its caller hears a ping


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
    says so; ProviderTimeout, where the answer broke off.
    """

    def __init__(
        self, name: str, headers: dict[str, str], pieces: Generator[list[bytes]], translation: Translation
    ) -> None:
        self.headers = headers
        self.translation = translation
        self._name = name
        self._pieces = pieces
        self._events = self._translated()
        self._first = b""

    @property
    def has_said_something(self) -> bool:
        """Whether it began with an event; comments are none."""
        return bool(sse.data(self._first))

    def begin(self, clock: Clock, patience_ms: float) -> None:
        """Wait for the first event that says something, or for PATIENCE_MS, or less where the caller has less.

        Till then another provider may be asked. Raises: what iterating raises; ProviderTimeout, where all of the
        caller's patience was not enough.
        """
        late = clock.now_ms() + min(PATIENCE_MS, patience_ms)
        while not self.has_said_something and clock.now_ms() < late:
            self._first += next(self._events, b"") or b""
        if not self.has_said_something and patience_ms <= PATIENCE_MS:
            raise ProviderTimeout(f"Provider {self._name} did not answer in time", may_be_billed=True)

    def __iter__(self) -> Generator[bytes | None]:
        if self._first:
            yield self._first
        yield from self._events

    def close(self) -> None:
        self._events.close()
        self._pieces.close()

    def _translated(self) -> Generator[bytes | None]:
        splitter = sse.Splitter()
        has_events, json = False, b""  # an error, or an answer, may come whatever it is called
        for pieces in self._pieces:
            told: list[bytes] = []
            try:
                for event in splitter.events(b"".join(pieces)):
                    has_events = has_events or bool(sse.data(event))
                    if not has_events and (json or event.lstrip()[:1] in (b"{", b"[")):
                        json += event
                        continue
                    told.append(self.translation.told(event))
                    if self.translation.is_over:
                        break
            except ProviderError:
                if any(told):
                    yield b"".join(told)
                raise
            if len(splitter.rest) + len(json) > MAX_EVENT_BYTES:
                raise ProviderError(f"Provider {self._name} sent an event that is too large", may_be_billed=True)
            yield b"".join(told) if pieces else None
            if self.translation.is_over:
                with suppress(ProviderError):  # its connection can be used again once its end has come
                    next(self._pieces, None)
                return
        if not has_events:
            self._judge(json + bytes(splitter.rest))
        yield self._last(bytes(splitter.rest))

    def _judge(self, said: bytes) -> None:
        """Raises: ProviderError, where an answer without events is one in JSON."""
        if said.lstrip()[:1] in (b"{", b"["):
            self.translation.told(sse.event(said))
            raise ProviderError(f"Provider {self._name} did not stream its answer", may_be_billed=True)

    def _last(self, rest: bytes) -> bytes:
        """What is told of what came after the last whole event. Raises: ProviderTimeout."""
        last = rest + b"\n\n"
        if sse.data(last).strip() == sse.DONE:  # who leaves out the last blank line has said all the same
            return self.translation.told(last)
        if rest.strip() or not self.translation.is_whole:
            raise ProviderTimeout(f"Provider {self._name} broke off its answer", may_be_billed=True)
        return self.translation.ended()

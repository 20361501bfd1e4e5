"""An answer that comes event by event: the vendor's events in, OpenAI's out, and a cut told from an end.

Vendors differ in how they speak, and nothing else: a Translation is all that one needs (tests/providers/toy.py is one).
"""

from collections.abc import Generator
from contextlib import suppress
from typing import Protocol

from aiserver.clock import Clock
from aiserver.errors import ProviderError, ProviderTimeout
from aiserver.wire import sse

PATIENCE_MS = 15_000  # for the first event of an answer that has begun; then its caller hears a ping
MAX_EVENT_BYTES = 16 * 1024 * 1024  # far beyond any: keeps one upstream from filling the memory


class Translation(Protocol):
    """What a vendor's events mean. `usage` is the JSON text of what the call used, in OpenAI's words, where it told.

    `pieces` counts the events that held some of the answer: what is known of its tokens when it breaks off.
    `is_whole` is whether the answer is complete, `is_over` whether nothing comes any more that matters.
    """

    usage: str | None
    pieces: int
    is_whole: bool
    is_over: bool

    def told(self, event: bytes) -> bytes:
        """The events that our caller gets for this one of the vendor's, or nothing. Raises: ProviderError."""
        ...


class Stream:
    """An answer that has begun: iterate once, and close it. b"" means that nothing has come for a second.

    Raises, when iterated: ProviderError, where the provider says so; ProviderTimeout, where the answer broke off.
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

    def begin(self, clock: Clock) -> None:
        """Wait for the first event that says something, as a comment does not, or for PATIENCE_MS.

        Till then another provider may be asked. Raises: what iterating raises.
        """
        late = clock.now_ms() + PATIENCE_MS
        while not sse.data(self._first) and clock.now_ms() < late:
            came = next(self._events, None)
            if came is None:
                break
            self._first += came

    def __iter__(self) -> Generator[bytes]:
        if self._first:
            yield self._first
        yield from self._events

    def close(self) -> None:
        self._events.close()
        self._pieces.close()

    def _translated(self) -> Generator[bytes]:
        splitter = sse.Splitter()
        for pieces in self._pieces:
            told: list[bytes] = []
            try:
                for event in splitter.events(b"".join(pieces)):
                    told.append(self.translation.told(event))
                    if self.translation.is_over:
                        break
            except ProviderError:
                if any(told):
                    yield b"".join(told)
                raise
            if len(splitter.rest) > MAX_EVENT_BYTES:
                raise ProviderError(f"Provider {self._name} sent an event that is too large", may_be_billed=True)
            yield b"".join(told)
            if self.translation.is_over:
                with suppress(ProviderError):  # its connection can be used again once its end has come
                    next(self._pieces, None)
                return
        last = bytes(splitter.rest) + b"\n\n"
        if sse.data(last).strip() == sse.DONE:  # who leaves out the last blank line has said all the same
            yield self.translation.told(last)
        elif splitter.rest.strip() or not self.translation.is_whole:
            raise ProviderTimeout(f"Provider {self._name} broke off its answer", may_be_billed=True)

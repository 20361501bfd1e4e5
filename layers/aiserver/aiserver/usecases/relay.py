"""Pass on an answer that comes event by event, and tell how it ended."""

import logging
from collections.abc import Callable, Generator
from dataclasses import dataclass

from aiserver.clock import Clock
from aiserver.errors import ProviderError, ProviderTimeout
from aiserver.jobs.states import State
from aiserver.usecases.ask import Begun
from aiserver.wire import sse
from aiserver.wire.render import render

log = logging.getLogger("aiserver.relay")


@dataclass(frozen=True)
class Ended:
    """How a stream ended: Completed; Failed, by `error`; or Cancelled, since its caller had gone.

    `usage` is what the provider told; of an answer that broke off, what was counted until then.
    """

    state: State
    error: ProviderError | None
    usage: str | None


def relay(
    provider: str, begun: Begun, clock: Clock, *, until_ms: int, ended: Callable[[Ended], None]
) -> Generator[bytes]:
    """The events as they come, and pings while none do; b"" where there is nothing to send.

    It has begun when it is returned, so that whoever closes it closes the upstream's call, iterated or not. `ended`
    hears once of its end. Raises, when iterated: ProviderError.
    """
    relayed = _relayed(provider, begun, clock, until_ms, ended)
    next(relayed)
    return relayed


def _relayed(
    provider: str, begun: Begun, clock: Clock, until_ms: int, ended: Callable[[Ended], None]
) -> Generator[bytes]:
    state, error = State.CANCELLED, None
    try:
        with begun.held:
            yield b""
            yield from _kept_alive(provider, begun, clock, until_ms)
        state = State.COMPLETED
    except ProviderError as failed:
        state, error = State.FAILED, failed
        raise
    finally:
        told = begun.stream.translation
        counted = render({"completion_tokens": told.pieces, "estimated": True}).decode()
        usage = told.usage or (None if state == State.COMPLETED else counted)
        seen = {"provider": provider, "state": state, "error": type(error).__name__ if error else None}
        log.info("stream ended", extra=seen | {"pieces": told.pieces})
        ended(Ended(state, error, usage))


def _kept_alive(provider: str, begun: Begun, clock: Clock, until_ms: int) -> Generator[bytes]:
    heard = sent = clock.now_ms()
    has_begun = False
    for events in begun.stream:
        if clock.now_ms() >= until_ms and not begun.stream.translation.is_over:
            raise ProviderTimeout("There is no time left for the rest of the answer", may_be_billed=True)
        if events:
            yield events
            heard = sent = clock.now_ms()
        elif clock.now_ms() >= heard + begun.silence_s * 1000:
            raise ProviderTimeout(f"Provider {provider} fell silent", may_be_billed=True)
        elif clock.now_ms() >= sent + sse.PING_MS or not has_begun:
            yield sse.PING
            sent = clock.now_ms()
        else:
            yield b""
        has_begun = True

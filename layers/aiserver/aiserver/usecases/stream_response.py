"""Pass on an answer that comes event by event, and tell how it ended."""

import logging
from collections.abc import Callable, Generator
from dataclasses import dataclass

from aiserver.clock import Clock
from aiserver.errors import AiServerError, ProviderError, ProviderTimeout
from aiserver.jobs.states import State
from aiserver.providers.stream import PATIENCE_MS
from aiserver.usecases.failover import Begun
from aiserver.wire import errors as wire_errors
from aiserver.wire import sse

log = logging.getLogger("aiserver.relay")


@dataclass(frozen=True)
class Ended:
    """How a stream ended: Completed; Failed, by `error`; or Cancelled, since its caller had gone.

    `usage` is what the provider told; `pieces` counts the events that held some of the answer.
    """

    state: State
    error: AiServerError | None = None
    usage: str | None = None
    pieces: int = 0


def relay(
    provider: str, begun: Begun, clock: Clock, *, until_ms: int, ended: Callable[[Ended], None]
) -> Generator[bytes]:
    """The events as they come, and pings while none do; b"" where there is nothing to send.

    Where it fails the last event says so, and goes out before anything else is done about it. It has begun when it is
    returned, so that whoever closes it closes the upstream's call, iterated or not. `ended` hears once of its end.
    """
    relayed = _relayed(provider, begun, clock, until_ms, ended)
    next(relayed)
    return relayed


def _relayed(
    provider: str, begun: Begun, clock: Clock, until_ms: int, ended: Callable[[Ended], None]
) -> Generator[bytes]:
    state, error = State.FAILED, AiServerError("The stream failed on our side")
    try:
        with begun.held:
            yield b""
            try:
                if (yield from _kept_alive(provider, begun, clock, until_ms)):
                    state, error = State.COMPLETED, None
                else:  # which is not the provider's fault
                    error = ProviderTimeout("There is no time left for the rest of the answer", may_be_billed=True)
                    yield wire_errors.event(error)
            except ProviderError as failed:
                error = failed
                yield wire_errors.event(failed)
                raise
    except ProviderError:
        pass  # it has been told
    except GeneratorExit:
        if not isinstance(error, ProviderError):
            state, error = State.CANCELLED, None
        raise
    finally:
        told = begun.stream.translation
        seen = {"provider": provider, "state": state, "error": type(error).__name__ if error else None}
        log.info("stream ended", extra=seen | {"pieces": told.pieces})
        ended(Ended(state, error, told.usage, told.pieces))


def _kept_alive(provider: str, begun: Begun, clock: Clock, until_ms: int) -> Generator[bytes, None, bool]:
    """Whether it came to its end in time."""
    has_said_something = False
    sent = clock.now_ms()
    heard = sent - (0 if begun.stream.has_said_something else PATIENCE_MS)
    has_sent = False
    translation = begun.stream.translation
    for events in begun.stream:
        now = clock.now_ms()
        heard = heard if events is None else now
        if events and not has_said_something and sse.data(events):
            has_said_something = True
            begun.has_begun()
        is_late, is_silent = now >= until_ms, now >= heard + begun.silence_s * 1000
        if (is_late or is_silent) and translation.is_whole and not translation.is_over:  # it only has to hang up
            yield (events or b"") + translation.ended()
            return True
        if is_late and not translation.is_over:
            return False
        if is_silent:
            raise ProviderTimeout(f"Provider {provider} fell silent", may_be_billed=True)
        if events or now >= sent + sse.PING_MS or not has_sent:
            yield events or sse.PING
            sent = clock.now_ms()
            heard = sent if events else heard  # whoever is slow to take them is not the provider
        else:
            yield b""
        has_sent = True
    return True

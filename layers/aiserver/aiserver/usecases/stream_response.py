"""Pass on an answer that comes event by event, and tell how it ended."""

import logging
from collections.abc import Callable, Generator
from dataclasses import dataclass

from aiserver.clock import Clock
from aiserver.errors import AiServerError, ProviderError, ProviderTimeout
from aiserver.jobs.states import JobState
from aiserver.providers.stream import FIRST_EVENT_TIMEOUT_MS
from aiserver.usecases.failover import OpenStream
from aiserver.wire import errors as wire_errors
from aiserver.wire import sse

log = logging.getLogger("aiserver.relay")


@dataclass(frozen=True)
class StreamOutcome:
    """How a stream ended: Completed; Failed, by `error`; or Cancelled, since its caller had gone.

    `usage` is what the provider told; `pieces` counts the events that held some of the answer.
    """

    state: JobState
    error: AiServerError | None = None
    usage: str | None = None
    content_events: int = 0


def stream_response(
    provider: str, stream: OpenStream, clock: Clock, *, deadline_ms: int, on_end: Callable[[StreamOutcome], None]
) -> Generator[bytes]:
    """The events as they come, and pings while none do; b"" where there is nothing to send.

    Where it fails the last event says so, and goes out before anything else is done about it. It has begun when it is
    returned, so that whoever closes it closes the upstream's call, iterated or not. `ended` hears once of its end.
    """
    relayed = _stream(provider, stream, clock, deadline_ms, on_end)
    next(relayed)
    return relayed


def _stream(
    provider: str, stream: OpenStream, clock: Clock, deadline_ms: int, on_end: Callable[[StreamOutcome], None]
) -> Generator[bytes]:
    state, error = JobState.FAILED, AiServerError("The stream failed on our side")
    try:
        with stream.resources:
            yield b""
            try:
                if (yield from _keep_alive(provider, stream, clock, deadline_ms)):
                    state, error = JobState.COMPLETED, None
                else:  # which is not the provider's fault
                    error = ProviderTimeout("There is no time left for the rest of the answer", may_be_billed=True)
                    yield wire_errors.render_error_event(error)
            except ProviderError as failed:
                error = failed
                yield wire_errors.render_error_event(failed)
                raise
    except ProviderError:
        pass  # it has been told
    except GeneratorExit:
        if not isinstance(error, ProviderError):
            state, error = JobState.CANCELLED, None
        raise
    finally:
        told = stream.stream.mapper
        seen = {"provider": provider, "state": state, "error": type(error).__name__ if error else None}
        log.info("stream ended", extra=seen | {"pieces": told.content_events})
        on_end(StreamOutcome(state, error, told.usage, told.content_events))


def _keep_alive(provider: str, stream: OpenStream, clock: Clock, deadline_ms: int) -> Generator[bytes, None, bool]:
    """Whether it came to its end in time."""
    has_first_event = False
    last_sent = clock.now_ms()
    last_received = last_sent - (0 if stream.stream.has_first_event else FIRST_EVENT_TIMEOUT_MS)
    has_sent = False
    translation = stream.stream.mapper
    for events in stream.stream:
        now = clock.now_ms()
        last_received = last_received if events is None else now
        if events and not has_first_event and sse.event_data(events):
            has_first_event = True
            stream.on_first_event()
        is_late, is_silent = now >= deadline_ms, now >= last_received + stream.idle_timeout_s * 1000
        if (is_late or is_silent) and translation.is_complete and not translation.is_done:  # it only has to hang up
            yield (events or b"") + translation.on_end()
            return True
        if is_late and not translation.is_done:
            return False
        if is_silent:
            raise ProviderTimeout(f"Provider {provider} fell silent", may_be_billed=True)
        if events or now >= last_sent + sse.PING_MS or not has_sent:
            yield events or sse.PING
            last_sent = clock.now_ms()
            last_received = last_sent if events else last_received  # whoever is slow to take them is not the provider
        else:
            yield b""
        has_sent = True
    return True

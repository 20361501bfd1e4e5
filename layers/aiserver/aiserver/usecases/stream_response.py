"""Relay a streamed response to the caller, with keep-alive pings, and report how it ended."""

import logging
from collections.abc import Callable, Generator
from dataclasses import dataclass

from aiserver import log_events
from aiserver.clock import Clock
from aiserver.errors import AiServerError, ProviderError, ProviderTimeout
from aiserver.jobs.states import JobState
from aiserver.providers.stream import FIRST_EVENT_TIMEOUT_MS
from aiserver.routing.failover import OpenStream
from aiserver.wire import errors as wire_errors
from aiserver.wire import sse

log = logging.getLogger("aiserver.stream_response")


@dataclass(frozen=True)
class StreamOutcome:
    """How a stream ended: Completed; Failed, with `error`; or Cancelled, when the caller disconnected.

    `usage` is the provider's usage as JSON; `content_events` counts the events with content.
    """

    state: JobState
    error: AiServerError | None = None
    usage: str | None = None
    content_events: int = 0


def stream_response(
    provider: str, stream: OpenStream, clock: Clock, *, deadline_ms: int, on_end: Callable[[StreamOutcome], None]
) -> Generator[bytes]:
    """The events, pings while none arrives, and b"" when there is nothing to send.

    After a failure the last event is an error event; it is sent before the cleanup. The generator is returned started,
    so that closing it closes the upstream call, even without iteration. `on_end` is called exactly once.
    """
    events = _stream(provider, stream, clock, deadline_ms, on_end)
    next(events)
    return events


def _stream(
    provider: str, stream: OpenStream, clock: Clock, deadline_ms: int, on_end: Callable[[StreamOutcome], None]
) -> Generator[bytes]:
    state, error = JobState.FAILED, AiServerError("The gateway failed during the stream")
    try:
        with stream.resources:
            yield b""
            try:
                if (yield from _keep_alive(provider, stream, clock, deadline_ms)):
                    state, error = JobState.COMPLETED, None
                else:  # not the provider's fault
                    error = ProviderTimeout("The deadline passed before the response was complete", may_be_billed=True)
                    yield wire_errors.render_error_event(error)
            except ProviderError as provider_error:
                error = provider_error
                yield wire_errors.render_error_event(provider_error)
                raise
    except ProviderError:
        pass  # the error event has been sent
    except GeneratorExit:
        if not isinstance(error, ProviderError):
            state, error = JobState.CANCELLED, None
        raise
    finally:
        mapper = stream.stream.mapper
        fields = {"provider": provider, "state": state, "error": type(error).__name__ if error else None}
        log.info(log_events.STREAM_ENDED, extra=fields | {"content_events": mapper.content_events})
        on_end(StreamOutcome(state, error, mapper.usage, mapper.content_events))


def _keep_alive(provider: str, stream: OpenStream, clock: Clock, deadline_ms: int) -> Generator[bytes, None, bool]:
    """Relay the events with pings. Returns True if the stream ended before the deadline."""
    has_first_event = False
    last_sent_ms = clock.now_ms()
    last_received_ms = last_sent_ms - (0 if stream.stream.has_first_event else FIRST_EVENT_TIMEOUT_MS)
    has_sent = False
    mapper = stream.stream.mapper
    for events in stream.stream:
        now = clock.now_ms()
        last_received_ms = last_received_ms if events is None else now
        if events and not has_first_event and sse.event_data(events):
            has_first_event = True
            stream.on_first_event()
        is_late, is_silent = now >= deadline_ms, now >= last_received_ms + stream.idle_timeout_s * 1000
        if (is_late or is_silent) and mapper.is_complete and not mapper.is_done:  # only the connection's end is missing
            yield (events or b"") + mapper.on_end()
            return True
        if is_late and not mapper.is_done:
            return False
        if is_silent:
            raise ProviderTimeout(f"Provider {provider}: no event received within its timeout_s", may_be_billed=True)
        if events or now >= last_sent_ms + sse.PING_MS or not has_sent:
            yield events or sse.PING
            last_sent_ms = clock.now_ms()
            last_received_ms = last_sent_ms if events else last_received_ms  # a slow caller is not a silent provider
        else:
            yield b""
        has_sent = True
    return True

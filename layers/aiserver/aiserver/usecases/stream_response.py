"""Relay a streamed response to the caller until the deadline, and report how it ended."""

import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

from aiserver import log_events
from aiserver.clock import Clock, Deadline
from aiserver.errors import AiServerError, ProviderError, ProviderTimeout
from aiserver.jobs.states import JobState
from aiserver.routing.failover import OpenStream
from aiserver.wire import errors as wire_errors
from aiserver.wire import sse

log = logging.getLogger("aiserver.stream_response")


class Copy(Protocol):
    """Receives the data of a stream."""

    def append(self, data: bytes, /) -> None: ...


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
    provider: str,
    stream: OpenStream,
    clock: Clock,
    *,
    deadline: Deadline,
    on_end: Callable[[StreamOutcome], None],
    copy_to: Copy | None = None,
) -> Generator[bytes | None]:
    """The events and pings of the stream, or the bytes of a file; None when there is nothing to send.

    After a failure the last event is an error event; it is sent before the cleanup. A file that breaks off raises the
    error instead, so that the connection is aborted. The generator is returned started, so that closing it closes the
    upstream call, even without iteration. `on_end` is called exactly once.

    `copy_to` receives a complete copy: if the caller disconnects, the rest is read for it.
    """
    events = _stream(provider, stream, clock, deadline, on_end, copy_to)
    next(events)
    return events


def _stream(
    provider: str,
    stream: OpenStream,
    clock: Clock,
    deadline: Deadline,
    on_end: Callable[[StreamOutcome], None],
    copy_to: Copy | None,
) -> Generator[bytes | None]:
    state, error = JobState.FAILED, AiServerError("The gateway failed during the stream")
    has_events = stream.stream.has_events
    try:
        with stream.resources:
            with _complete_copy(stream, clock, deadline, copy_to):
                yield None
            try:
                if (yield from _until_deadline(stream, clock, deadline, copy_to)):
                    state, error = JobState.COMPLETED, None
                else:  # not the provider's fault
                    error = ProviderTimeout("The deadline passed before the response was complete", may_be_billed=True)
                    if has_events:
                        yield wire_errors.render_error_event(error)
            except ProviderError as provider_error:
                error = provider_error
                if has_events:
                    with suppress(GeneratorExit):  # the provider failed, even if the caller has left
                        yield wire_errors.render_error_event(provider_error)
                raise
        if error and not has_events:
            raise error
    except ProviderError:
        if not has_events:
            raise
    except GeneratorExit:
        if not isinstance(error, ProviderError):
            is_stored = copy_to is not None and stream.stream.mapper.is_complete
            state, error = JobState.COMPLETED if is_stored else JobState.CANCELLED, None
        raise
    finally:
        mapper = stream.stream.mapper
        fields = {"provider": provider, "state": state, "error": type(error).__name__ if error else None}
        log.info(log_events.STREAM_ENDED, extra=fields | {"content_events": mapper.content_events})
        on_end(StreamOutcome(state, error, mapper.usage, mapper.content_events))


def _until_deadline(
    stream: OpenStream, clock: Clock, deadline: Deadline, copy_to: Copy | None
) -> Generator[bytes | None, None, bool]:
    """Relay the events until their end or the deadline. Returns whether the response is complete."""
    mapper, is_first = stream.stream.mapper, True
    for events in stream.stream.events:
        if is_first and events and (not stream.stream.has_events or sse.event_data(events)):
            is_first = False
            stream.on_first_event()
        if copy_to is not None and events:
            copy_to.append(events)
        if deadline.has_passed(clock) and not mapper.is_done:
            if mapper.is_complete:  # only the connection's end is missing
                yield (events or b"") + mapper.on_end()
            return mapper.is_complete
        with _complete_copy(stream, clock, deadline, copy_to):
            yield events
    return True


@contextmanager
def _complete_copy(stream: OpenStream, clock: Clock, deadline: Deadline, copy_to: Copy | None) -> Generator[None]:
    """If the caller disconnects, read the rest of its file: it is paid for, and a repeat will request it."""
    try:
        yield
    except GeneratorExit:
        with suppress(ProviderError):
            for data in stream.stream.events if copy_to is not None else ():
                if copy_to is not None and data:
                    copy_to.append(data)
                if deadline.has_passed(clock):
                    break
        raise

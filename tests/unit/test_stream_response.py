"""A streamed response: pings while it is silent, an end before the deadline, and one outcome report."""

import json
from collections.abc import Generator
from contextlib import ExitStack
from typing import Any

import pytest

from aiserver.clock import Deadline
from aiserver.errors import ProviderError
from aiserver.jobs.states import JobState
from aiserver.routing.failover import OpenStream
from aiserver.usecases.stream_response import StreamOutcome, stream_response
from aiserver.wire import sse
from tests.app import FakeStream
from tests.fakes import FakeClock

EVENT = b'data: {"choices":[]}\n\n'
TOTAL_MS = 893_000
NO_EVENT = None
START_MS = FakeClock().now


class ScriptedResponse:
    """stream_response over a scripted stream, with its outcomes and the releases of the provider's lease."""

    def __init__(self, *script: bytes | Exception | float | None, usage: str | None = None, count: int = 0) -> None:
        self.clock = FakeClock()
        self.begin_calls: list[int] = []
        self.outcomes: list[StreamOutcome] = []
        self.releases: list[type[BaseException] | None] = []  # exception type of each release
        self.stream = FakeStream(self.clock, list(script), usage=usage, content_events=count)
        resources = ExitStack()
        resources.push(lambda error_type, *_: self.releases.append(error_type))
        resources.callback(self.stream.close)
        open_stream: Any = OpenStream(self.stream, resources, lambda: self.begin_calls.append(1))  # pyright: ignore[reportArgumentType]
        deadline = Deadline(self.clock.now + TOTAL_MS)
        self.events: Generator[bytes | None] = stream_response(
            "p", open_stream, self.clock, deadline=deadline, on_end=self.outcomes.append
        )


def last_event(response: ScriptedResponse) -> Any:
    """Return the JSON of the last event."""
    *_, event = response.events
    return json.loads(sse.event_data(event))


def test_events_pass_through_and_the_outcome_has_the_usage() -> None:
    response = ScriptedResponse(EVENT, EVENT + EVENT, usage='{"total_tokens":3}', count=7)
    assert list(response.events) == [EVENT, EVENT + EVENT]
    assert response.outcomes == [StreamOutcome(JobState.COMPLETED, None, '{"total_tokens":3}', 7)]
    assert response.stream.is_closed
    assert response.releases == [None]


def test_silent_stream_sends_a_ping_every_15_seconds() -> None:
    response = ScriptedResponse(EVENT, *[1.0] * 31, EVENT)
    assert list(response.events) == [EVENT, *[NO_EVENT] * 14, sse.PING, *[NO_EVENT] * 14, sse.PING, NO_EVENT, EVENT]
    assert sse.PING_MS == 15_000


def test_stream_without_an_event_begins_with_a_ping() -> None:
    assert list(ScriptedResponse(1.0, EVENT).events) == [sse.PING, EVENT]


def test_stream_begins_at_its_first_event_not_at_a_comment() -> None:
    response = ScriptedResponse(b": wait\n\n", 1.0, EVENT, EVENT)
    begin_counts = [(event, len(response.begin_calls)) for event in response.events]
    assert begin_counts == [(b": wait\n\n", 0), (NO_EVENT, 0), (EVENT, 1), (EVENT, 1)]


def test_complete_stream_with_an_open_connection_is_completed() -> None:
    response = ScriptedResponse(EVENT, *[20.0] * 100)
    response.stream.is_complete = True
    assert {event for event in response.events if event not in (NO_EVENT, sse.PING)} == {EVENT}
    (outcome,) = response.outcomes
    assert (outcome.state, outcome.error, response.releases) == (JobState.COMPLETED, None, [None])


@pytest.mark.parametrize("script", [[EVENT] * 10_000, [1.0] * 2000, [None] * 10_000])
def test_endless_stream_ends_at_the_deadline_without_a_provider_failure(
    script: list[Any],
) -> None:
    response = ScriptedResponse(EVENT, *script)
    response.stream.interval_s = 0.5
    assert "The deadline passed" in last_event(response)["error"]["message"]
    assert response.clock.now <= START_MS + TOTAL_MS + 1500
    assert response.stream.is_closed
    assert response.releases == [None]
    assert response.outcomes[0].state == JobState.FAILED


def test_silent_stream_ends_exactly_at_the_deadline() -> None:
    response = ScriptedResponse(EVENT, *[1.0] * 2000)
    last_event(response)
    assert response.clock.now == START_MS + TOTAL_MS


def test_stream_that_is_done_at_the_deadline_is_completed() -> None:
    response = ScriptedResponse(EVENT, float(TOTAL_MS / 1000 + 1))
    response.stream.is_done = True
    assert [event for event in response.events if event] == [EVENT, sse.PING]
    assert response.outcomes[0].state == JobState.COMPLETED


def test_error_event_is_sent_before_the_outcome_is_reported() -> None:
    error = ProviderError("invalid event", may_be_billed=True)
    response = ScriptedResponse(EVENT, error, count=3)
    assert next(response.events) == EVENT
    assert json.loads(sse.event_data(next(response.events)))["error"]["message"] == "invalid event"
    assert (response.outcomes, response.releases) == ([], [])
    assert list(response.events) == []
    assert response.outcomes == [StreamOutcome(JobState.FAILED, error, None, 3)]
    assert response.releases == [ProviderError]


@pytest.mark.parametrize("event_count", [0, 1])
def test_close_closes_the_provider_stream_and_counts_received_events(event_count: int) -> None:
    response = ScriptedResponse(EVENT, EVENT, count=2)
    for _ in range(event_count):
        next(response.events)
    response.events.close()
    assert response.stream.is_closed
    assert response.outcomes == [StreamOutcome(JobState.CANCELLED, None, None, 2)]


def test_close_at_the_error_event_is_a_failure_not_a_cancellation() -> None:
    error = ProviderError("invalid event")
    response = ScriptedResponse(EVENT, error)
    next(response.events)
    next(response.events)
    response.events.close()
    assert response.outcomes == [StreamOutcome(JobState.FAILED, error, None, 0)]
    assert response.releases == [ProviderError]  # the circuit breaker counts it


def test_internal_error_is_a_failure_not_a_cancellation() -> None:
    response = ScriptedResponse(EVENT, RuntimeError("secret"))
    next(response.events)
    with pytest.raises(RuntimeError):
        next(response.events)
    (outcome,) = response.outcomes
    assert outcome.state == JobState.FAILED
    assert outcome.error is not None
    assert "secret" not in outcome.error.message
    assert response.stream.is_closed

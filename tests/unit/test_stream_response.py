"""A streamed response: pings while it is silent, an end before the deadline, and one outcome report."""

import json
from collections.abc import Generator
from contextlib import ExitStack
from typing import Any

import pytest

from aiserver.errors import ProviderError, ProviderTimeout
from aiserver.jobs.states import JobState
from aiserver.providers.stream import FIRST_EVENT_TIMEOUT_MS
from aiserver.routing.failover import OpenStream
from aiserver.usecases.stream_response import StreamOutcome, stream_response
from aiserver.wire import sse
from tests.app import FakeStream
from tests.fakes import FakeClock

EVENT = b'data: {"choices":[]}\n\n'
SILENCE_S = 600
TOTAL_MS = 893_000
NO_EVENT = b""
START_MS = FakeClock().now


class ScriptedResponse:
    """stream_response over a scripted stream, with its outcomes and the releases of the provider's lease."""

    def __init__(
        self, *script: bytes | Exception | float, usage: str | None = None, count: int = 0, silence_s: float = SILENCE_S
    ) -> None:
        self.clock = FakeClock()
        self.begin_calls: list[int] = []
        self.outcomes: list[StreamOutcome] = []
        self.releases: list[type[BaseException] | None] = []  # exception type of each release
        self.stream = FakeStream(self.clock, list(script), usage=usage, content_events=count)
        resources = ExitStack()
        resources.push(lambda error_type, *_: self.releases.append(error_type))
        resources.callback(self.stream.close)
        open_stream: Any = OpenStream(self.stream, resources, silence_s, lambda: self.begin_calls.append(1))  # pyright: ignore[reportArgumentType]
        deadline_ms = self.clock.now + TOTAL_MS
        self.events: Generator[bytes] = stream_response(
            "p", open_stream, self.clock, deadline_ms=deadline_ms, on_end=self.outcomes.append
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


@pytest.mark.parametrize("silence_s", [30, 100_000])
def test_complete_stream_with_an_open_connection_is_completed(silence_s: float) -> None:
    response = ScriptedResponse(EVENT, *[20.0] * 100, silence_s=silence_s)
    response.stream.is_complete = True
    assert {event for event in response.events if event not in (NO_EVENT, sse.PING)} == {EVENT}
    (outcome,) = response.outcomes
    assert (outcome.state, outcome.error, response.releases) == (JobState.COMPLETED, None, [None])


def test_silent_provider_times_out_after_its_timeout_s() -> None:
    response = ScriptedResponse(EVENT, *[30.0] * 100)
    assert last_event(response)["error"]["message"] == "Provider p: no event received within its timeout_s"
    assert response.clock.now - START_MS == SILENCE_S * 1000
    (outcome,) = response.outcomes
    assert (outcome.state, type(outcome.error)) == (JobState.FAILED, ProviderTimeout)
    assert response.releases == [ProviderTimeout]


def test_wait_for_the_first_event_counts_as_silence() -> None:
    response = ScriptedResponse(*[15.0] * 100)
    response.stream.has_first_event = False
    assert last_event(response)["error"]["message"] == "Provider p: no event received within its timeout_s"
    assert response.clock.now - START_MS == SILENCE_S * 1000 - FIRST_EVENT_TIMEOUT_MS


def test_upstream_event_without_client_event_is_not_silence() -> None:
    response = ScriptedResponse(*[b"", 20.0] * 4, EVENT, silence_s=30)
    assert list(response.events)[-1] == EVENT
    assert response.outcomes[0].state == JobState.COMPLETED


@pytest.mark.parametrize("script", [[EVENT] * 10_000, [1.0] * 2000, [b""] * 10_000])
def test_endless_stream_ends_at_the_deadline_without_a_provider_failure(
    script: list[Any],
) -> None:
    response = ScriptedResponse(EVENT, *script, silence_s=5000)
    response.stream.interval_s = 0.5
    assert "The deadline passed" in last_event(response)["error"]["message"]
    assert response.clock.now <= START_MS + TOTAL_MS + 1500
    assert response.stream.is_closed
    assert response.releases == [None]
    assert response.outcomes[0].state == JobState.FAILED


def test_silent_stream_ends_exactly_at_the_deadline() -> None:
    response = ScriptedResponse(EVENT, *[1.0] * 2000, silence_s=5000)
    last_event(response)
    assert response.clock.now == START_MS + TOTAL_MS


def test_stream_that_is_done_at_the_deadline_is_completed() -> None:
    response = ScriptedResponse(EVENT, float(TOTAL_MS / 1000 + 1), silence_s=5000)
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

"""A stream on its way to the caller: pings while it is silent, an end in time, and how it ended is told once."""

import json
from collections.abc import Generator
from contextlib import ExitStack
from typing import Any

import pytest

from aiserver.errors import ProviderError, ProviderTimeout
from aiserver.jobs.states import JobState
from aiserver.providers.stream import FIRST_EVENT_TIMEOUT_MS
from aiserver.usecases.failover import OpenStream
from aiserver.usecases.stream_response import StreamOutcome, stream_response
from aiserver.wire import sse
from tests.app import FakeStream
from tests.fakes import FakeClock

EVENT = b'data: {"choices":[]}\n\n'
SILENCE_S = 600
TOTAL_MS = 893_000
QUIET = b""
START_MS = FakeClock().now


class Relayed:
    """A relay of a scripted stream; what it says of its end, and whether its place at the provider was left."""

    def __init__(
        self, *pieces: bytes | Exception | float, usage: str | None = None, count: int = 0, silence_s: float = SILENCE_S
    ) -> None:
        self.clock = FakeClock()
        self.begun: list[int] = []
        self.ends: list[StreamOutcome] = []
        self.left: list[type[BaseException] | None] = []
        self.stream = FakeStream(self.clock, list(pieces), usage=usage, content_events=count)
        held = ExitStack()
        held.push(lambda kind, *_: self.left.append(kind))
        held.callback(self.stream.close)
        begun: Any = OpenStream(self.stream, held, silence_s, lambda: self.begun.append(1))  # pyright: ignore[reportArgumentType]
        until = self.clock.now + TOTAL_MS
        self.events: Generator[bytes] = stream_response(
            "p", begun, self.clock, deadline_ms=until, on_end=self.ends.append
        )


def last(relayed: Relayed) -> Any:
    """The error that the last event tells."""
    *_, event = relayed.events
    return json.loads(sse.event_data(event))


def test_events_pass_as_they_come_and_the_end_is_told_with_the_usage() -> None:
    relayed = Relayed(EVENT, EVENT + EVENT, usage='{"total_tokens":3}', count=7)
    assert list(relayed.events) == [EVENT, EVENT + EVENT]
    assert relayed.ends == [StreamOutcome(JobState.COMPLETED, None, '{"total_tokens":3}', 7)]
    assert relayed.stream.is_closed
    assert relayed.left == [None]


def test_while_nothing_comes_there_is_a_ping_every_fifteen_seconds_and_a_look_at_the_caller_between() -> None:
    relayed = Relayed(EVENT, *[1.0] * 31, EVENT)
    came = list(relayed.events)
    assert came == [EVENT, *[QUIET] * 14, sse.PING, *[QUIET] * 14, sse.PING, QUIET, EVENT]
    assert sse.PING_MS == 15_000


def test_a_stream_that_said_nothing_since_it_began_begins_with_a_ping() -> None:
    assert list(Relayed(1.0, EVENT).events) == [sse.PING, EVENT]


def test_it_has_begun_at_its_first_event_and_no_comment_is_one() -> None:
    relayed = Relayed(b": wait\n\n", 1.0, EVENT, EVENT)
    seen = [(event, len(relayed.begun)) for event in relayed.events]
    assert seen == [(b": wait\n\n", 0), (QUIET, 0), (EVENT, 1), (EVENT, 1)]


@pytest.mark.parametrize("silence_s", [30, 100_000])
def test_a_complete_stream_that_does_not_hang_up_ends_well(silence_s: float) -> None:
    relayed = Relayed(EVENT, *[20.0] * 100, silence_s=silence_s)
    relayed.stream.is_complete = True
    assert {event for event in relayed.events if event not in (QUIET, sse.PING)} == {EVENT}
    (end,) = relayed.ends
    assert (end.state, end.error, relayed.left) == (JobState.COMPLETED, None, [None])


def test_a_provider_that_falls_silent_is_given_up_as_its_operator_says() -> None:
    relayed = Relayed(EVENT, *[30.0] * 100)
    assert last(relayed)["error"]["message"] == "Provider p fell silent"
    assert relayed.clock.now - START_MS == SILENCE_S * 1000
    (end,) = relayed.ends
    assert (end.state, type(end.error)) == (JobState.FAILED, ProviderTimeout)
    assert relayed.left == [ProviderTimeout]


def test_what_was_waited_before_its_first_event_counts_as_silence() -> None:
    relayed = Relayed(*[15.0] * 100)
    relayed.stream.has_first_event = False
    assert last(relayed)["error"]["message"] == "Provider p fell silent"
    assert relayed.clock.now - START_MS == SILENCE_S * 1000 - FIRST_EVENT_TIMEOUT_MS


def test_a_provider_that_says_what_is_not_told_is_not_silent() -> None:
    relayed = Relayed(*[b"", 20.0] * 4, EVENT, silence_s=30)
    assert list(relayed.events)[-1] == EVENT
    assert relayed.ends[0].state == JobState.COMPLETED


@pytest.mark.parametrize("pieces", [[EVENT] * 10_000, [1.0] * 2000, [b""] * 10_000])
def test_a_stream_that_does_not_end_is_ended_before_the_function_is_and_that_is_not_its_provider_s_fault(
    pieces: list[Any],
) -> None:
    relayed = Relayed(EVENT, *pieces, silence_s=5000)
    relayed.stream.takes_s = 0.5
    assert "no time left" in last(relayed)["error"]["message"]
    assert relayed.clock.now <= START_MS + TOTAL_MS + 1500
    assert relayed.stream.is_closed
    assert relayed.left == [None]
    assert relayed.ends[0].state == JobState.FAILED


def test_a_stream_has_all_of_its_time_and_no_more() -> None:
    relayed = Relayed(EVENT, *[1.0] * 2000, silence_s=5000)
    last(relayed)
    assert relayed.clock.now == START_MS + TOTAL_MS


def test_an_answer_whose_end_comes_just_when_time_is_up_has_ended() -> None:
    relayed = Relayed(EVENT, float(TOTAL_MS / 1000 + 1), silence_s=5000)
    relayed.stream.is_done = True
    assert [event for event in relayed.events if event] == [EVENT, sse.PING]
    assert relayed.ends[0].state == JobState.COMPLETED


def test_an_error_is_told_after_what_came_and_before_anything_is_done_about_it() -> None:
    error = ProviderError("broke", may_be_billed=True)
    relayed = Relayed(EVENT, error, count=3)
    assert next(relayed.events) == EVENT
    assert json.loads(sse.event_data(next(relayed.events)))["error"]["message"] == "broke"
    assert (relayed.ends, relayed.left) == ([], [])
    assert list(relayed.events) == []
    assert relayed.ends == [StreamOutcome(JobState.FAILED, error, None, 3)]
    assert relayed.left == [ProviderError]


@pytest.mark.parametrize("taken", [0, 1])
def test_whoever_closes_it_closes_the_provider_s_call_and_what_came_is_counted(taken: int) -> None:
    relayed = Relayed(EVENT, EVENT, count=2)
    for _ in range(taken):
        next(relayed.events)
    relayed.events.close()
    assert relayed.stream.is_closed
    assert relayed.ends == [StreamOutcome(JobState.CANCELLED, None, None, 2)]


def test_who_leaves_at_the_error_has_not_cancelled_it() -> None:
    error = ProviderError("broke")
    relayed = Relayed(EVENT, error)
    next(relayed.events)
    next(relayed.events)
    relayed.events.close()
    assert relayed.ends == [StreamOutcome(JobState.FAILED, error, None, 0)]


def test_a_fault_of_our_own_is_no_caller_who_left() -> None:
    relayed = Relayed(EVENT, RuntimeError("secret"))
    next(relayed.events)
    with pytest.raises(RuntimeError):
        next(relayed.events)
    (end,) = relayed.ends
    assert end.state == JobState.FAILED
    assert end.error is not None
    assert "secret" not in end.error.message
    assert relayed.stream.is_closed

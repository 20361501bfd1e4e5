"""Streams to the caller at their limits: the deadline, the first event, pings, and files, to which nothing is added."""

from collections.abc import Generator, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest

from aiserver.clock import Deadline
from aiserver.errors import AiServerError, ProviderError, ProviderTimeout
from aiserver.jobs.job import Job
from aiserver.jobs.states import JobState
from aiserver.providers.stream import ByteCounter, ProviderStream
from aiserver.routing.failover import OpenStream
from aiserver.usecases.stream_response import StreamOutcome, stream_response
from aiserver.usecases.watch_job import WatchJob, event_id, has_received_all
from aiserver.wire import sse
from tests.app import TestApp
from tests.fakes import FakeClock

COMMENT, EVENT, END = b": wait\n\n", b"data: 1\n\n", b"data: end\n\n"
LIMIT_MS = 60_000


class EndMapper(ByteCounter):
    """A ByteCounter whose response ends with END."""

    def on_end(self) -> bytes:
        return END


class Scenario:
    """stream_response over a script: bytes, None, errors to raise, and times in milliseconds at which it goes on."""

    def __init__(self, *script: bytes | int | Exception | None, has_events: bool = True, copies: bool = False) -> None:
        self.clock = FakeClock()
        self.begin_ms = self.clock.now
        self.begins, self.outcomes = list[int](), list[StreamOutcome]()
        self.copy: list[bytes] | None = [] if copies else None
        self.mapper = EndMapper(None)
        stream = ProviderStream({}, self._events(script), self.mapper, has_events)
        open_stream = OpenStream(stream, ExitStack(), lambda: self.begins.append(self.clock.now - self.begin_ms))
        self.response: Generator[bytes | None] = stream_response(
            "p",
            open_stream,
            self.clock,
            deadline=Deadline(self.begin_ms + LIMIT_MS),
            on_end=self.outcomes.append,
            copy_to=self.copy,
        )

    def _events(self, script: tuple[bytes | int | Exception | None, ...]) -> Iterator[bytes | None]:
        for step in script:
            if isinstance(step, int):
                self.clock.now = self.begin_ms + step
            elif isinstance(step, Exception):
                raise step
            else:
                yield step

    @property
    def states(self) -> list[tuple[JobState, type[AiServerError] | None]]:
        return [(outcome.state, type(outcome.error) if outcome.error else None) for outcome in self.outcomes]


COMPLETED, CANCELLED = [(JobState.COMPLETED, None)], [(JobState.CANCELLED, None)]
TIMED_OUT = [(JobState.FAILED, ProviderTimeout)]


@pytest.mark.parametrize(("has_events", "first_ms"), [(True, 3), (False, 1)])
def test_response_begins_once_at_its_first_event_or_byte(has_events: bool, first_ms: int) -> None:
    scenario = Scenario(None, b"", 1, COMMENT, 3, EVENT, 4, EVENT, has_events=has_events)
    assert list(scenario.response) == [None, b"", COMMENT, EVENT, EVENT]
    assert (scenario.begins, scenario.states) == ([first_ms], COMPLETED)


def test_stream_without_events_never_begins() -> None:
    scenario = Scenario(None, b"", COMMENT)
    assert list(scenario.response) == [None, b"", COMMENT]
    assert scenario.begins == []


def test_event_a_millisecond_before_the_deadline_is_relayed() -> None:
    scenario = Scenario(LIMIT_MS - 1, EVENT)
    assert list(scenario.response) == [EVENT]
    assert scenario.states == COMPLETED


def test_stream_at_its_deadline_ends_with_an_error_event() -> None:
    scenario = Scenario(EVENT, LIMIT_MS, EVENT)
    first, error = scenario.response
    assert first == EVENT
    assert b"The deadline passed before the response was complete" in (error or b"")
    assert scenario.states == TIMED_OUT


def test_file_at_its_deadline_raises_the_error() -> None:
    scenario = Scenario(b"RIFF", LIMIT_MS, b"data", has_events=False)
    assert next(scenario.response) == b"RIFF"
    with pytest.raises(ProviderTimeout, match="The deadline passed"):
        next(scenario.response)
    assert scenario.states == TIMED_OUT


@pytest.mark.parametrize(("last", "tail"), [(EVENT, EVENT + END), (None, END), (b"", END)])
def test_complete_stream_at_its_deadline_gets_its_final_event(last: bytes | None, tail: bytes) -> None:
    scenario = Scenario(EVENT, LIMIT_MS, last, EVENT)
    scenario.mapper.is_complete = True
    assert list(scenario.response) == [EVENT, tail]
    assert scenario.states == COMPLETED


def test_stream_that_is_done_passes_unchanged_after_its_deadline() -> None:
    scenario = Scenario(LIMIT_MS, EVENT)
    scenario.mapper.is_complete = scenario.mapper.is_done = True
    assert list(scenario.response) == [EVENT]
    assert scenario.states == COMPLETED


def test_copy_receives_the_bytes_that_were_sent() -> None:
    scenario = Scenario(None, EVENT, b"", COMMENT, copies=True)
    assert list(scenario.response) == [None, EVENT, b"", COMMENT]
    assert scenario.copy == [EVENT, COMMENT]


def test_error_is_an_event_of_a_stream_and_aborts_a_file() -> None:
    error = ProviderError("cut", may_be_billed=True)
    scenario = Scenario(EVENT, error)
    first, event = scenario.response
    assert first == EVENT
    assert b'"message":"cut"' in (event or b"")
    assert scenario.states == [(JobState.FAILED, ProviderError)]
    scenario = Scenario(b"RIFF", error, has_events=False)
    assert next(scenario.response) == b"RIFF"
    with pytest.raises(ProviderError) as raised:
        next(scenario.response)
    assert raised.value is error
    assert scenario.states == [(JobState.FAILED, ProviderError)]


@pytest.mark.parametrize("has_events", [True, False])
def test_closed_response_is_cancelled_unless_the_provider_failed(has_events: bool) -> None:
    scenario = Scenario(EVENT, EVENT, has_events=has_events)
    next(scenario.response)
    scenario.response.close()
    assert scenario.states == CANCELLED
    failed = Scenario(EVENT, ProviderError("cut"))
    assert [next(failed.response) for _ in range(2)]
    failed.response.close()
    assert failed.states == [(JobState.FAILED, ProviderError)]


@pytest.mark.parametrize(
    ("copies", "is_complete", "end_ms", "states", "copy"),
    [
        (False, True, 1, CANCELLED, None),
        (True, False, 1, CANCELLED, [EVENT, EVENT, END]),
        (True, True, LIMIT_MS - 1, COMPLETED, [EVENT, EVENT, END]),
        (True, True, LIMIT_MS, COMPLETED, [EVENT, EVENT]),
    ],
)
def test_copy_of_a_closed_response_is_completed_until_the_deadline(
    copies: bool, is_complete: bool, end_ms: int, states: object, copy: list[bytes] | None
) -> None:
    scenario = Scenario(EVENT, None, end_ms, EVENT, END, has_events=False, copies=copies)
    next(scenario.response)
    scenario.mapper.is_complete = is_complete
    scenario.response.close()
    assert (scenario.states, scenario.copy) == (states, copy)


class JobReader:
    """jobs.ports.JobStore.get that returns one job, and counts the calls."""

    def __init__(self, job: Job) -> None:
        self.job: Job | None = job
        self.reads = 0

    def get(self, job_id: int) -> Job | None:
        self.reads += 1
        return self.job


def watch_times(job: Job, clock: FakeClock, for_ms: int, last_event_id: str | None = None) -> list[tuple[int, str]]:
    """Return the kinds of what a watch sends, with their times: `event`, `ping` and `none`."""
    begin_ms, jobs = clock.now, JobReader(job)
    reader: Any = jobs
    watch = WatchJob(reader, clock, clock.advance)
    kinds: list[tuple[int, str]] = []
    for chunk in watch.events(job, last_event_id=last_event_id, deadline=Deadline(begin_ms + for_ms)):
        kinds.append((clock.now - begin_ms, "none" if chunk is None else "ping" if chunk == sse.PING else "event"))
        assert clock.now - begin_ms < for_ms + 1_000, "the watch does not end"
    return kinds


@pytest.mark.parametrize(("for_ms", "last_ms"), [(999, 1_000), (1_000, 1_000), (1_001, 1_500)])
def test_watch_ends_with_the_read_at_its_deadline(for_ms: int, last_ms: int) -> None:
    app = TestApp()
    times = [at_ms for at_ms, _ in watch_times(app.accept(), app.clock, for_ms)]
    assert times == list(range(0, last_ms + 1, 500))


def test_watch_sends_a_ping_exactly_every_fifteen_seconds() -> None:
    app = TestApp()
    chunks = watch_times(app.accept(), app.clock, 31_000)
    assert [chunk for chunk in chunks if chunk[1] != "none"] == [(0, "event"), (15_000, "ping"), (30_000, "ping")]


def test_watch_of_a_known_state_begins_with_a_ping() -> None:
    app = TestApp()
    job = app.accept()
    chunks = watch_times(job, app.clock, 500, event_id(job))
    assert chunks == [(0, "ping"), (500, "none")]


@pytest.mark.parametrize(("ttl_s", "kinds"), [(0, []), (1, [(0, "event"), (500, "none")])])
def test_watch_of_a_job_ends_exactly_at_its_ttl(ttl_s: int, kinds: list[tuple[int, str]]) -> None:
    app = TestApp()
    job = replace(app.accept(), ttl=app.clock.now // 1000 + ttl_s)
    assert watch_times(job, app.clock, 60_000) == kinds


def test_watch_of_an_ended_job_sends_one_event() -> None:
    app = TestApp()
    job = replace(app.accept(), state=JobState.COMPLETED)
    assert watch_times(job, app.clock, 60_000) == [(0, "event")]
    assert watch_times(job, app.clock, 60_000, event_id(job)) == [(0, "ping")]


def test_all_is_received_with_the_event_id_of_an_ended_job() -> None:
    running = TestApp().accept()
    ended = replace(running, state=JobState.COMPLETED)
    for job, last_event_id, expected in [
        (ended, event_id(ended), True),
        (ended, event_id(running), False),
        (ended, None, False),
        (running, event_id(running), False),
    ]:
        assert has_received_all(job, last_event_id) == expected

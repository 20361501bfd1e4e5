"""A watch sends each change of a job once, in order, with two reads a second, until the job ends."""

import itertools
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from aiserver.clock import Deadline
from aiserver.errors import ProviderRateLimited, ProviderRejected
from aiserver.jobs import transitions
from aiserver.jobs.job import Job
from aiserver.jobs.states import TERMINAL_STATES, JobState
from aiserver.jobs.transitions import TRANSITIONS, Param, Transition
from aiserver.usecases.watch_job import WatchJob, event_id, has_received_all
from tests.app import TestApp
from tests.crash.fault_points import FaultPoints, FaultyProxy
from tests.fakes import FakeClock
from tests.sse_reader import Event, read

UNREPORTED = {"T3", "T8b"}  # the mark before a call and a resent message: the job's state is unchanged
HOUR_MS = 3_600_000


class WatchScenario:
    """A TestApp whose clock advances, and whose scheduled actions run, while the watch sleeps."""

    def __init__(self) -> None:
        self.app = TestApp()
        self.reads = FaultPoints()
        self._begin_ms = self.app.clock.now
        self._schedule: list[tuple[int, Callable[[], object]]] = []
        counted_jobs: Any = FaultyProxy(self.app.jobs, self.reads)
        self.watch = WatchJob(counted_jobs, self.app.clock, self._sleep)

    def after(self, seconds: float, action: Callable[[], object]) -> None:
        self._schedule.append((self.app.clock.now + round(seconds * 1000), action))
        self._schedule.sort(key=lambda entry: entry[0])

    def _sleep(self, seconds: float) -> None:
        wake_ms = self.app.clock.now + round(seconds * 1000)
        assert wake_ms < self._begin_ms + 2 * HOUR_MS, "the watch never ends"
        while self._schedule and self._schedule[0][0] <= wake_ms:
            at_ms, action = self._schedule.pop(0)
            self.app.clock.now = max(self.app.clock.now, at_ms)
            action()
        self.app.clock.now = max(self.app.clock.now, wake_ms)

    def chunks(self, job: Job, *, last_event_id: str | None = None, for_ms: int = HOUR_MS) -> list[tuple[int, bytes]]:
        """Return all chunks of the watch, b"" for none, each with the milliseconds since its begin."""
        begin_ms = self.app.clock.now
        stream = self.watch.events(
            self.app.reload(job), last_event_id=last_event_id, deadline=Deadline(begin_ms + for_ms)
        )
        return [(self.app.clock.now - begin_ms, chunk or b"") for chunk in stream]

    def events(self, job: Job, *, last_event_id: str | None = None, for_ms: int = HOUR_MS) -> list[Event]:
        return read(b"".join(chunk for _, chunk in self.chunks(job, last_event_id=last_event_id, for_ms=for_ms)))

    def claim(self, job: Job) -> None:
        now = self.app.clock.now
        params = {"now": now, "lease_token": "t", "lease_until": now + HOUR_MS}
        assert isinstance(self.app.jobs.apply(transitions.CLAIM, job.id, params), Job)


def states(events: list[Event]) -> list[str]:
    return [event.document["jobState"] for event in events]


def test_watch_sends_each_change_until_the_job_ends() -> None:
    scenario = WatchScenario()
    app = scenario.app
    job = app.accept(ref_id="r", tag="t")
    app.dispatcher.outcomes = [ProviderRateLimited(retry_after_s=20)]
    app.dispatcher.latency_s = 3  # the watch sees only the outcome of a pass
    scenario.after(2, lambda: app.run(job))
    scenario.after(25, lambda: app.run(job))
    events = scenario.events(job)
    assert [(event.document["jobState"], event.document["attempts"]) for event in events] == [
        ("Queued", 0),
        ("Queued", 1),
        ("Completed", 2),
    ]
    assert events[1].document["waitReason"] == "provider_rate_limited"
    identities = {(event.document["jobId"], event.document["refId"], event.document["tag"]) for event in events}
    assert identities == {(job.id, "r", "t")}


def test_watch_sends_the_start_and_a_cancel_request_of_a_job() -> None:
    scenario = WatchScenario()
    app = scenario.app
    job = app.accept()
    scenario.after(1, lambda: scenario.claim(job))
    params = {"now": app.clock.now, "owner": job.owner}
    scenario.after(2, lambda: app.jobs.apply(transitions.REQUEST_CANCEL, job.id, params))
    events = scenario.events(job, for_ms=5_000)
    assert states(events) == ["Queued", "Started", "Started"]
    assert events[2].document["status"] == "Cancel requested"


def test_failed_job_is_sent_with_its_error_and_ends_the_stream() -> None:
    scenario = WatchScenario()
    job = scenario.app.accept()
    scenario.app.dispatcher.outcomes = [ProviderRejected("max_tokens is too large")]
    scenario.after(1, lambda: scenario.app.run(job))
    events = scenario.events(job)
    assert states(events) == ["Queued", "Failed"]
    assert events[-1].document["responseStatus"]["message"] == "max_tokens is too large"


def test_event_of_a_completed_job_has_the_result_url_only() -> None:
    scenario = WatchScenario()
    app = scenario.app
    job = app.accept()
    app.run(job)
    (event,) = scenario.events(job)
    assert event.document["resultUrl"] == f"{job.base_url}/v1/jobs/{job.id}/result"
    assert not {"result", "chatResponse"} & set(event.document)
    assert scenario.reads.calls == 0


def test_event_has_retry_id_and_one_line_of_json() -> None:
    scenario = WatchScenario()
    app = scenario.app
    job = app.accept()
    app.run(job)
    app.jobs.items[job.id]["usage"] = '{\n "total_tokens":\r\n 3}'  # formatted by the provider
    ((_, chunk),) = scenario.chunks(job)
    retry, id_line, data, *end = chunk.split(b"\n")
    assert (retry, id_line, end) == (b"retry: 1000", f"id: {event_id(app.reload(job))}".encode(), [b"", b""])
    assert data.startswith(b'data: {"jobId":')
    assert b"\r" not in chunk


def test_only_the_first_event_has_a_retry_field() -> None:
    scenario = WatchScenario()
    job = scenario.app.accept()
    scenario.after(1, lambda: scenario.claim(job))
    assert [event.retry for event in scenario.events(job, for_ms=3_000)] == [1000, None]


# --- reconnecting ---


def test_reconnect_receives_only_changes_since_the_last_event() -> None:
    scenario = WatchScenario()
    job = scenario.app.accept()
    (queued,) = scenario.events(job, for_ms=1_000)
    assert scenario.events(job, last_event_id=queued.id, for_ms=1_000) == []
    scenario.claim(job)
    (started,) = scenario.events(job, last_event_id=queued.id, for_ms=1_000)
    assert states([started]) == ["Started"]
    scenario.after(1, lambda: scenario.app.jobs.items[job.id].update(state=JobState.COMPLETED))
    assert states(scenario.events(job, last_event_id=started.id)) == ["Completed"]


@pytest.mark.parametrize("last_event_id", [None, "", "0-0-Startled", "1-0-Queued", "\udcff", "x" * 10_000])
def test_unknown_last_event_id_receives_the_current_state(last_event_id: str | None) -> None:
    scenario = WatchScenario()
    job = scenario.app.accept()
    assert states(scenario.events(job, last_event_id=last_event_id, for_ms=1_000)) == ["Queued"]


def test_reconnect_without_changes_receives_a_ping_at_once() -> None:
    scenario = WatchScenario()
    job = scenario.app.accept()
    assert scenario.chunks(job, last_event_id=event_id(job), for_ms=1_000)[0] == (0, b": ping\n\n")


@pytest.mark.parametrize("state", [state for state in JobState if state != JobState.EXECUTED])
def test_has_received_all_is_true_only_after_the_terminal_event(state: JobState) -> None:
    job = replace(TestApp().accept(), state=state)
    assert has_received_all(job, event_id(job)) == (state in TERMINAL_STATES)
    assert not has_received_all(job, None)
    assert not has_received_all(job, event_id(replace(job, state=JobState.QUEUED, attempt=7)))


def test_redriven_job_is_new_after_its_earlier_terminal_event() -> None:
    failed = replace(TestApp().accept(), state=JobState.FAILED, attempt=3)
    failed_again = replace(failed, epoch=1)
    assert not has_received_all(failed_again, event_id(failed))


@pytest.mark.parametrize("row", [row for row in TRANSITIONS if row.machine == "state"], ids=lambda row: row.name)
def test_each_state_transition_changes_the_event_id(row: Transition) -> None:
    job = replace(TestApp().accept(), state=JobState(row.source), attempt=1)
    changed = Job(**apply_effects(row, vars(job)))
    assert (event_id(changed) == event_id(job)) == (row.name in UNREPORTED)


def apply_effects(row: Transition, item: dict[str, Any]) -> dict[str, Any]:
    params: Any = defaultdict(lambda: 1, callback="None")
    attributes = {
        name: params[value.name] if isinstance(value, Param) else value for name, value in row.effects.items()
    }
    attributes |= {name: item.get(name, 0) + increment for name, increment in row.adds.items()}
    return {name: value for name, value in (item | attributes).items() if name not in row.removes}


# --- cost and end of a watch ---


def test_watch_reads_twice_a_second_and_pings_every_15_seconds() -> None:
    scenario = WatchScenario()
    job = scenario.app.accept()
    chunks = scenario.chunks(job, for_ms=60_000)
    assert scenario.reads.calls <= 120
    assert [at for at, chunk in chunks if chunk == b": ping\n\n"] == [15_000, 30_000, 45_000, 60_000]
    assert all(after - before <= 500 for (before, _), (after, _) in itertools.pairwise(chunks))


def test_ping_is_sent_15_seconds_after_the_last_event() -> None:
    scenario = WatchScenario()
    job = scenario.app.accept()
    scenario.after(10, lambda: scenario.claim(job))
    chunks = scenario.chunks(job, for_ms=30_000)
    assert [at for at, chunk in chunks if chunk == b": ping\n\n"] == [25_000]


def test_changes_arrive_within_a_second_and_between_reads_as_one() -> None:
    scenario = WatchScenario()
    app = scenario.app
    job = app.accept()
    scenario.after(3.2, lambda: app.run(job))  # Started and Completed at once
    chunks = scenario.chunks(job)
    assert states(read(b"".join(chunk for _, chunk in chunks))) == ["Queued", "Completed"]
    assert 3_200 <= chunks[-1][0] <= 4_200


def test_watch_ends_at_its_deadline() -> None:
    scenario = WatchScenario()
    begin_ms = scenario.app.clock.now
    assert states(scenario.events(scenario.app.accept(), for_ms=7_300)) == ["Queued"]
    assert 7_300 <= scenario.app.clock.now - begin_ms <= 7_800


def test_deleted_job_ends_the_stream() -> None:
    scenario = WatchScenario()
    job = scenario.app.accept()
    scenario.after(2, lambda: scenario.app.jobs.items.clear())
    assert states(scenario.events(job)) == ["Queued"]


def test_stored_job_past_its_ttl_ends_the_stream() -> None:
    scenario = WatchScenario()
    job = scenario.app.accept()
    scenario.after(2, lambda: scenario.app.jobs.items[job.id].update(ttl=1, attempt=9))
    assert states(scenario.events(job)) == ["Queued"]


def test_watch_stops_reading_after_close() -> None:
    scenario = WatchScenario()
    job = scenario.app.accept()
    stream = scenario.watch.events(job, last_event_id=None, deadline=Deadline(scenario.app.clock.now + HOUR_MS))
    for _ in range(3):
        next(stream)
    assert scenario.reads.calls == 2
    stream.close()
    assert list(stream) == []
    assert scenario.reads.calls == 2


def test_watch_closed_before_its_begin_reads_nothing() -> None:
    scenario = WatchScenario()
    stream = scenario.watch.events(
        scenario.app.accept(), last_event_id=None, deadline=Deadline(FakeClock().now + HOUR_MS)
    )
    stream.close()
    assert scenario.reads.calls == 0

"""A watcher hears each change of a job once, in order, at two reads a second, until the job's end."""

import itertools
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

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

UNSEEN = {"T3", "T8b"}  # the mark before a call, and a message sent again: a job is where it was
HOUR_MS = 3_600_000


class Watching:
    """A house whose time passes while its watcher sleeps; what is planned happens then."""

    def __init__(self) -> None:
        self.house = TestApp()
        self.reads = FaultPoints()
        self._began = self.house.clock.now
        self._plan: list[tuple[int, Callable[[], object]]] = []
        guarded: Any = FaultyProxy(self.house.jobs, self.reads)
        self.watch = WatchJob(guarded, self.house.clock, self._sleep)

    def after(self, seconds: float, deed: Callable[[], object]) -> None:
        self._plan.append((self.house.clock.now + round(seconds * 1000), deed))
        self._plan.sort(key=lambda planned: planned[0])

    def _sleep(self, seconds: float) -> None:
        until = self.house.clock.now + round(seconds * 1000)
        assert until < self._began + 2 * HOUR_MS, "the watch never ends"
        while self._plan and self._plan[0][0] <= until:
            at, deed = self._plan.pop(0)
            self.house.clock.now = max(self.house.clock.now, at)
            deed()
        self.house.clock.now = max(self.house.clock.now, until)

    def pieces(self, job: Job, *, seen: str | None = None, for_ms: int = HOUR_MS) -> list[tuple[int, bytes]]:
        """All that comes, and how many ms after the watch began."""
        began = self.house.clock.now
        told = self.watch.events(self.house.now(job), last_event_id=seen, deadline_ms=began + for_ms)
        return [(self.house.clock.now - began, piece) for piece in told]

    def events(self, job: Job, *, seen: str | None = None, for_ms: int = HOUR_MS) -> list[Event]:
        return read(b"".join(piece for _, piece in self.pieces(job, seen=seen, for_ms=for_ms)))

    def claim(self, job: Job) -> None:
        now = self.house.clock.now
        params = {"now": now, "lease_token": "t", "lease_until": now + HOUR_MS}
        assert isinstance(self.house.jobs.apply(transitions.CLAIM, job.id, params), Job)


def states(events: list[Event]) -> list[str]:
    return [event.document["jobState"] for event in events]


def test_a_watcher_hears_all_a_job_goes_through_and_then_the_end_of_the_stream() -> None:
    watching = Watching()
    house = watching.house
    job = house.accept(ref_id="r", tag="t")
    house.protocol.outcomes = [ProviderRateLimited(retry_after_s=20)]
    house.protocol.takes_s = 3  # so a pass is seen from without only by its outcome
    watching.after(2, lambda: house.run(job))
    watching.after(25, lambda: house.run(job))
    told = watching.events(job)
    assert [(one.document["jobState"], one.document["attempts"]) for one in told] == [
        ("Queued", 0),
        ("Queued", 1),
        ("Completed", 2),
    ]
    assert told[1].document["waitReason"] == "provider_rate_limited"
    assert {(one.document["jobId"], one.document["refId"], one.document["tag"]) for one in told} == {(job.id, "r", "t")}


def test_a_watcher_sees_a_job_start_and_a_cancel_that_is_asked_meanwhile() -> None:
    watching = Watching()
    house = watching.house
    job = house.accept()
    watching.after(1, lambda: watching.claim(job))
    ask = {"now": house.clock.now, "owner": job.owner}
    watching.after(2, lambda: house.jobs.apply(transitions.REQUEST_CANCEL, job.id, ask))
    told = watching.events(job, for_ms=5_000)
    assert states(told) == ["Queued", "Started", "Started"]
    assert told[2].document["status"] == "Cancel requested"


def test_a_failed_job_is_told_with_its_error_and_ends_the_stream() -> None:
    watching = Watching()
    job = watching.house.accept()
    watching.house.protocol.outcomes = [ProviderRejected("max_tokens is too large")]
    watching.after(1, lambda: watching.house.run(job))
    told = watching.events(job)
    assert states(told) == ["Queued", "Failed"]
    assert told[-1].document["responseStatus"]["message"] == "max_tokens is too large"


def test_the_event_of_a_completed_job_says_where_its_result_is_and_holds_none() -> None:
    watching = Watching()
    house = watching.house
    job = house.accept()
    house.run(job)
    (told,) = watching.events(job)
    assert told.document["resultUrl"] == f"{job.base_url}/v1/jobs/{job.id}/result"
    assert not {"result", "chatResponse"} & set(told.document)
    assert watching.reads.calls == 0


def test_an_event_is_one_line_of_json_below_its_id_that_any_reader_takes_for_a_message() -> None:
    watching = Watching()
    house = watching.house
    job = house.accept()
    house.run(job)
    house.jobs.items[job.id]["usage"] = '{\n "total_tokens":\r\n 3}'  # as a provider wrote it
    ((_, only),) = watching.pieces(job)
    retry, named, data, *end = only.split(b"\n")
    assert (retry, named, end) == (b"retry: 1000", f"id: {event_id(house.now(job))}".encode(), [b"", b""])
    assert data.startswith(b'data: {"jobId":')
    assert b"\r" not in only


def test_only_the_first_event_says_when_to_come_again() -> None:
    watching = Watching()
    job = watching.house.accept()
    watching.after(1, lambda: watching.claim(job))
    assert [one.retry for one in watching.events(job, for_ms=3_000)] == [1000, None]


# --- coming again ---


def test_who_comes_again_hears_what_has_changed_since_and_not_the_same_again() -> None:
    watching = Watching()
    job = watching.house.accept()
    (queued,) = watching.events(job, for_ms=1_000)
    assert watching.events(job, seen=queued.id, for_ms=1_000) == []
    watching.claim(job)
    (started,) = watching.events(job, seen=queued.id, for_ms=1_000)
    assert states([started]) == ["Started"]
    watching.after(1, lambda: watching.house.jobs.items[job.id].update(state=JobState.COMPLETED))
    assert states(watching.events(job, seen=started.id)) == ["Completed"]


@pytest.mark.parametrize("seen", [None, "", "0-0-Startled", "1-0-Queued", "\udcff", "x" * 10_000])
def test_who_has_seen_nothing_that_is_known_hears_the_job_as_it_stands(seen: str | None) -> None:
    watching = Watching()
    job = watching.house.accept()
    assert states(watching.events(job, seen=seen, for_ms=1_000)) == ["Queued"]


def test_who_comes_again_with_nothing_new_is_answered_at_once_by_a_ping() -> None:
    watching = Watching()
    job = watching.house.accept()
    assert watching.pieces(job, seen=event_id(job), for_ms=1_000)[0] == (0, b": ping\n\n")


@pytest.mark.parametrize("state", [state for state in JobState if state != JobState.EXECUTED])
def test_all_is_heard_only_by_who_has_seen_the_end(state: JobState) -> None:
    job = replace(TestApp().accept(), state=state)
    assert has_received_all(job, event_id(job)) == (state in TERMINAL_STATES)
    assert not has_received_all(job, None)
    assert not has_received_all(job, event_id(replace(job, state=JobState.QUEUED, attempt=7)))


def test_a_job_that_tries_again_after_its_end_is_new_to_who_has_seen_that_end() -> None:
    failed = replace(TestApp().accept(), state=JobState.FAILED, attempt=3)
    failed_again = replace(failed, epoch=1)
    assert not has_received_all(failed_again, event_id(failed))


@pytest.mark.parametrize("row", [row for row in TRANSITIONS if row.machine == "state"], ids=lambda row: row.name)
def test_every_change_of_a_job_s_state_is_an_event_of_its_own(row: Transition) -> None:
    job = replace(TestApp().accept(), state=JobState(row.source), attempt=1)
    changed = Job(**after(row, vars(job)))
    assert (event_id(changed) == event_id(job)) == (row.name in UNSEEN)


def after(row: Transition, item: dict[str, Any]) -> dict[str, Any]:
    given: Any = defaultdict(lambda: 1, callback="None")
    made = {name: given[value.name] if isinstance(value, Param) else value for name, value in row.effects.items()}
    made |= {name: item.get(name, 0) + by for name, by in row.adds.items()}
    return {name: value for name, value in (item | made).items() if name not in row.removes}


# --- what it costs, and when it ends ---


def test_a_minute_s_watch_reads_the_table_twice_a_second_and_pings_every_15_seconds() -> None:
    watching = Watching()
    job = watching.house.accept()
    pieces = watching.pieces(job, for_ms=60_000)
    assert watching.reads.calls <= 120
    assert [at for at, piece in pieces if piece == b": ping\n\n"] == [15_000, 30_000, 45_000, 60_000]
    assert all(after - before <= 500 for (before, _), (after, _) in itertools.pairwise(pieces))


def test_a_ping_comes_15_seconds_after_an_event_not_in_step_with_the_last_ping() -> None:
    watching = Watching()
    job = watching.house.accept()
    watching.after(10, lambda: watching.claim(job))
    pieces = watching.pieces(job, for_ms=30_000)
    assert [at for at, piece in pieces if piece == b": ping\n\n"] == [25_000]


def test_changes_are_heard_within_a_second_and_those_between_two_looks_as_one() -> None:
    watching = Watching()
    house = watching.house
    job = house.accept()
    watching.after(3.2, lambda: house.run(job))  # Started and Completed at once
    pieces = watching.pieces(job)
    assert states(read(b"".join(piece for _, piece in pieces))) == ["Queued", "Completed"]
    assert 3_200 <= pieces[-1][0] <= 4_200


def test_a_stream_ends_when_the_function_s_time_is_over() -> None:
    watching = Watching()
    began = watching.house.clock.now
    assert states(watching.events(watching.house.accept(), for_ms=7_300)) == ["Queued"]
    assert 7_300 <= watching.house.clock.now - began <= 7_800


def test_a_job_that_is_deleted_ends_the_stream() -> None:
    watching = Watching()
    job = watching.house.accept()
    watching.after(2, lambda: watching.house.jobs.items.clear())
    assert states(watching.events(job)) == ["Queued"]


def test_a_job_past_its_time_to_live_is_told_no_more_though_still_stored() -> None:
    watching = Watching()
    job = watching.house.accept()
    watching.after(2, lambda: watching.house.jobs.items[job.id].update(ttl=1, attempt=9))
    assert states(watching.events(job)) == ["Queued"]


def test_a_watcher_that_has_gone_costs_no_more_reads() -> None:
    watching = Watching()
    job = watching.house.accept()
    told = watching.watch.events(job, last_event_id=None, deadline_ms=watching.house.clock.now + HOUR_MS)
    for _ in range(3):
        next(told)
    assert watching.reads.calls == 2
    told.close()
    assert list(told) == []
    assert watching.reads.calls == 2


def test_a_watch_that_is_closed_before_it_began_has_read_nothing() -> None:
    watching = Watching()
    told = watching.watch.events(watching.house.accept(), last_event_id=None, deadline_ms=FakeClock().now + HOUR_MS)
    told.close()
    assert watching.reads.calls == 0

"""A synchronous request with a RefId: its process may die at any call, and a repeat never costs a second call."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from aiserver.errors import ProviderUnavailable
from aiserver.jobs.job import Job
from aiserver.jobs.states import CallbackState, JobState
from aiserver.jobs.transitions import COMPLETE, FAIL_SYNC
from aiserver.usecases.terminal import failure_fields, result_fields, terminal_fields
from tests.app import MARGIN_S
from tests.crash.backends import EmbeddedCloudBackend
from tests.crash.simulation import HTTP_MS, Simulation, provider_error
from tests.examples import note_case, sample

# The calls of a request that succeeds, of one that fails without effect, and of the repeat of a failed one.
FIRST = ("find_by_ref_id", "create", "read_all", "provider", "complete")
FAILED = ("find_by_ref_id", "create", "read_all", "provider", "replace", "apply")
REPEAT = ("find_by_ref_id", "apply", "provider", "replace", "complete")
CALLS = {"completed": FIRST, "failed": FAILED, "repeated": REPEAT}
# The same as AWS calls; a large body is one more, `put_object`.
CLOUD_CALLS = {
    "completed": ("get_item", "transact_write_items", "get_paginator", "provider", "transact_write_items"),
    "failed": ("get_item", "transact_write_items", "get_paginator", "provider", "put_item", "update_item"),
    "repeated": ("get_item", "get_item", "update_item", "provider", "put_item", "transact_write_items"),
}


@dataclass
class Attempt:
    """What the caller of one request got; no response if its process died."""

    status: int | None = None
    body: str = ""
    is_replay: bool = False
    calls: tuple[str, ...] = ()


def chat(simulation: Simulation, *, stream: bool = False, large: bool = False, **fault: Any) -> Attempt:
    attempt = Attempt()

    def run() -> None:
        try:
            response = simulation.chat("r", stream=stream, large=large)
            attempt.status, attempt.body = response["statusCode"], response["body"]
            attempt.is_replay = response["headers"].get("X-Replayed") == "true"
        finally:
            attempt.calls = tuple(simulation.fault_points.names)

    simulation.run_process(run, **fault)
    return attempt


def prepare(simulation: Simulation, scenario: str, **options: bool) -> None:
    """Before the request that may die: the outcome of its call, or the request that it repeats."""
    if scenario != "completed":
        simulation.dispatcher.outcomes.append(provider_error("unavailable"))
    if scenario == "repeated":
        assert chat(simulation, **options).status == 503


def stored_job(simulation: Simulation) -> Job | None:
    jobs = simulation.stored_jobs()
    assert len(jobs) <= 1
    return jobs[0] if jobs else None


def check_repeats(simulation: Simulation, *, stream: bool = False, large: bool = False) -> None:
    """A repeat makes a call only if none was made whose outcome is success or unknown, before and after the sweep."""
    simulation.dispatcher.outcomes.clear()  # of a call that was not made
    for _ in range(2):
        before, calls = stored_job(simulation), len(simulation.dispatcher.calls)
        repeat = chat(simulation, stream=stream, large=large)
        after = stored_job(simulation)
        assert after
        if before is None or (before.state == JobState.FAILED and before.maybe_billed == 0):
            assert (repeat.status, repeat.is_replay, len(simulation.dispatcher.calls)) == (200, False, calls + 1)
        elif before.state == JobState.COMPLETED and not stream:
            assert (repeat.status, repeat.is_replay, len(simulation.dispatcher.calls)) == (200, True, calls)
        else:
            assert (repeat.status, len(simulation.dispatcher.calls), after) == (409, calls, before)
        simulation.settle()
    job = stored_job(simulation)
    assert job
    if job.state == JobState.FAILED:
        assert job.error_code in ("ProviderTimeout", "InternalError")
        assert job.maybe_billed == 1
    else:
        assert (job.state, job.maybe_billed) == (JobState.COMPLETED, 0)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("scenario", CALLS)
def test_crash_points_of_a_synchronous_request_are_all_its_calls(scenario: str, stream: bool) -> None:
    simulation = Simulation()
    prepare(simulation, scenario, stream=stream)
    calls = chat(simulation, stream=stream).calls
    assert calls == tuple("apply" if stream and call == "complete" else call for call in CALLS[scenario])


@pytest.mark.parametrize("dies", [True, False])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("scenario", "at"), [(scenario, at) for scenario, calls in CALLS.items() for at in range(1, len(calls) + 1)]
)
def test_synchronous_request_may_die_at_any_call(scenario: str, at: int, stream: bool, after: bool, dies: bool) -> None:
    simulation = Simulation()
    prepare(simulation, scenario, stream=stream)
    chat(simulation, stream=stream, at=at, after=after, dies=dies)
    check_repeats(simulation, stream=stream)


@pytest.mark.parametrize("scenario", CLOUD_CALLS)
@pytest.mark.parametrize("large", [False, True])
def test_synchronous_request_may_die_at_any_call_to_the_cloud(scenario: str, large: bool, ministack: str) -> None:
    create = partial(Simulation, partial(EmbeddedCloudBackend, ministack))
    simulation = create()
    prepare(simulation, scenario, large=large)
    calls = chat(simulation, large=large).calls
    assert tuple(call for call in calls if call != "put_object") == CLOUD_CALLS[scenario]
    assert calls.count("put_object") == (0 if not large else {"completed": 2, "failed": 1, "repeated": 1}[scenario])
    crash_points = [(at, after) for at in range(1, len(calls) + 1) for after in (False, True)]
    for at, after in sample(crash_points, f"{scenario} {large}"):
        with note_case(at, after):
            simulation = create()
            prepare(simulation, scenario, large=large)
            chat(simulation, large=large, at=at, after=after)
            check_repeats(simulation, large=large)


# --- concurrent requests


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("scenario", "at"), [(scenario, at) for scenario, calls in CALLS.items() for at in range(1, len(calls) + 1)]
)
def test_concurrent_requests_with_one_ref_id_are_billed_once(scenario: str, at: int, stream: bool) -> None:
    simulation = Simulation()
    prepare(simulation, scenario, stream=stream)
    simulation.interrupt_at(at, lambda: simulation.chat("r", stream=stream))
    chat(simulation, stream=stream)
    check_repeats(simulation, stream=stream)
    assert list(simulation.billed_calls.values()) == [1]


@pytest.mark.parametrize("is_completed", [True, False])
def test_repeat_waits_for_the_end_of_a_running_request(is_completed: bool, simulation: Simulation) -> None:
    chat(simulation, at=CALLS["completed"].index("complete") + 1)
    started = stored_job(simulation)
    assert started
    assert started.state == JobState.STARTED
    fields = terminal_fields(started, now_ms=simulation.clock.now, settled_days=7)
    params = {"attempt": started.attempt, "lease_token": started.lease_token, "served_by": "hosted", "calls": 1}
    params |= fields | {"usage": None, "maybe_billed": 0}

    def end_first_request() -> None:
        store = simulation.backend.job_store
        if is_completed:
            store.complete(COMPLETE, started, params | result_fields(None, None), b'{"id":"first"}')
        else:
            simulation.billed_calls.clear()
            store.apply(FAIL_SYNC, started.id, params | failure_fields(ProviderUnavailable("no")))

    simulation.interrupt_at(6, end_first_request)
    repeat = chat(simulation)
    assert (repeat.status, repeat.is_replay) == (200, is_completed)
    assert repeat.body == ('{"id":"first"}' if is_completed else '{"id":"1"}')
    assert len(simulation.dispatcher.calls) == (1 if is_completed else 2)


def test_repeat_of_a_request_that_does_not_end_is_a_conflict_in_time(simulation: Simulation) -> None:
    chat(simulation, at=CALLS["completed"].index("provider") + 1, after=True)
    begin_ms = simulation.clock.now
    assert chat(simulation).status == 409
    assert 20_000 <= simulation.clock.now - begin_ms <= HTTP_MS
    begin_ms = simulation.clock.now
    assert chat(simulation, stream=True).status == 409  # the body differs
    assert simulation.clock.now == begin_ms


def test_end_by_the_sweeper_stands_when_the_request_ends_late(simulation: Simulation) -> None:
    def expire_lease() -> None:
        simulation.clock.advance((HTTP_MS + MARGIN_S * 1000) / 1000 + 1)
        simulation.sweep()

    simulation.interrupt_at(CALLS["completed"].index("complete") + 1, expire_lease)
    first = chat(simulation)
    assert first.status == 200
    job = stored_job(simulation)
    assert job
    assert (job.state, job.error_code, job.maybe_billed) == (JobState.FAILED, "ProviderTimeout", 1)
    check_repeats(simulation)


def test_sweeper_leaves_a_running_request_alone_until_its_lease_ends(simulation: Simulation) -> None:
    def sweep_at_the_deadline() -> None:
        simulation.clock.advance(HTTP_MS / 1000 + MARGIN_S - 60)
        simulation.sweep()

    simulation.interrupt_at(CALLS["completed"].index("complete") + 1, sweep_at_the_deadline)
    chat(simulation)
    job = stored_job(simulation)
    assert job
    assert (job.state, job.maybe_billed) == (JobState.COMPLETED, 0)


@pytest.mark.parametrize("at", range(1, len(FIRST) + 2))
def test_cancel_of_a_running_request_ends_its_job_once(at: int, simulation: Simulation) -> None:
    def cancel() -> None:
        if job := stored_job(simulation):
            simulation.cancel(job.id)

    simulation.interrupt_at(at, cancel)
    assert chat(simulation).status == 200
    simulation.settle()
    job = stored_job(simulation)
    assert job
    is_cancelled = CALLS["completed"].index("create") + 1 < at <= len(FIRST)
    assert job.state == (JobState.CANCELLED if is_cancelled else JobState.COMPLETED)
    assert chat(simulation).status == (409 if is_cancelled else 200)
    assert len(simulation.dispatcher.calls) == 1


# --- a queued request with the same RefId


def test_queued_request_gets_the_completed_job_of_a_synchronous_one(simulation: Simulation) -> None:
    assert chat(simulation).status == 200
    simulation.run_process(partial(simulation.submit, "r", reply_to=False))
    simulation.settle()
    assert simulation.job_ids == [job.id for job in simulation.stored_jobs()]
    assert len(simulation.dispatcher.calls) == 1


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("at", range(1, 5))
def test_request_that_failed_without_effect_may_be_queued(at: int, after: bool, simulation: Simulation) -> None:
    """The calls of the queue function: the job of the RefId, its change, and the message."""
    prepare(simulation, "repeated")
    submit = partial(simulation.submit, "r")
    simulation.run_process(submit, at=at, after=after)
    simulation.run_process(submit)
    simulation.settle()
    job = stored_job(simulation)
    assert job
    assert (simulation.job_ids, job.state, job.callback) == ([job.id], JobState.COMPLETED, CallbackState.DELIVERED)
    assert (job.epoch, job.queue, len(simulation.dispatcher.calls)) == (1, "hosted", 2)


@pytest.mark.parametrize("at", range(1, 5))
def test_concurrent_requests_queue_a_failed_request_once(at: int, simulation: Simulation) -> None:
    prepare(simulation, "repeated")
    submit = partial(simulation.submit, "r")
    simulation.interrupt_at(at, submit)
    simulation.run_process(submit)
    simulation.settle()
    job = stored_job(simulation)
    assert job
    assert (simulation.job_ids, job.state, job.epoch) == ([job.id], JobState.COMPLETED, 1)
    assert len(simulation.dispatcher.calls) == 2


@pytest.mark.parametrize("at", range(1, 7))
def test_request_is_either_repeated_or_queued(at: int, simulation: Simulation) -> None:
    prepare(simulation, "repeated")
    simulation.interrupt_at(at, partial(simulation.submit, "r"))
    chat(simulation)
    simulation.settle()
    job = stored_job(simulation)
    assert job
    assert job.state == JobState.COMPLETED
    assert len(simulation.dispatcher.calls) == 2


@pytest.mark.parametrize("fault", [{"at": 4, "after": True}, {"at": 4, "dies": False}])
def test_request_with_an_unknown_outcome_is_not_queued(fault: dict[str, Any], simulation: Simulation) -> None:
    chat(simulation, **fault)
    for _ in range(2):
        simulation.run_process(partial(simulation.submit, "r"))
        simulation.settle()
    assert simulation.job_ids == []
    assert len(simulation.dispatcher.calls) <= 1
    job = stored_job(simulation)
    assert job
    assert (job.state, job.maybe_billed) == (JobState.FAILED, 1)

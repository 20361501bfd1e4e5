"""Incidents of jobs, one test each, over the fakes and over the embedded cloud."""

import json
from functools import partial
from typing import Any

import pytest

from aiserver.errors import ProviderRateLimited
from aiserver.jobs.job import Job
from aiserver.jobs.states import CallbackState, JobState
from tests.app import LEASE_MS, WORKER_MS, TestApp
from tests.crash.backends import EmbeddedCloudBackend
from tests.crash.scenarios import first_job_id
from tests.crash.simulation import Simulation
from tests.examples import examples

# The calls of a worker for one job; a process dies before or after one of them.
CLAIM, READ, CHECK_CIRCUIT, MARK, CALL, FINISH = range(1, 7)
WRITE = 1  # the calls of a submission
SEND = 2
DAY_S = 86_400


def job(simulation: Simulation) -> Job:
    return simulation.load_job(first_job_id(simulation))


def submit_job(simulation: Simulation, **options: Any) -> None:
    simulation.run_process(lambda: simulation.submit("r", **options))


def run_worker(simulation: Simulation, **fault: Any) -> bool:
    """Run a worker for the job's message."""
    return simulation.run_process(lambda: simulation.run_worker(first_job_id(simulation)), **fault)


def sweep_after(simulation: Simulation, seconds: float) -> Job:
    """Advance the clock, run the sweeper and return the job."""
    simulation.clock.advance(seconds)
    simulation.run_process(simulation.sweep)
    return job(simulation)


# --- submission


def test_job_runs_after_a_crash_that_follows_the_write(simulation: Simulation) -> None:
    assert not simulation.run_process(lambda: simulation.submit("r"), at=WRITE, after=True)
    assert (simulation.job_ids, simulation.messages) == ([], [])
    submit_job(simulation)  # the caller retries and finds the job
    assert len(simulation.backend.all_jobs()) == 1
    simulation.settle()
    assert (job(simulation).state, len(simulation.dispatcher.calls)) == (JobState.COMPLETED, 1)


def test_job_is_accepted_and_sent_by_the_sweeper_when_the_sqs_send_fails(simulation: Simulation) -> None:
    submit_job(simulation, reply_to=False)
    assert simulation.run_process(lambda: simulation.submit("other"), at=SEND, dies=False)
    assert len(simulation.job_ids) == 2
    simulation.messages.clear()
    sweep_after(simulation, 61)
    assert {message.job_id for message in simulation.messages} == set(simulation.job_ids)


def test_lost_message_is_resent_within_one_to_two_minutes() -> None:
    for second in range(60):  # second of the sweeper's minute at which the job is accepted
        app = TestApp()
        app.clock.advance(second)
        job, accepted_at = app.accept(), app.clock.now
        app.messages.jobs.clear()
        app.clock.advance(60 - second)
        while not app.messages.jobs:
            app.sweep.sweep(remaining_ms=50_000)
            app.clock.advance(60)
        assert 60 <= (app.clock.now - 60_000 - accepted_at) / 1000 <= 120, second
        assert app.reload(job).resends == 1


def test_ref_id_with_another_body_is_a_conflict(simulation: Simulation) -> None:
    submit_job(simulation)
    submit_job(simulation)
    assert len(simulation.job_ids) == len(simulation.backend.all_jobs()) == 1
    conflicting_body = {
        "refId": "r",
        "request": {"model": "m", "messages": [{"role": "user", "content": "something else"}]},
    }
    response = simulation.post("QueueOpenAiChatCompletion", conflicting_body)
    assert (response["statusCode"], json.loads(response["body"])["error"]["code"]) == (409, "idempotency_conflict")


# --- messages


def test_concurrent_duplicate_messages_make_one_call(simulation: Simulation) -> None:
    submit_job(simulation)
    for moment in (CLAIM, READ, CHECK_CIRCUIT, MARK, CALL, FINISH):
        simulation.interrupt_at(moment, lambda: simulation.run_worker(first_job_id(simulation)))
        run_worker(simulation)
    simulation.settle()
    assert (job(simulation).attempt, job(simulation).calls, len(simulation.dispatcher.calls)) == (1, 1, 1)


def test_message_after_the_terminal_state_changes_nothing(simulation: Simulation) -> None:
    submit_job(simulation)
    run_worker(simulation)
    before = job(simulation)
    assert run_worker(simulation)
    assert job(simulation) == before
    assert len(simulation.dispatcher.calls) == 1


@pytest.mark.parametrize("body", ["", "{", "[]", "null", '{"id":null}', '{"id":"x"}', '{"id":1e999}', '{"job":1}'])
def test_malformed_message_is_reported_and_its_batch_continues(body: str, simulation: Simulation) -> None:
    submit_job(simulation)
    simulation.messages.clear()
    response = simulation.run_worker_batch({"bad": body, "good": json.dumps({"id": first_job_id(simulation)})})
    assert response == {"batchItemFailures": [{"itemIdentifier": "bad"}]}
    assert job(simulation).state == JobState.COMPLETED


def test_message_of_an_unknown_job_is_deleted(simulation: Simulation) -> None:
    assert simulation.run_worker(4711) == {"batchItemFailures": []}


# --- workers that die or are late


def test_worker_killed_after_its_claim_is_not_billed(simulation: Simulation) -> None:
    submit_job(simulation)
    assert not run_worker(simulation, at=CLAIM, after=True)
    requeued = sweep_after(simulation, LEASE_MS / 1000 + 1)
    assert (requeued.state, requeued.calls, requeued.maybe_billed) == (JobState.QUEUED, 0, 0)
    simulation.settle()
    assert (job(simulation).state, job(simulation).attempt, job(simulation).maybe_billed) == (JobState.COMPLETED, 2, 0)


@pytest.mark.parametrize("fault", [{"at": CALL, "after": True}, {"at": FINISH, "after": False}])
@pytest.mark.parametrize("gpu", [False, True])
def test_worker_killed_during_the_call_or_before_the_finish(gpu: bool, fault: Any, simulation: Simulation) -> None:
    submit_job(simulation, gpu=gpu)
    assert not run_worker(simulation, **fault)
    recovered = sweep_after(simulation, LEASE_MS / 1000 + 1)
    assert recovered.maybe_billed == 1
    simulation.settle()
    if gpu:  # an unknown outcome costs no money: the call is repeated
        assert (job(simulation).state, job(simulation).calls) == (JobState.COMPLETED, 2)
    else:
        assert (job(simulation).state, job(simulation).error_code, job(simulation).calls) == (
            JobState.FAILED,
            "ProviderTimeout",
            1,
        )


def test_worker_killed_after_the_finish_but_before_the_acknowledgement(simulation: Simulation) -> None:
    submit_job(simulation)
    simulation.receive(0, at=FINISH, after=True)
    assert job(simulation).state == JobState.COMPLETED
    assert [message.receives for message in simulation.messages if message.kind == "job"] == [1]
    simulation.settle()
    assert len(simulation.dispatcher.calls) == 1


@pytest.mark.parametrize("moment", [READ, CHECK_CIRCUIT, MARK, CALL, FINISH])
@pytest.mark.parametrize("gpu", [False, True])
def test_late_worker_changes_nothing(gpu: bool, moment: int, simulation: Simulation) -> None:
    submit_job(simulation, gpu=gpu, reply_to=False)

    def expire_lease_and_run_another_worker() -> None:
        simulation.clock.advance(LEASE_MS / 1000 + 1)
        simulation.sweep()
        simulation.run_worker(first_job_id(simulation))
        nonlocal before
        before = job(simulation)

    before = job(simulation)
    simulation.interrupt_at(moment, expire_lease_and_run_another_worker)
    run_worker(simulation)
    assert before.has_ended
    assert job(simulation) == before


def test_finish_that_times_out_after_its_commit_is_idempotent(simulation: Simulation) -> None:
    submit_job(simulation)
    assert run_worker(simulation, at=FINISH, after=True, dies=False)
    assert (job(simulation).state, job(simulation).calls, job(simulation).maybe_billed) == (JobState.COMPLETED, 1, 0)


def test_mark_that_times_out_requeues_the_job_without_a_call(simulation: Simulation) -> None:
    submit_job(simulation)
    assert run_worker(simulation, at=MARK, after=True, dies=False)
    assert (job(simulation).state, job(simulation).wait_reason) == (JobState.QUEUED, "storage_unavailable")
    assert simulation.dispatcher.calls == []
    simulation.settle()
    assert (job(simulation).state, len(simulation.dispatcher.calls)) == (JobState.COMPLETED, 1)


# --- waiting


def test_two_hours_of_429_cost_only_waiting_time(simulation: Simulation) -> None:
    submit_job(simulation, reply_to=False)
    start = simulation.clock.now
    while simulation.clock.now < start + 7_200_000:
        simulation.dispatcher.outcomes = [ProviderRateLimited(retry_after_s=600)]
        simulation.receive(0)
        assert (job(simulation).state, job(simulation).wait_reason) == (JobState.QUEUED, "provider_rate_limited")
        (message,) = simulation.messages  # the old message is acknowledged; the new one has no receives
        assert (message.visible_at, message.receives) == (job(simulation).not_before + 1000, 0)
        simulation.clock.now = message.visible_at
    assert job(simulation).attempt == 12
    simulation.dispatcher.outcomes.clear()
    simulation.settle()
    assert (job(simulation).state, job(simulation).maybe_billed) == (JobState.COMPLETED, 0)


def test_jobs_that_wait_for_an_hour_are_resent_a_few_times_each() -> None:
    app = TestApp({"name": "gpu", "queue": "gpu", "models": {"m": ""}})
    accepted: list[Job] = []
    for _ in range(examples(10_000)):
        accepted.append(app.accept())
        app.clock.advance(0.001)
    app.messages.jobs.clear()
    for _ in range(60):
        app.clock.advance(60)
        app.sweep.sweep(remaining_ms=50_000)
    assert len(app.messages.jobs) == sum(app.reload(job).resends for job in accepted)
    assert {app.reload(job).resends for job in accepted} <= {6, 7}


# --- cancelling


@pytest.mark.parametrize("moment", [CLAIM, READ, CHECK_CIRCUIT, MARK, CALL, FINISH])
def test_cancel_that_races_claim_and_finish_ends_the_job_once(moment: int, simulation: Simulation) -> None:
    submit_job(simulation)
    simulation.interrupt_at(moment, lambda: simulation.cancel(first_job_id(simulation)))
    run_worker(simulation)
    assert job(simulation).state == JobState.CANCELLED
    assert len(simulation.dispatcher.calls) == (1 if moment > MARK else 0)
    simulation.settle()
    assert job(simulation).callback == CallbackState.DELIVERED


def test_cancel_after_the_finish_is_a_conflict(simulation: Simulation) -> None:
    submit_job(simulation)
    run_worker(simulation)
    assert simulation.post("CancelJob", {"refId": "r"})["statusCode"] == 409
    assert job(simulation).state == JobState.COMPLETED


# --- sweepers and clocks


def test_concurrent_sweepers_send_each_message_once(simulation: Simulation) -> None:
    for number in range(3):
        simulation.run_process(partial(simulation.submit, f"r{number}"))
    for moment in range(1, 21):
        simulation.clock.advance(1000)
        simulation.messages.clear()
        simulation.interrupt_at(moment, simulation.sweep)
        simulation.run_process(simulation.sweep)
        assert sorted(message.job_id for message in simulation.messages) == sorted(simulation.job_ids), moment


def test_sweeper_that_was_down_for_an_hour_recovers_every_job(simulation: Simulation) -> None:
    for number in range(4):
        simulation.run_process(partial(simulation.submit, f"r{number}"))
    lost, abandoned, completed, expiring = simulation.job_ids
    simulation.run_process(lambda: simulation.run_worker(abandoned), at=CLAIM, after=True)
    simulation.run_process(lambda: simulation.run_worker(completed))
    simulation.messages.clear()
    simulation.clock.advance(3600)
    simulation.run_process(simulation.sweep)
    assert sorted(message.job_id for message in simulation.messages) == sorted([lost, abandoned, completed, expiring])
    simulation.settle()
    assert {simulation.load_job(job_id).state for job_id in simulation.job_ids} == {JobState.COMPLETED}


@pytest.mark.parametrize("worker_s", [-60, 60])
@pytest.mark.parametrize("sweeper_s", [-60, 60])
def test_clock_skew_of_a_minute_takes_no_job_from_a_live_worker(
    worker_s: int, sweeper_s: int, simulation: Simulation
) -> None:
    submit_job(simulation)

    def sweep_shortly_before_the_timeout() -> None:
        simulation.clock.advance(WORKER_MS / 1000 - 10 - worker_s + sweeper_s)
        simulation.sweep()
        simulation.clock.advance(worker_s - sweeper_s)

    simulation.interrupt_at(FINISH, sweep_shortly_before_the_timeout)
    run_worker(simulation, skew_s=worker_s)
    assert (job(simulation).state, job(simulation).attempt, job(simulation).maybe_billed) == (JobState.COMPLETED, 1, 0)


@pytest.mark.parametrize(("first_s", "second_s"), [(-60, 60), (60, -60)])
def test_clock_skew_of_a_minute_loses_no_waiting_job(first_s: int, second_s: int, simulation: Simulation) -> None:
    simulation.run_process(lambda: simulation.submit("r"), skew_s=first_s)
    simulation.dispatcher.outcomes = [ProviderRateLimited(retry_after_s=90)]
    simulation.receive(0, skew_s=second_s)
    while job(simulation).state == JobState.QUEUED:
        simulation.clock.now = min(message.visible_at for message in simulation.messages)
        simulation.receive(0, skew_s=first_s)
    assert (job(simulation).state, len(simulation.dispatcher.calls)) == (JobState.COMPLETED, 2)


# --- storage


def test_failed_s3_write_of_a_request_accepts_no_job(ministack: str) -> None:
    simulation = Simulation(partial(EmbeddedCloudBackend, ministack))
    simulation.fault_points.broken = {"put_object"}
    submit_job(simulation, large=True)
    assert (simulation.job_ids, simulation.backend.all_jobs(), simulation.messages) == ([], [], [])
    simulation.fault_points.broken.clear()
    submit_job(simulation, large=True)
    simulation.settle()
    assert job(simulation).state == JobState.COMPLETED


def test_failed_s3_read_of_a_request_makes_the_job_wait(ministack: str) -> None:
    simulation = Simulation(partial(EmbeddedCloudBackend, ministack))
    submit_job(simulation, large=True)
    simulation.fault_points.broken = {"get_object"}
    simulation.receive(0)
    assert (job(simulation).state, job(simulation).wait_reason) == (JobState.QUEUED, "storage_unavailable")
    simulation.fault_points.broken.clear()
    simulation.settle()
    assert (job(simulation).state, len(simulation.dispatcher.calls)) == (JobState.COMPLETED, 1)


def test_transient_s3_failure_loses_no_result(ministack: str) -> None:
    simulation = Simulation(partial(EmbeddedCloudBackend, ministack))
    submit_job(simulation, large=True)
    assert run_worker(simulation, at=FINISH, dies=False)
    assert (job(simulation).state, job(simulation).calls, job(simulation).maybe_billed) == (JobState.COMPLETED, 1, 0)


def test_lasting_s3_failure_means_unknown_outcome_without_a_second_call(ministack: str) -> None:
    simulation = Simulation(partial(EmbeddedCloudBackend, ministack))
    submit_job(simulation, large=True)
    simulation.fault_points.broken = {"put_object"}
    assert not run_worker(simulation)
    simulation.fault_points.broken.clear()
    failed = sweep_after(simulation, LEASE_MS / 1000 + 1)
    assert (failed.state, failed.error_code, failed.maybe_billed) == (JobState.FAILED, "ProviderTimeout", 1)
    simulation.settle()


def test_job_past_its_time_to_live_is_not_read(simulation: Simulation) -> None:
    """DynamoDB may delete an item hours after its time to live."""
    submit_job(simulation, reply_to=False)
    run_worker(simulation)
    simulation.clock.advance(7 * DAY_S - 1)
    assert simulation.post("CancelJob", {"refId": "r"})["statusCode"] == 409
    simulation.clock.advance(1)
    for reference in ({"refId": "r"}, {"id": first_job_id(simulation)}):
        assert simulation.post("CancelJob", reference)["statusCode"] == 404
    assert simulation.use_cases.status.list_jobs(job(simulation).owner, take=9).jobs == []
    submit_job(simulation)  # its RefId is free again
    assert len(simulation.job_ids) == 2

"""What can befall a job, incident by incident: each by its name, over the fakes and over the embedded cloud."""

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

# The calls a worker makes for one job; a process dies before or after one of them.
CLAIM, READ, LOOK, MARK, ASK, FINISH = range(1, 7)
WRITE = 1  # of accepting
SEND = 2
DAY_S = 86_400


def job(world: Simulation) -> Job:
    return world.now_of(first_job_id(world))


def queued(world: Simulation, **more: Any) -> None:
    world.alive(lambda: world.ask("r", **more))


def work(world: Simulation, **fate: Any) -> bool:
    """A worker gets the job's message."""
    return world.alive(lambda: world.work(first_job_id(world)), **fate)


def swept(world: Simulation, seconds: float) -> Job:
    """The job after so much time and a sweep."""
    world.clock.advance(seconds)
    world.alive(world.sweep)
    return job(world)


# --- accepting


def test_accept_crashes_after_the_write_and_the_job_runs_all_the_same(world: Simulation) -> None:
    assert not world.alive(lambda: world.ask("r"), at=WRITE, after=True)
    assert (world.accepted, world.bag) == ([], [])
    queued(world)  # the caller asks again, and finds the job
    assert len(world.backend.all_jobs()) == 1
    world.settle()
    assert (job(world).state, len(world.protocol.calls)) == (JobState.COMPLETED, 1)


def test_sqs_send_fails_and_the_job_is_accepted_and_sent_by_the_sweeper(world: Simulation) -> None:
    queued(world, reply_to=False)
    assert world.alive(lambda: world.ask("other"), at=SEND, dies=False)
    assert len(world.accepted) == 2
    world.bag.clear()
    swept(world, 61)
    assert {message.job_id for message in world.bag} == set(world.accepted)


def test_a_message_lost_after_accept_is_sent_again_within_one_to_two_minutes() -> None:
    for second in range(60):  # of the sweeper's minute, at which the job is accepted
        house = TestApp()
        house.clock.advance(second)
        accepted, at = house.accept(), house.clock.now
        house.messages.jobs.clear()
        house.clock.advance(60 - second)
        while not house.messages.jobs:
            house.sweep.sweep(remaining_ms=50_000)
            house.clock.advance(60)
        assert 60 <= (house.clock.now - 60_000 - at) / 1000 <= 120, second
        assert house.now(accepted).resends == 1


def test_a_ref_id_with_the_same_body_is_the_same_job_with_another_body_a_conflict(world: Simulation) -> None:
    queued(world)
    queued(world)
    assert len(world.accepted) == len(world.backend.all_jobs()) == 1
    other = {"refId": "r", "request": {"model": "m", "messages": [{"role": "user", "content": "something else"}]}}
    refused = world.post("QueueOpenAiChatCompletion", other)
    assert (refused["statusCode"], json.loads(refused["body"])["error"]["code"]) == (409, "idempotency_conflict")


# --- messages


def test_the_same_message_twice_at_once_is_one_call(world: Simulation) -> None:
    queued(world)
    for moment in (CLAIM, READ, LOOK, MARK, ASK, FINISH):
        world.meanwhile(moment, lambda: world.work(first_job_id(world)))
        work(world)
    world.settle()
    assert (job(world).attempt, job(world).calls, len(world.protocol.calls)) == (1, 1, 1)


def test_a_message_after_the_end_changes_nothing(world: Simulation) -> None:
    queued(world)
    work(world)
    before = job(world)
    assert work(world)
    assert job(world) == before
    assert len(world.protocol.calls) == 1


@pytest.mark.parametrize("body", ["", "{", "[]", "null", '{"id":null}', '{"id":"x"}', '{"id":1e999}', '{"job":1}'])
def test_a_malformed_message_body_is_reported_and_its_batch_goes_on(body: str, world: Simulation) -> None:
    queued(world)
    world.bag.clear()
    told = world.work_records({"bad": body, "good": json.dumps({"id": first_job_id(world)})})
    assert told == {"batchItemFailures": [{"itemIdentifier": "bad"}]}
    assert job(world).state == JobState.COMPLETED


def test_a_message_that_names_no_job_is_done_with(world: Simulation) -> None:
    assert world.work(4711) == {"batchItemFailures": []}


# --- workers that die or come late


def test_a_worker_killed_after_its_claim_costs_nothing(world: Simulation) -> None:
    queued(world)
    assert not work(world, at=CLAIM, after=True)
    again = swept(world, LEASE_MS / 1000 + 1)
    assert (again.state, again.calls, again.maybe_billed) == (JobState.QUEUED, 0, 0)
    world.settle()
    assert (job(world).state, job(world).attempt, job(world).maybe_billed) == (JobState.COMPLETED, 2, 0)


@pytest.mark.parametrize("fate", [{"at": ASK, "after": True}, {"at": FINISH, "after": False}])
@pytest.mark.parametrize("gpu", [False, True])
def test_a_worker_killed_during_the_call_or_before_it_could_finish(gpu: bool, fate: Any, world: Simulation) -> None:
    queued(world, gpu=gpu)
    assert not work(world, **fate)
    recovered = swept(world, LEASE_MS / 1000 + 1)
    assert recovered.maybe_billed == 1
    world.settle()
    if gpu:  # an unknown outcome costs nobody money: it is asked again
        assert (job(world).state, job(world).calls) == (JobState.COMPLETED, 2)
    else:
        assert (job(world).state, job(world).error_code, job(world).calls) == (JobState.FAILED, "ProviderTimeout", 1)


def test_a_worker_killed_after_it_finished_but_before_it_acknowledged(world: Simulation) -> None:
    queued(world)
    world.receive(0, at=FINISH, after=True)
    assert job(world).state == JobState.COMPLETED
    assert [message.receives for message in world.bag if message.kind == "job"] == [1]
    world.settle()
    assert len(world.protocol.calls) == 1


@pytest.mark.parametrize("moment", [READ, LOOK, MARK, ASK, FINISH])
@pytest.mark.parametrize("gpu", [False, True])
def test_a_late_worker_changes_nothing(gpu: bool, moment: int, world: Simulation) -> None:
    queued(world, gpu=gpu, reply_to=False)

    def its_lease_runs_out_and_another_takes_the_job() -> None:
        world.clock.advance(LEASE_MS / 1000 + 1)
        world.sweep()
        world.work(first_job_id(world))
        nonlocal before
        before = job(world)

    before = job(world)
    world.meanwhile(moment, its_lease_runs_out_and_another_takes_the_job)
    work(world)
    assert before.has_ended
    assert job(world) == before


def test_a_finish_that_times_out_but_was_committed_counts_as_made(world: Simulation) -> None:
    queued(world)
    assert work(world, at=FINISH, after=True, dies=False)
    assert (job(world).state, job(world).calls, job(world).maybe_billed) == (JobState.COMPLETED, 1, 0)


def test_a_mark_that_times_out_lets_the_job_go_without_a_call(world: Simulation) -> None:
    queued(world)
    assert work(world, at=MARK, after=True, dies=False)
    assert (job(world).state, job(world).wait_reason) == (JobState.QUEUED, "storage_unavailable")
    assert world.protocol.calls == []
    world.settle()
    assert (job(world).state, len(world.protocol.calls)) == (JobState.COMPLETED, 1)


# --- waiting


def test_two_hours_of_429_cost_no_more_than_their_waits(world: Simulation) -> None:
    queued(world, reply_to=False)
    began = world.clock.now
    while world.clock.now < began + 7_200_000:
        world.protocol.outcomes = [ProviderRateLimited(retry_after_s=600)]
        world.receive(0)
        assert (job(world).state, job(world).wait_reason) == (JobState.QUEUED, "provider_rate_limited")
        (message,) = world.bag  # the old one is acknowledged, and receives begin anew: none is used up
        assert (message.visible_at, message.receives) == (job(world).not_before + 1000, 0)
        world.clock.now = message.visible_at
    assert job(world).attempt == 12
    world.protocol.outcomes.clear()
    world.settle()
    assert (job(world).state, job(world).maybe_billed) == (JobState.COMPLETED, 0)


def test_jobs_that_wait_for_an_hour_are_sent_again_a_few_times_each() -> None:
    house = TestApp({"name": "gpu", "queue": "gpu", "models": {"m": ""}})
    accepted: list[Job] = []
    for _ in range(examples(10_000)):
        accepted.append(house.accept())
        house.clock.advance(0.001)
    house.messages.jobs.clear()
    for _ in range(60):
        house.clock.advance(60)
        house.sweep.sweep(remaining_ms=50_000)
    assert len(house.messages.jobs) == sum(house.now(job).resends for job in accepted)
    assert {house.now(job).resends for job in accepted} <= {6, 7}


# --- cancelling


@pytest.mark.parametrize("moment", [CLAIM, READ, LOOK, MARK, ASK, FINISH])
def test_a_cancel_that_races_claim_and_finish_ends_the_job_once(moment: int, world: Simulation) -> None:
    queued(world)
    world.meanwhile(moment, lambda: world.cancel(first_job_id(world)))
    work(world)
    assert job(world).state == JobState.CANCELLED
    assert len(world.protocol.calls) == (1 if moment > MARK else 0)
    world.settle()
    assert job(world).callback == CallbackState.DELIVERED


def test_a_cancel_after_the_finish_is_a_conflict(world: Simulation) -> None:
    queued(world)
    work(world)
    assert world.post("CancelJob", {"refId": "r"})["statusCode"] == 409
    assert job(world).state == JobState.COMPLETED


# --- sweepers and clocks


def test_two_sweepers_at_once_send_each_message_once(world: Simulation) -> None:
    for number in range(3):
        world.alive(partial(world.ask, f"r{number}"))
    for moment in range(1, 21):
        world.clock.advance(1000)
        world.bag.clear()
        world.meanwhile(moment, world.sweep)
        world.alive(world.sweep)
        assert sorted(message.job_id for message in world.bag) == sorted(world.accepted), moment


def test_a_sweeper_away_for_an_hour_finds_everything_when_it_is_back(world: Simulation) -> None:
    for number in range(4):
        world.alive(partial(world.ask, f"r{number}"))
    lost, abandoned, ended, expiring = world.accepted
    world.alive(lambda: world.work(abandoned), at=CLAIM, after=True)
    world.alive(lambda: world.work(ended))
    world.bag.clear()
    world.clock.advance(3600)
    world.alive(world.sweep)
    assert sorted(message.job_id for message in world.bag) == sorted([lost, abandoned, ended, expiring])
    world.settle()
    assert {world.now_of(job_id).state for job_id in world.accepted} == {JobState.COMPLETED}


@pytest.mark.parametrize("worker_s", [-60, 60])
@pytest.mark.parametrize("sweeper_s", [-60, 60])
def test_clocks_that_are_a_minute_off_take_no_job_from_a_worker_that_lives(
    worker_s: int, sweeper_s: int, world: Simulation
) -> None:
    queued(world)

    def almost_all_its_time_goes_by_and_a_sweeper_looks() -> None:
        world.clock.advance(WORKER_MS / 1000 - 10 - worker_s + sweeper_s)
        world.sweep()
        world.clock.advance(worker_s - sweeper_s)

    world.meanwhile(FINISH, almost_all_its_time_goes_by_and_a_sweeper_looks)
    work(world, skew_s=worker_s)
    assert (job(world).state, job(world).attempt, job(world).maybe_billed) == (JobState.COMPLETED, 1, 0)


@pytest.mark.parametrize(("first_s", "second_s"), [(-60, 60), (60, -60)])
def test_clocks_that_are_a_minute_off_make_a_wait_no_loss(first_s: int, second_s: int, world: Simulation) -> None:
    world.alive(lambda: world.ask("r"), skew_s=first_s)
    world.protocol.outcomes = [ProviderRateLimited(retry_after_s=90)]
    world.receive(0, skew_s=second_s)
    while job(world).state == JobState.QUEUED:
        world.clock.now = min(message.visible_at for message in world.bag)
        world.receive(0, skew_s=first_s)
    assert (job(world).state, len(world.protocol.calls)) == (JobState.COMPLETED, 2)


# --- storage


def test_s3_that_refuses_a_request_accepts_nothing(ministack: str) -> None:
    world = Simulation(partial(EmbeddedCloudBackend, ministack))
    world.crashes.broken = {"put_object"}
    queued(world, large=True)
    assert (world.accepted, world.backend.all_jobs(), world.bag) == ([], [], [])
    world.crashes.broken.clear()
    queued(world, large=True)
    world.settle()
    assert job(world).state == JobState.COMPLETED


def test_s3_that_refuses_to_give_a_request_makes_the_job_wait(ministack: str) -> None:
    world = Simulation(partial(EmbeddedCloudBackend, ministack))
    queued(world, large=True)
    world.crashes.broken = {"get_object"}
    world.receive(0)
    assert (job(world).state, job(world).wait_reason) == (JobState.QUEUED, "storage_unavailable")
    world.crashes.broken.clear()
    world.settle()
    assert (job(world).state, len(world.protocol.calls)) == (JobState.COMPLETED, 1)


def test_s3_that_refuses_a_result_for_a_moment_loses_no_answer(ministack: str) -> None:
    world = Simulation(partial(EmbeddedCloudBackend, ministack))
    queued(world, large=True)
    assert work(world, at=FINISH, dies=False)
    assert (job(world).state, job(world).calls, job(world).maybe_billed) == (JobState.COMPLETED, 1, 0)


def test_s3_that_refuses_a_result_for_long_ends_in_an_unknown_outcome_that_is_not_repeated(ministack: str) -> None:
    world = Simulation(partial(EmbeddedCloudBackend, ministack))
    queued(world, large=True)
    world.crashes.broken = {"put_object"}
    assert not work(world)
    world.crashes.broken.clear()
    failed = swept(world, LEASE_MS / 1000 + 1)
    assert (failed.state, failed.error_code, failed.maybe_billed) == (JobState.FAILED, "ProviderTimeout", 1)
    world.settle()


def test_a_job_past_its_time_to_live_is_not_read_though_it_is_not_yet_deleted(world: Simulation) -> None:
    queued(world, reply_to=False)
    work(world)
    world.clock.advance(7 * DAY_S - 1)
    assert world.post("CancelJob", {"refId": "r"})["statusCode"] == 409
    world.clock.advance(1)
    for named in ({"refId": "r"}, {"id": first_job_id(world)}):
        assert world.post("CancelJob", named)["statusCode"] == 404
    assert world.parts.status.list_jobs(job(world).owner, tag=None, state=None, take=9, cursor=None).jobs == []
    queued(world)  # its RefId is free again
    assert len(world.accepted) == 2

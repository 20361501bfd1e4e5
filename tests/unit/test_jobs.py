"""A job's life through the real use cases: accepted, run, waiting, failing, cancelled, recovered, never lost."""

import threading
from collections.abc import Collection

import pytest

from aiserver.clock import job_id
from aiserver.errors import (
    Conflict,
    InvalidRequest,
    NotFound,
    ProviderAuth,
    ProviderError,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
)
from aiserver.jobs.backoff import full_jitter_s, resend_delay_ms, sqs_delay_s
from aiserver.jobs.job import Job
from aiserver.jobs.ports import ConditionFailed
from aiserver.jobs.states import CallbackState, JobState
from aiserver.jobs.transitions import CLAIM, MARK_CALL, REDRIVE, TRANSITIONS
from aiserver.usecases.record_outcome import MAX_INVALID_RESPONSES
from aiserver.usecases.status import Status
from aiserver.wire import requests
from tests.app import ANSWER, BODY, ME, FakeWebhookClient, TestApp
from tests.crash.fault_points import FaultPoints, FaultyProxy

GPU = {"name": "gpu", "queue": "gpu", "models": {"m": ""}}


def test_an_accepted_job_is_run_once_and_keeps_its_answer() -> None:
    house = TestApp()
    job = house.accept(tag="t")
    assert house.messages.jobs == [("hosted", job.id, 0)]
    done = house.run(job)
    assert (done.state, done.attempt, done.calls, done.served_by) == (JobState.COMPLETED, 1, 1, "p")
    assert house.jobs.read_result(done) == ANSWER.body
    assert (done.due_at, done.callback, done.ttl) == (None, CallbackState.NONE, house.clock.now // 1000 + 7 * 86_400)
    house.run(job)
    assert len(house.protocol.calls) == 1


def test_the_provider_gets_an_idempotency_key_and_its_own_name_for_the_model() -> None:
    house = TestApp({"name": "p", "models": {"m": "vendor/m-8b"}})
    job = house.accept()
    house.run(job)
    (_, call) = house.protocol.calls[0]
    assert call["idempotency_key"] == f"job-{job.id}-0"
    assert call["body"] == BODY.replace('"m"', '"vendor/m-8b"').encode()


@pytest.mark.parametrize(
    ("error", "reason", "least_s", "most_s"),
    [
        (ProviderRateLimited(retry_after_s=120), "provider_rate_limited", 120, 120),
        (ProviderUnavailable(), "provider_unavailable", 0, 2),
        (ProviderError(), "provider_error", 0, 2),
    ],
)
def test_waiting_is_not_failing(error: ProviderError, reason: str, least_s: int, most_s: int) -> None:
    house = TestApp()
    job = house.accept()
    house.protocol.outcomes = [error]
    waiting = house.run(job)
    wait_ms = waiting.not_before - house.clock.now
    assert (waiting.state, waiting.wait_reason, waiting.lease_token) == (JobState.QUEUED, reason, None)
    assert least_s * 1000 <= wait_ms <= most_s * 1000
    assert house.messages.jobs[-1] == ("hosted", job.id, sqs_delay_s(wait_ms))
    early = house.run(job)
    assert early == waiting
    house.clock.now = waiting.not_before
    assert house.run(job).state == JobState.COMPLETED


def test_a_job_waits_for_a_cold_gpu_until_its_deadline_and_says_why() -> None:
    house = TestApp(GPU)
    job = house.accept(deadline=3600)
    while house.now(job).state == JobState.QUEUED:
        house.protocol.outcomes = [ProviderUnavailable()]
        waiting = house.run(job)
        house.clock.now = max(house.clock.now + 1000, waiting.not_before)
    ended = house.now(job)
    assert (ended.state, ended.error_code) == (JobState.FAILED, "Expired")
    assert "provider_cold_start" in (ended.error or "")
    assert ended.attempt > 10


def test_a_provider_that_keeps_failing_is_given_up() -> None:
    house = TestApp()
    job = house.accept()
    for _ in range(MAX_INVALID_RESPONSES):
        house.protocol.outcomes = [ProviderAuth()]
        house.clock.now = house.run(job).not_before
    assert (house.now(job).state, house.now(job).error_sub_code) == (JobState.FAILED, "provider_auth")


def test_waits_do_not_use_up_the_tries_of_a_provider_that_answers_badly() -> None:
    house = TestApp()
    job = house.accept()
    for _ in range(2 * MAX_INVALID_RESPONSES):
        house.protocol.outcomes = [ProviderRateLimited(retry_after_s=1)]
        house.clock.now = house.run(job).not_before
    for _ in range(MAX_INVALID_RESPONSES - 1):
        house.protocol.outcomes = [ProviderError()]
        house.clock.now = house.run(job).not_before
    assert house.run(job).state == JobState.COMPLETED


def test_a_redriven_job_has_all_its_tries_again() -> None:
    house = TestApp()
    job = house.accept()
    for tries in (MAX_INVALID_RESPONSES, 2 * MAX_INVALID_RESPONSES):
        while house.now(job).state == JobState.QUEUED:
            house.protocol.outcomes = [ProviderError()]
            house.clock.now = max(house.clock.now, house.run(job).not_before)
        assert (house.now(job).state, house.now(job).calls) == (JobState.FAILED, tries)
        now, deadline = house.clock.now, house.clock.now + 86_400_000
        house.jobs.apply(REDRIVE, job.id, {"now": now, "due_at": now + 60_000, "deadline": deadline})


def test_every_call_to_a_gpu_whose_outcome_is_unknown_is_counted_though_a_later_one_answered() -> None:
    house = TestApp(GPU, GPU | {"name": "gpu-2"}, GPU | {"name": "gpu-3"})
    job = house.accept()
    house.protocol.outcomes = [ProviderTimeout(may_be_billed=True), ProviderTimeout(may_be_billed=True)]
    done = house.run(job)
    assert (done.state, done.calls, done.maybe_billed) == (JobState.COMPLETED, 3, 2)


def test_a_refused_request_fails_at_once() -> None:
    house = TestApp()
    job = house.accept()
    house.protocol.outcomes = [ProviderRejected("too long")]
    failed = house.run(job)
    assert (failed.state, failed.error, failed.attempt) == (JobState.FAILED, "too long", 1)


def test_a_hosted_provider_s_unknown_outcome_is_neither_repeated_nor_failed_over() -> None:
    house = TestApp({"name": "p", "priority": 1, "models": {"m": ""}}, {"name": "q", "models": {"m": ""}})
    job = house.accept()
    house.protocol.outcomes = [ProviderTimeout(may_be_billed=True)]
    failed = house.run(job)
    assert (failed.state, failed.error_code, failed.maybe_billed) == (JobState.FAILED, "ProviderTimeout", 1)
    assert [name for name, _ in house.protocol.calls] == ["p"]


def test_an_own_gpu_s_unknown_outcome_is_asked_again() -> None:
    house = TestApp(GPU)
    job = house.accept()
    house.protocol.outcomes = [ProviderTimeout(may_be_billed=True)]
    waiting = house.run(job)
    assert (waiting.state, waiting.maybe_billed) == (JobState.QUEUED, 1)
    house.clock.now = waiting.not_before
    done = house.run(job)
    assert (done.state, done.maybe_billed, done.calls) == (JobState.COMPLETED, 1, 2)


def test_the_next_provider_is_asked_when_one_is_known_to_have_done_nothing() -> None:
    house = TestApp({"name": "p", "priority": 2, "models": {"m": ""}}, {"name": "q", "models": {"m": ""}})
    job = house.accept()
    house.protocol.outcomes = [ProviderUnavailable()]
    assert house.run(job).served_by == "q"
    assert house.now(job).calls == 2


def test_a_job_whose_model_is_gone_fails_with_the_reason() -> None:
    house = TestApp()
    job = house.accept()
    house.providers.clear()
    house.clock.advance(31)
    failed = house.run(job)
    assert (failed.state, failed.error_code) == (JobState.FAILED, "NotFound")


def test_a_job_whose_request_is_gone_fails_with_the_reason_and_asks_nobody() -> None:
    house = TestApp()
    job = house.accept()
    house.jobs.bodies.clear()
    failed = house.run(job)
    assert (failed.state, failed.error, failed.calls) == (JobState.FAILED, "The job's request is no longer kept", 0)


@pytest.mark.parametrize("marked", [False, True])
@pytest.mark.parametrize("queue", ["hosted", "gpu"])
def test_a_worker_that_dies_is_recovered_as_its_queue_allows(queue: str, marked: bool) -> None:
    house = TestApp({"name": "p", "queue": queue, "models": {"m": ""}})
    job = house.accept()
    lease_until = house.clock.now + 930_000
    house.jobs.apply(CLAIM, job.id, {"now": house.clock.now, "lease_token": "t", "lease_until": lease_until})
    if marked:
        house.jobs.apply(
            MARK_CALL,
            job.id,
            {
                "now": house.clock.now,
                "attempt": 1,
                "lease_token": "t",
                "call_queue": queue,
                "calls": 1,
                "maybe_billed": 0,
            },
        )
    house.clock.advance(930)
    assert house.swept(job).state == JobState.STARTED
    house.clock.advance(1)
    recovered = house.swept(job)
    assert recovered.maybe_billed == int(marked)
    if marked and queue == "hosted":
        assert (recovered.state, recovered.error_code) == (JobState.FAILED, "ProviderTimeout")
    else:
        assert (recovered.state, recovered.lease_token) == (JobState.QUEUED, None)
        assert house.messages.jobs[-1] == (queue, job.id, 0)
        assert house.run(job).state == JobState.COMPLETED


def test_a_queued_job_is_cancelled_at_once() -> None:
    house = TestApp()
    job = house.accept()
    assert house.enqueue.cancel(job).state == JobState.CANCELLED
    assert house.enqueue.cancel(job).state == JobState.CANCELLED
    assert house.run(job).state == JobState.CANCELLED
    assert house.protocol.calls == []


@pytest.mark.parametrize(
    "outcome", [ANSWER, ProviderRejected("no"), ProviderUnavailable(), ProviderTimeout(may_be_billed=True)]
)
def test_a_started_job_that_was_asked_to_cancel_ends_cancelled_whatever_came(outcome: object) -> None:
    house = TestApp()
    job = house.accept()
    ask = house.protocol.call

    def cancel_during_the_call(*given: object, **more: object) -> object:
        asked = house.enqueue.cancel(house.now(job))
        assert (asked.state, asked.cancel_requested_at) == (JobState.STARTED, house.clock.now)
        return ask(*given, **more)  # pyright: ignore

    house.protocol.outcomes = [outcome]  # pyright: ignore
    house.protocol.call = cancel_during_the_call  # pyright: ignore
    ended = house.run(job)
    assert (ended.state, ended.result_location) == (JobState.CANCELLED, None)
    assert ended.maybe_billed == int(isinstance(outcome, ProviderTimeout))


def test_a_completed_job_cannot_be_cancelled() -> None:
    house = TestApp()
    job = house.accept()
    house.run(job)
    with pytest.raises(Conflict):
        house.enqueue.cancel(job)


def test_a_job_past_its_deadline_expires_by_the_sweeper_too() -> None:
    house = TestApp()
    job = house.accept(deadline=100, reply_to="https://r.io/")
    house.clock.advance(161)
    expired = house.swept(job)
    assert (expired.state, expired.error_code, expired.callback) == (JobState.FAILED, "Expired", CallbackState.PENDING)


@pytest.mark.parametrize(
    ("deadline", "in_s"),
    [(None, 86_400), (60, 60), ("90", 90), ("2027-01-15T08:00:30Z", 30), ("/Date(1800000045000)/", 45), (1.5, 1.5)],
)
def test_a_deadline_is_seconds_or_a_date(deadline: str | float | None, in_s: float) -> None:
    house = TestApp()
    assert house.accept(deadline=deadline).deadline == house.clock.now + in_s * 1000


@pytest.mark.parametrize("deadline", [0, -1, 15 * 86_400, "soon", "2020-01-01", float("inf"), "9" * 400])
def test_a_deadline_that_makes_no_sense_is_refused(deadline: str | float) -> None:
    with pytest.raises(InvalidRequest) as refused:
        TestApp().accept(deadline=deadline)
    assert refused.value.param == "deadline"


def test_waiting_reads_twice_a_second_at_most_and_hears_of_the_end_within_a_second() -> None:
    house = TestApp()
    job = house.accept()
    reads = FaultPoints()
    ends_at = house.clock.now + 3_200

    def sleep(seconds: float) -> None:
        before, after = house.clock.now, house.clock.now + seconds * 1000
        if before < ends_at <= after:
            house.clock.now = ends_at
            house.run(job)
        house.clock.now = round(after)

    status = Status(FaultyProxy(house.jobs, reads), house.clock, sleep)  # pyright: ignore[reportArgumentType]
    assert status.wait(job, deadline_ms=house.clock.now + 20_000).state == JobState.COMPLETED
    assert ends_at <= house.clock.now <= ends_at + 1000
    assert reads.calls <= 2 * 3.2 + 1
    at_once = house.clock.now
    assert status.wait(house.now(job), deadline_ms=at_once + 20_000).has_ended
    assert house.clock.now == at_once
    waiting = house.accept()
    reads.begin()
    assert not status.wait(waiting, deadline_ms=at_once + 20_000).has_ended
    assert (house.clock.now, reads.calls) == (at_once + 20_000, 40)


def test_a_job_past_its_time_to_live_is_gone_though_still_stored() -> None:
    house = TestApp()
    job = house.accept(ref_id="r")
    house.run(job)
    house.clock.advance(7 * 86_400 - 1)
    assert house.status.job("me", job_id=job.id, ref_id=None).id == job.id
    house.clock.advance(1)
    with pytest.raises(NotFound):
        house.status.job("me", job_id=job.id, ref_id=None)
    with pytest.raises(NotFound):
        house.status.job("me", job_id=None, ref_id="r")
    assert house.status.list_jobs("me", tag=None, state=None, take=10, cursor=None).jobs == []


def test_ids_are_exact_in_javascript_and_ordered_by_time() -> None:
    last_ms = 3_900_000_000_000  # 2093
    assert 0 < job_id(1_764_000_000_000, 0) < job_id(1_764_000_000_000, 4095) < job_id(1_764_000_000_001, 0)
    assert job_id(last_ms, 4095) < 2**53


def test_waits_stay_within_what_sqs_can_delay() -> None:
    assert [sqs_delay_s(ms) for ms in (-5, 0, 1, 1000, 1001, 10**9)] == [0, 0, 2, 2, 3, 900]
    assert all(0 <= full_jitter_s(attempt, f) <= 60 for attempt in range(2000) for f in (0.0, 0.5, 0.999))
    assert [resend_delay_ms(n) // 1000 for n in range(6)] == [60, 120, 240, 480, 900, 900]


def test_the_table_s_names_are_its_own_and_every_end_settles_what_is_owed() -> None:
    assert len({row.name for row in TRANSITIONS}) == len(TRANSITIONS)
    for row in TRANSITIONS:
        if row.machine == "state" and row.target in ("Completed", "Failed", "Cancelled"):
            assert {"completed_at", "callback", "callback_next_at", "due_at", "ttl"} <= set(row.sets), row.name
            assert {"lease_token", "lease_until"} <= set(row.removes), row.name
        assert not set(row.effects) & set(row.removes), row.name
        assert not set(row.effects) & set(row.adds), row.name


def test_a_failed_job_that_is_redriven_starts_a_new_epoch_and_tells_its_end_anew() -> None:
    house = TestApp()
    job = house.accept(deadline=60, reply_to="https://r.io/hook")
    house.protocol.outcomes = [ProviderRejected("no")]
    house.run(job)
    deadline = house.clock.now + 86_400_000
    again = house.jobs.apply(REDRIVE, job.id, {"now": house.clock.now, "due_at": deadline, "deadline": deadline})
    assert isinstance(again, Job)
    assert (again.state, again.epoch, again.attempt, again.ttl, again.error) == (JobState.QUEUED, 1, 1, None, None)
    assert (again.callback, again.callback_sequence) == (CallbackState.NONE, 1)
    done = house.run(job)
    assert (done.state, done.attempt, done.callback) == (JobState.COMPLETED, 2, CallbackState.PENDING)
    assert [call["idempotency_key"] for _, call in house.protocol.calls] == [f"job-{job.id}-0", f"job-{job.id}-1"]
    completed = house.jobs.apply(REDRIVE, job.id, {"now": house.clock.now, "due_at": deadline, "deadline": deadline})
    assert isinstance(completed, ConditionFailed)


def test_a_job_of_an_own_gpu_that_is_cold_goes_to_a_hosted_provider_but_never_the_other_way() -> None:
    house = TestApp(GPU | {"priority": 9}, {"name": "hosted", "models": {"m": ""}})
    job = house.accept()
    assert job.queue == "gpu"
    house.protocol.outcomes = [ProviderUnavailable()]
    assert house.run(job).served_by == "hosted"
    house.providers[0] = house.providers[0].model_copy(update={"priority": -1})
    house.clock.advance(31)
    other = house.accept()
    house.protocol.outcomes = [ProviderUnavailable()]
    assert (other.queue, house.run(other).state) == ("hosted", JobState.QUEUED)
    assert [name for name, _ in house.protocol.calls] == ["gpu", "hosted", "hosted"]


def test_a_hosted_call_made_for_a_gpu_job_is_not_repeated_when_its_outcome_is_unknown() -> None:
    house = TestApp(GPU | {"priority": 9}, {"name": "hosted", "models": {"m": ""}})
    job = house.accept()
    house.protocol.outcomes = [ProviderUnavailable(), ProviderTimeout(may_be_billed=True)]
    failed = house.run(job)
    assert (failed.state, failed.error_code, failed.maybe_billed) == (JobState.FAILED, "ProviderTimeout", 1)


def test_a_batch_s_addresses_are_checked_once_each_and_side_by_side() -> None:
    """None of the checks would end, but for the others being under way."""
    all_there = threading.Barrier(3)
    asked: list[str] = []

    class Resolving(FakeWebhookClient):
        def check(self, url: str, hosts: Collection[str] = ()) -> None:
            asked.append(url)
            all_there.wait(30)

    house = TestApp(replier=Resolving())
    urls = ["https://a.io/", "https://b.io/", "https://c.io/"] * 10
    bound = [requests.bind_openai_queue_chat(BODY, requests.Options(reply_to=url)) for url in urls]
    assert len(house.enqueue.accept_all(bound, ME)) == 30
    assert sorted(asked) == urls[:3]


def test_of_a_batch_with_an_address_that_may_not_be_called_nothing_is_accepted() -> None:
    class Refusing(FakeWebhookClient):
        def check(self, url: str, hosts: Collection[str] = ()) -> None:
            if "bad" in url:
                raise InvalidRequest("no")

    house = TestApp(replier=Refusing())
    urls = ["https://a.io/", "https://bad.io/"]
    bound = [requests.bind_openai_queue_chat(BODY, requests.Options(reply_to=url)) for url in urls]
    with pytest.raises(InvalidRequest):
        house.enqueue.accept_all(bound, ME)
    assert house.jobs.items == {}

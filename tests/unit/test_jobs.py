"""The job lifecycle through the real use cases: accepted, run, waiting, failed, cancelled, recovered, never lost."""

import threading
from collections.abc import Collection

import pytest

from aiserver.clock import Deadline, job_id
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
from aiserver.jobs.ports import ConditionFailed, JobFilter
from aiserver.jobs.states import CallbackState, JobState
from aiserver.jobs.transitions import CLAIM, MARK_CALL, REDRIVE, TRANSITIONS
from aiserver.usecases.record_outcome import MAX_INVALID_RESPONSES
from aiserver.usecases.status import Status
from aiserver.wire import requests
from tests.app import BODY, ME, RESPONSE, FakeWebhookClient, TestApp
from tests.crash.fault_points import FaultPoints, FaultyProxy

GPU = {"name": "gpu", "queue": "gpu", "models": {"m": ""}}


def test_accepted_job_is_run_once_and_stores_its_result() -> None:
    app = TestApp()
    job = app.accept(tag="t")
    assert app.messages.jobs == [("hosted", job.id, 0)]
    completed = app.run(job)
    assert (completed.state, completed.attempt, completed.calls, completed.served_by) == (JobState.COMPLETED, 1, 1, "p")
    assert app.jobs.read_result(completed) == RESPONSE.body
    assert (completed.due_at, completed.callback, completed.ttl) == (
        None,
        CallbackState.NONE,
        app.clock.now // 1000 + 7 * 86_400,
    )
    app.run(job)
    assert len(app.dispatcher.calls) == 1


def test_provider_receives_an_idempotency_key_and_its_model_name() -> None:
    app = TestApp({"name": "p", "models": {"m": "vendor/m-8b"}})
    job = app.accept()
    app.run(job)
    (_, call) = app.dispatcher.calls[0]
    assert call["idempotency_key"] == f"job-{job.id}-0"
    assert (call["body"], call["model"]) == (BODY.encode(), "vendor/m-8b")


@pytest.mark.parametrize(
    ("error", "reason", "min_s", "max_s"),
    [
        (ProviderRateLimited(retry_after_s=120), "provider_rate_limited", 120, 120),
        (ProviderUnavailable(), "provider_unavailable", 0, 2),
        (ProviderError(), "provider_error", 0, 2),
    ],
)
def test_temporary_errors_requeue_the_job_instead_of_failing_it(
    error: ProviderError, reason: str, min_s: int, max_s: int
) -> None:
    app = TestApp()
    job = app.accept()
    app.dispatcher.outcomes = [error]
    waiting = app.run(job)
    wait_ms = waiting.not_before - app.clock.now
    assert (waiting.state, waiting.wait_reason, waiting.lease_token) == (JobState.QUEUED, reason, None)
    assert min_s * 1000 <= wait_ms <= max_s * 1000
    assert app.messages.jobs[-1] == ("hosted", job.id, sqs_delay_s(wait_ms))
    rerun = app.run(job)
    assert rerun == waiting
    app.clock.now = waiting.not_before
    assert app.run(job).state == JobState.COMPLETED


def test_job_waits_for_a_cold_gpu_until_its_deadline() -> None:
    app = TestApp(GPU)
    job = app.accept(deadline=3600)
    while app.reload(job).state == JobState.QUEUED:
        app.dispatcher.outcomes = [ProviderUnavailable()]
        waiting = app.run(job)
        app.clock.now = max(app.clock.now + 1000, waiting.not_before)
    failed = app.reload(job)
    assert (failed.state, failed.error_code) == (JobState.FAILED, "Expired")
    assert "provider_cold_start" in (failed.error or "")
    assert failed.attempt > 10


def test_job_fails_after_too_many_invalid_responses() -> None:
    app = TestApp()
    job = app.accept()
    for _ in range(MAX_INVALID_RESPONSES):
        app.dispatcher.outcomes = [ProviderAuth()]
        app.clock.now = app.run(job).not_before
    assert (app.reload(job).state, app.reload(job).error_sub_code) == (JobState.FAILED, "provider_auth")


def test_waits_do_not_count_as_invalid_responses() -> None:
    app = TestApp()
    job = app.accept()
    for _ in range(2 * MAX_INVALID_RESPONSES):
        app.dispatcher.outcomes = [ProviderRateLimited(retry_after_s=1)]
        app.clock.now = app.run(job).not_before
    for _ in range(MAX_INVALID_RESPONSES - 1):
        app.dispatcher.outcomes = [ProviderError()]
        app.clock.now = app.run(job).not_before
    assert app.run(job).state == JobState.COMPLETED


def test_redriven_job_has_all_its_attempts_again() -> None:
    app = TestApp()
    job = app.accept()
    for calls in (MAX_INVALID_RESPONSES, 2 * MAX_INVALID_RESPONSES):
        while app.reload(job).state == JobState.QUEUED:
            app.dispatcher.outcomes = [ProviderError()]
            app.clock.now = max(app.clock.now, app.run(job).not_before)
        assert (app.reload(job).state, app.reload(job).calls) == (JobState.FAILED, calls)
        now, deadline = app.clock.now, app.clock.now + 86_400_000
        app.jobs.apply(REDRIVE, job.id, {"now": now, "due_at": now + 60_000, "deadline": deadline})


def test_each_gpu_call_with_unknown_outcome_is_counted_in_maybe_billed() -> None:
    app = TestApp(GPU, GPU | {"name": "gpu-2"}, GPU | {"name": "gpu-3"})
    job = app.accept()
    app.dispatcher.outcomes = [ProviderTimeout(may_be_billed=True), ProviderTimeout(may_be_billed=True)]
    completed = app.run(job)
    assert (completed.state, completed.calls, completed.maybe_billed) == (JobState.COMPLETED, 3, 2)


def test_rejected_request_fails_the_job_at_once() -> None:
    app = TestApp()
    job = app.accept()
    app.dispatcher.outcomes = [ProviderRejected("too long")]
    failed = app.run(job)
    assert (failed.state, failed.error, failed.attempt) == (JobState.FAILED, "too long", 1)


def test_hosted_call_with_unknown_outcome_is_not_retried_or_failed_over() -> None:
    app = TestApp({"name": "p", "priority": 1, "models": {"m": ""}}, {"name": "q", "models": {"m": ""}})
    job = app.accept()
    app.dispatcher.outcomes = [ProviderTimeout(may_be_billed=True)]
    failed = app.run(job)
    assert (failed.state, failed.error_code, failed.maybe_billed) == (JobState.FAILED, "ProviderTimeout", 1)
    assert [name for name, _ in app.dispatcher.calls] == ["p"]


def test_gpu_call_with_unknown_outcome_is_retried() -> None:
    app = TestApp(GPU)
    job = app.accept()
    app.dispatcher.outcomes = [ProviderTimeout(may_be_billed=True)]
    waiting = app.run(job)
    assert (waiting.state, waiting.maybe_billed) == (JobState.QUEUED, 1)
    app.clock.now = waiting.not_before
    completed = app.run(job)
    assert (completed.state, completed.maybe_billed, completed.calls) == (JobState.COMPLETED, 1, 2)


def test_unavailable_provider_fails_over_to_the_next() -> None:
    app = TestApp({"name": "p", "priority": 2, "models": {"m": ""}}, {"name": "q", "models": {"m": ""}})
    job = app.accept()
    app.dispatcher.outcomes = [ProviderUnavailable()]
    assert app.run(job).served_by == "q"
    assert app.reload(job).calls == 2


def test_job_of_a_removed_model_fails_with_not_found() -> None:
    app = TestApp()
    job = app.accept()
    app.providers.clear()
    app.clock.advance(31)
    failed = app.run(job)
    assert (failed.state, failed.error_code) == (JobState.FAILED, "NotFound")


def test_job_without_a_stored_request_fails_without_any_call() -> None:
    app = TestApp()
    job = app.accept()
    app.jobs.bodies.clear()
    failed = app.run(job)
    assert (failed.state, failed.error, failed.calls) == (JobState.FAILED, "The job's request is no longer stored", 0)


@pytest.mark.parametrize("is_marked", [False, True])
@pytest.mark.parametrize("queue", ["hosted", "gpu"])
def test_sweeper_recovers_the_job_of_a_dead_worker_by_its_queue(queue: str, is_marked: bool) -> None:
    app = TestApp({"name": "p", "queue": queue, "models": {"m": ""}})
    job = app.accept()
    lease_until = app.clock.now + 930_000
    app.jobs.apply(CLAIM, job.id, {"now": app.clock.now, "lease_token": "t", "lease_until": lease_until})
    if is_marked:
        app.jobs.apply(
            MARK_CALL,
            job.id,
            {
                "now": app.clock.now,
                "attempt": 1,
                "lease_token": "t",
                "call_queue": queue,
                "calls": 1,
                "maybe_billed": 0,
            },
        )
    app.clock.advance(930)
    assert app.run_sweep(job).state == JobState.STARTED
    app.clock.advance(1)
    recovered = app.run_sweep(job)
    assert recovered.maybe_billed == int(is_marked)
    if is_marked and queue == "hosted":
        assert (recovered.state, recovered.error_code) == (JobState.FAILED, "ProviderTimeout")
    else:
        assert (recovered.state, recovered.lease_token) == (JobState.QUEUED, None)
        assert app.messages.jobs[-1] == (queue, job.id, 0)
        assert app.run(job).state == JobState.COMPLETED


def test_queued_job_is_cancelled_at_once() -> None:
    app = TestApp()
    job = app.accept()
    assert app.enqueue.cancel(job).state == JobState.CANCELLED
    assert app.enqueue.cancel(job).state == JobState.CANCELLED
    assert app.run(job).state == JobState.CANCELLED
    assert app.dispatcher.calls == []


@pytest.mark.parametrize(
    "outcome", [RESPONSE, ProviderRejected("no"), ProviderUnavailable(), ProviderTimeout(may_be_billed=True)]
)
def test_started_job_with_a_cancel_request_is_cancelled_by_any_outcome(outcome: object) -> None:
    app = TestApp()
    job = app.accept()
    send = app.dispatcher.send

    def cancel_and_send(*args: object) -> object:
        cancelling = app.enqueue.cancel(app.reload(job))
        assert (cancelling.state, cancelling.cancel_requested_at) == (JobState.STARTED, app.clock.now)
        return send(*args)  # pyright: ignore

    app.dispatcher.outcomes = [outcome]  # pyright: ignore
    app.dispatcher.send = cancel_and_send  # pyright: ignore
    cancelled = app.run(job)
    assert (cancelled.state, cancelled.result_location) == (JobState.CANCELLED, None)
    assert cancelled.maybe_billed == int(isinstance(outcome, ProviderTimeout))


def test_completed_job_cannot_be_cancelled() -> None:
    app = TestApp()
    job = app.accept()
    app.run(job)
    with pytest.raises(Conflict):
        app.enqueue.cancel(job)


def test_sweeper_expires_a_job_past_its_deadline() -> None:
    app = TestApp()
    job = app.accept(deadline=100, reply_to="https://r.io/")
    app.clock.advance(161)
    expired = app.run_sweep(job)
    assert (expired.state, expired.error_code, expired.callback) == (JobState.FAILED, "Expired", CallbackState.PENDING)


@pytest.mark.parametrize(
    ("deadline", "in_s"),
    [(None, 86_400), (60, 60), ("90", 90), ("2027-01-15T08:00:30Z", 30), ("/Date(1800000045000)/", 45), (1.5, 1.5)],
)
def test_deadline_is_seconds_or_a_date(deadline: str | float | None, in_s: float) -> None:
    app = TestApp()
    assert app.accept(deadline=deadline).deadline == app.clock.now + in_s * 1000


@pytest.mark.parametrize("deadline", [0, -1, 15 * 86_400, "soon", "2020-01-01", float("inf"), "9" * 400])
def test_invalid_deadline_is_rejected(deadline: str | float) -> None:
    with pytest.raises(InvalidRequest) as invalid:
        TestApp().accept(deadline=deadline)
    assert invalid.value.param == "deadline"


def test_wait_reads_at_most_twice_a_second_and_returns_within_a_second() -> None:
    app = TestApp()
    job = app.accept()
    reads = FaultPoints()
    ends_at = app.clock.now + 3_200

    def sleep(seconds: float) -> None:
        before, after = app.clock.now, app.clock.now + seconds * 1000
        if before < ends_at <= after:
            app.clock.now = ends_at
            app.run(job)
        app.clock.now = round(after)

    status = Status(FaultyProxy(app.jobs, reads), app.clock, sleep)  # pyright: ignore[reportArgumentType]
    assert status.wait(job, deadline=Deadline(app.clock.now + 20_000)).state == JobState.COMPLETED
    assert ends_at <= app.clock.now <= ends_at + 1000
    assert reads.calls <= 2 * 3.2 + 1
    at_once = app.clock.now
    assert status.wait(app.reload(job), deadline=Deadline(at_once + 20_000)).has_ended
    assert app.clock.now == at_once
    waiting = app.accept()
    reads.begin()
    assert not status.wait(waiting, deadline=Deadline(at_once + 20_000)).has_ended
    assert (app.clock.now, reads.calls) == (at_once + 20_000, 40)


def test_stored_job_past_its_ttl_is_not_found() -> None:
    app = TestApp()
    job = app.accept(ref_id="r")
    app.run(job)
    app.clock.advance(7 * 86_400 - 1)
    assert app.status.job("me", job_id=job.id, ref_id=None).id == job.id
    app.clock.advance(1)
    with pytest.raises(NotFound):
        app.status.job("me", job_id=job.id, ref_id=None)
    with pytest.raises(NotFound):
        app.status.job("me", job_id=None, ref_id="r")
    assert app.status.list_jobs("me", take=10).jobs == []


@pytest.mark.parametrize("text", ["yesterday", "2026-13-01", "1764000000", "2026-11-30T25:00"])
def test_time_that_is_no_iso_date_is_rejected_by_name(text: str) -> None:
    with pytest.raises(InvalidRequest, match="'since' must be an ISO date"):
        requests.query_time({"Since": text}, "since")


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("2026-11-30", 1_795_996_800_000),
        ("2026-11-30T08:00:00", 1_796_025_600_000),
        ("2026-11-30T08:00:00.250Z", 1_796_025_600_250),
        ("2026-11-30T09:00:00+01:00", 1_796_025_600_000),
    ],
)
def test_time_is_in_utc_unless_it_has_an_offset(text: str, ms: int) -> None:
    assert requests.query_time({"since": text}, "since") == ms


def test_period_that_ends_before_it_begins_is_rejected() -> None:
    for until_ms in (1, 2):
        with pytest.raises(InvalidRequest, match="'until' must be later than 'since'"):
            TestApp().status.list_jobs("me", JobFilter(since_ms=2, until_ms=until_ms), take=1)


def test_job_ids_are_safe_integers_ordered_by_time() -> None:
    last_ms = 3_900_000_000_000  # 2093
    assert 0 < job_id(1_764_000_000_000, 0) < job_id(1_764_000_000_000, 4095) < job_id(1_764_000_000_001, 0)
    assert job_id(last_ms, 4095) < 2**53


def test_delays_stay_within_the_sqs_limit() -> None:
    assert [sqs_delay_s(ms) for ms in (-5, 0, 1, 1000, 1001, 10**9)] == [0, 0, 2, 2, 3, 900]
    assert all(0 <= full_jitter_s(attempt, f) <= 60 for attempt in range(2000) for f in (0.0, 0.5, 0.999))
    assert [resend_delay_ms(n) // 1000 for n in range(6)] == [60, 120, 240, 480, 900, 900]


def test_transition_names_are_unique_and_terminal_rows_are_complete() -> None:
    assert len({row.name for row in TRANSITIONS}) == len(TRANSITIONS)
    for row in TRANSITIONS:
        if row.machine == "state" and row.target in ("Completed", "Failed", "Cancelled"):
            assert {"completed_at", "callback", "callback_next_at", "due_at", "ttl"} <= set(row.sets), row.name
            assert {"lease_token", "lease_until"} <= set(row.removes), row.name
        assert not set(row.effects) & set(row.removes), row.name
        assert not set(row.effects) & set(row.adds), row.name


def test_redriven_job_starts_a_new_epoch_and_sends_a_new_callback() -> None:
    app = TestApp()
    job = app.accept(deadline=60, reply_to="https://r.io/hook")
    app.dispatcher.outcomes = [ProviderRejected("no")]
    app.run(job)
    deadline = app.clock.now + 86_400_000
    redriven = app.jobs.apply(REDRIVE, job.id, {"now": app.clock.now, "due_at": deadline, "deadline": deadline})
    assert isinstance(redriven, Job)
    assert (redriven.state, redriven.epoch, redriven.attempt, redriven.ttl, redriven.error) == (
        JobState.QUEUED,
        1,
        1,
        None,
        None,
    )
    assert (redriven.callback, redriven.callback_sequence) == (CallbackState.NONE, 1)
    done = app.run(job)
    assert (done.state, done.attempt, done.callback) == (JobState.COMPLETED, 2, CallbackState.PENDING)
    assert [call["idempotency_key"] for _, call in app.dispatcher.calls] == [f"job-{job.id}-0", f"job-{job.id}-1"]
    outcome = app.jobs.apply(REDRIVE, job.id, {"now": app.clock.now, "due_at": deadline, "deadline": deadline})
    assert isinstance(outcome, ConditionFailed)


def test_job_of_a_cold_gpu_fails_over_to_a_hosted_provider() -> None:
    """A job of the hosted queue never fails over to a GPU."""
    app = TestApp(GPU | {"priority": 9}, {"name": "hosted", "models": {"m": ""}})
    job = app.accept()
    assert job.queue == "gpu"
    app.dispatcher.outcomes = [ProviderUnavailable()]
    assert app.run(job).served_by == "hosted"
    app.providers[0] = app.providers[0].model_copy(update={"priority": -1})
    app.clock.advance(31)
    hosted_job = app.accept()
    app.dispatcher.outcomes = [ProviderUnavailable()]
    assert (hosted_job.queue, app.run(hosted_job).state) == ("hosted", JobState.QUEUED)
    assert [name for name, _ in app.dispatcher.calls] == ["gpu", "hosted", "hosted"]


def test_hosted_call_of_a_gpu_job_with_unknown_outcome_is_not_retried() -> None:
    app = TestApp(GPU | {"priority": 9}, {"name": "hosted", "models": {"m": ""}})
    job = app.accept()
    app.dispatcher.outcomes = [ProviderUnavailable(), ProviderTimeout(may_be_billed=True)]
    failed = app.run(job)
    assert (failed.state, failed.error_code, failed.maybe_billed) == (JobState.FAILED, "ProviderTimeout", 1)


def test_callback_urls_of_a_batch_are_checked_once_and_in_parallel() -> None:
    """Each check waits until all three run at the same time."""
    all_running = threading.Barrier(3)
    checked_urls: list[str] = []

    class BlockingWebhookClient(FakeWebhookClient):
        def check_url(self, url: str, hosts: Collection[str] = ()) -> None:
            checked_urls.append(url)
            all_running.wait(30)

    app = TestApp(webhook_client=BlockingWebhookClient())
    urls = ["https://a.io/", "https://b.io/", "https://c.io/"] * 10
    bound = [requests.bind_openai_queue_chat(BODY, requests.Options(reply_to=url)) for url in urls]
    assert len(app.enqueue.accept_all(bound, ME)) == 30
    assert sorted(checked_urls) == urls[:3]


def test_batch_with_a_forbidden_callback_url_is_rejected_completely() -> None:
    class RejectingWebhookClient(FakeWebhookClient):
        def check_url(self, url: str, hosts: Collection[str] = ()) -> None:
            if "bad" in url:
                raise InvalidRequest("forbidden URL")

    app = TestApp(webhook_client=RejectingWebhookClient())
    urls = ["https://a.io/", "https://bad.io/"]
    bound = [requests.bind_openai_queue_chat(BODY, requests.Options(reply_to=url)) for url in urls]
    with pytest.raises(InvalidRequest):
        app.enqueue.accept_all(bound, ME)
    assert app.jobs.items == {}

"""Callbacks: one for each terminal state, signed, retried by schedule, and a recorded dead letter."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from standardwebhooks import Webhook

from aiserver.errors import Conflict, ProviderRejected
from aiserver.jobs.backoff import CALLBACK_SCHEDULE_S
from aiserver.jobs.job import Job
from aiserver.jobs.ports import ConditionFailed
from aiserver.jobs.states import CallbackState, JobState
from aiserver.jobs.transitions import CLAIM_DELIVERY, RECOVER_DELIVERY_DEAD
from aiserver.limits import MAX_CALLBACK_BYTES
from aiserver.usecases.deliver_callback import MAX_BUSY_WAITS
from aiserver.usecases.job_finished import JobFinishedNotifier
from aiserver.usecases.terminal import CALLBACK_DUE_MS
from aiserver.webhooks.client import DeliveryResult
from aiserver.webhooks.url_policy import CallbackRefused
from tests.app import CALLBACK_LEASE_MS, PER_KEY, REPLY_MS, RESPONSE, SWEEPER_MS, FakeWebhookClient, TestApp
from tests.fakes import FakeEventPublisher

SERVER_ERROR = DeliveryResult(500, "status 500: no")


def run_completed_job(app: TestApp, **options: object) -> Job:
    return app.run(app.accept(reply_to="https://r.io/hook", **options))


def test_result_is_posted_once_with_job_headers() -> None:
    app = TestApp()
    job = run_completed_job(app, tag="ü/1", ref_id="a b")
    assert (job.callback, job.ttl) == (CallbackState.PENDING, None)
    app.deliver(job)
    app.deliver(job)
    ((url, body, headers),) = app.webhook_client.posts
    assert (url, body) == ("https://r.io/hook", RESPONSE.body)
    assert headers["webhook-id"] == f"msg_{job.id}_0"
    assert (headers["x-ref-id"], headers["x-tag"], headers["x-attempt"]) == ("a%20b", "%C3%BC%2F1", "1")
    delivered = app.reload(job)
    assert (delivered.callback, delivered.callback_last_status, delivered.due_at) == (
        CallbackState.DELIVERED,
        200,
        None,
    )
    assert delivered.ttl == app.clock.now // 1000 + 7 * 86_400


@pytest.mark.parametrize("end", ["Failed", "Cancelled", "Expired"])
def test_every_unsuccessful_end_sends_a_callback(end: str) -> None:
    app = TestApp()
    job = app.accept(reply_to="https://r.io/hook", deadline=60)
    if end == "Failed":
        app.dispatcher.outcomes = [ProviderRejected("too long")]
        app.run(job)
    elif end == "Cancelled":
        app.enqueue.cancel(job)
    else:
        app.clock.advance(61)
        app.run(job)
    app.deliver(job)
    ((_, body, headers),) = app.webhook_client.posts
    payload = json.loads(body)
    assert headers["x-job-state"] == ("Cancelled" if end == "Cancelled" else "Failed")
    assert payload["responseStatus"]["errorCode"] == {"Failed": "ProviderRejected"}.get(end, end)
    assert payload["error"]["message"] == payload["responseStatus"]["message"]


def test_callback_is_dead_after_ten_attempts_over_three_days() -> None:
    app = TestApp()
    job = run_completed_job(app)
    started = app.clock.now
    app.webhook_client.outcomes = [SERVER_ERROR] * 10
    waits: list[float] = []
    while app.reload(job).callback == CallbackState.PENDING:
        app.deliver(job)
        next_at = app.reload(job).callback_next_at
        if next_at:
            waits.append((next_at - app.clock.now) / 1000)
            app.clock.now = next_at
    assert waits == list(CALLBACK_SCHEDULE_S[1:])
    assert len(app.webhook_client.posts) == 10
    assert {headers["webhook-id"] for _, _, headers in app.webhook_client.posts} == {f"msg_{job.id}_0"}
    assert 2.9 < (app.clock.now - started) / 86_400_000 < 3.2
    dead = app.reload(job)
    assert (dead.callback, dead.callback_last_status, dead.callback_last_error) == (
        CallbackState.DEAD,
        500,
        "status 500: no",
    )
    assert (dead.due_at, dead.ttl) == (None, app.clock.now // 1000 + (7 + 30) * 86_400)


@pytest.mark.parametrize(
    ("retry_after", "wait_s"),
    [("120", 120), ("1", 5), (None, 5), ("999999999", 86_400), ("soon", 5), ("Fri, 15 Jan 2027 08:10:00 GMT", 600)],
)
def test_retry_after_of_a_receiver_is_respected_within_limits(retry_after: str | None, wait_s: int) -> None:
    app = TestApp()
    job = run_completed_job(app)
    app.webhook_client.outcomes = [DeliveryResult(429, "status 429", retry_after)]
    app.deliver(job)
    assert app.reload(job).callback_next_at == app.clock.now + wait_s * 1000


@pytest.mark.parametrize("outcome", [DeliveryResult(410, "status 410"), CallbackRefused("private")])
def test_gone_or_forbidden_receiver_is_not_retried(outcome: DeliveryResult | Exception) -> None:
    app = TestApp()
    job = run_completed_job(app)
    app.webhook_client.outcomes = [outcome]
    app.deliver(job)
    assert app.reload(job).callback == CallbackState.DEAD


def test_both_secrets_sign_callbacks_until_the_overlap_ends() -> None:
    app = TestApp()
    old = app.keys.secrets["me"]
    new = old.rotate(now_ms=app.clock.now, overlap_ms=60_000)
    assert app.keys.replace_webhook_secrets("me", old, new)
    for seconds, secrets in ((0, [new.current, old.current]), (60, [new.current])):
        app.clock.advance(seconds)
        app.webhook_client.posts.clear()
        app.deliver(run_completed_job(app))
        ((_, body, headers),) = app.webhook_client.posts
        signed_at = datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC)
        expected = [Webhook(secret).sign(headers["webhook-id"], signed_at, body.decode()) for secret in secrets]
        assert headers["webhook-signature"].split() == expected


def test_dead_delivery_is_retried_with_the_same_message_id() -> None:
    app = TestApp()
    job = run_completed_job(app)
    lease = {
        "now": app.clock.now,
        "completed_at": job.completed_at,
        "max_attempts": 10,
        "callback_token": "t",
        "callback_lease_until": app.clock.now + CALLBACK_LEASE_MS,
    }
    app.jobs.apply(CLAIM_DELIVERY, job.id, lease)
    app.deliver(job)
    assert app.webhook_client.posts == []
    app.clock.advance(CALLBACK_LEASE_MS / 1000 + 1)
    waiting = app.run_sweep(job)
    assert (waiting.callback, waiting.callback_next_at) == (
        CallbackState.PENDING,
        app.clock.now + 5_000,
    )  # by the schedule
    assert waiting.callback_last_error == "the delivery function died; the callback may have been sent"
    app.clock.advance(5)
    app.deliver(job)
    ((_, _, headers),) = app.webhook_client.posts
    assert (headers["webhook-id"], headers["x-attempt"]) == (f"msg_{job.id}_0", "2")


@pytest.mark.parametrize("store", ["bodies", "keys"])
def test_failed_read_costs_no_delivery_attempt(store: str) -> None:
    app = TestApp()
    job = run_completed_job(app)

    def fail(*_: object) -> None:
        raise ConnectionError(store)

    method: Any = (app.jobs, "read_result") if store == "bodies" else (app.keys, "key")
    original = getattr(*method)
    setattr(*method, fail)
    with pytest.raises(ConnectionError):
        app.deliver(job)
    assert (app.reload(job).callback, app.reload(job).callback_attempt) == (CallbackState.PENDING, 0)
    setattr(*method, original)
    assert app.deliver(job).callback == CallbackState.DELIVERED


def test_delivery_with_an_expired_lease_changes_nothing() -> None:
    app = TestApp()
    job = run_completed_job(app)

    class SlowWebhookClient(FakeWebhookClient):
        def post(self, *args: Any, **options: Any) -> DeliveryResult:
            app.clock.advance(CALLBACK_LEASE_MS / 1000 + 1)
            app.run_sweep(job)
            return DeliveryResult(410, "status 410")

    app.deliver_callback._webhooks = SlowWebhookClient()  # pyright: ignore
    assert app.deliver_callback.deliver(job.id, remaining_ms=REPLY_MS) is None
    assert app.reload(job).callback == CallbackState.PENDING


def test_sweeper_counts_only_the_dead_callbacks_it_wrote() -> None:
    app = TestApp()
    job = run_completed_job(app)
    app.webhook_client.outcomes = [SERVER_ERROR] * 9
    for _ in range(9):
        app.clock.now = app.deliver(job).callback_next_at or 0
    claim = {"now": app.clock.now, "completed_at": job.completed_at, "max_attempts": 10, "callback_token": "t"}
    app.jobs.apply(CLAIM_DELIVERY, job.id, claim | {"callback_lease_until": app.clock.now})
    app.clock.advance(1)
    apply = app.jobs.apply
    app.jobs.apply = lambda row, *args: ConditionFailed(None) if row == RECOVER_DELIVERY_DEAD else apply(row, *args)
    assert app.sweep.sweep(remaining_ms=SWEEPER_MS).dead_callbacks == 0
    app.jobs.apply = apply
    assert app.sweep.sweep(remaining_ms=SWEEPER_MS).dead_callbacks == 1
    assert app.reload(job).callback_last_error == "the delivery function died; the callback may have been sent"


def test_callback_of_a_busy_receiver_is_dead_after_a_day() -> None:
    app = TestApp()
    job, started = run_completed_job(app), app.clock.now
    for _ in range(200):
        app.clock.now = app.reload(job).callback_next_at or app.clock.now
        app.leases.held["callbacks#me"] = dict.fromkeys(range(PER_KEY), app.clock.now + 1_000_000)
        app.deliver(job)
    assert 86_400 < (app.clock.now - started) / 1000 < 1.1 * 86_400
    dead = app.reload(job)
    assert (dead.callback, dead.callback_attempt, dead.due_at, app.webhook_client.posts) == (
        CallbackState.DEAD,
        0,
        None,
        [],
    )
    assert dead.callback_last_error == "the receiver was at its concurrency limit for a day"
    assert dead.ttl == app.clock.now // 1000 + (7 + 30) * 86_400


@pytest.mark.parametrize("waits", [0, MAX_BUSY_WAITS])
def test_repeated_write_of_a_busy_wait_or_dead_callback_is_recognized(waits: int) -> None:
    app = TestApp()
    job = run_completed_job(app)
    app.jobs.items[job.id]["callback_waits"] = waits
    app.leases.held["callbacks#me"] = dict.fromkeys(range(PER_KEY), app.clock.now + 1_000_000)
    apply = app.jobs.apply

    def apply_twice(*args: Any) -> Any:  # as boto3 does, when the first response is lost
        apply(*args)
        return apply(*args)

    app.jobs.apply = apply_twice
    state = app.deliver_callback.deliver(job.id, remaining_ms=REPLY_MS)
    assert state == app.reload(job).callback == (CallbackState.DEAD if waits else CallbackState.PENDING)
    assert len(app.messages.callbacks) == (0 if waits else 1)


def test_sweeper_does_not_fill_an_unread_callback_queue() -> None:
    app = TestApp()
    run_completed_job(app)
    for _ in range(180):
        app.clock.advance(60)
        app.sweep.sweep(remaining_ms=SWEEPER_MS)
    assert 12 < len(app.messages.callbacks) < 20


def test_surplus_callback_messages_end_with_the_first_wait() -> None:
    app = TestApp()
    jobs = [run_completed_job(app) for _ in range(20)]
    for job in jobs:
        app.messages.send_callback(job.id, due=job.callback_next_at)
    for _ in range(90):
        app.clock.advance(60)
        app.sweep.sweep(remaining_ms=SWEEPER_MS)
    assert len(app.messages.callbacks) > 5 * len(jobs)
    for _ in range(3):  # the receiver is at its concurrency limit in each round
        app.leases.held["callbacks#me"] = dict.fromkeys(range(PER_KEY), app.clock.now + 1_000_000)
        messages = list(zip(app.messages.callbacks, app.messages.dues, strict=True))
        app.messages.callbacks.clear()
        app.messages.dues.clear()
        for (job_id, _), due in messages:
            app.deliver_callback.deliver(job_id, remaining_ms=REPLY_MS, due=due)
        assert len(app.messages.callbacks) == len(jobs)
        app.clock.advance(5)


def test_sweeper_resends_a_callback_that_was_not_started() -> None:
    app = TestApp()
    job = run_completed_job(app)
    app.clock.advance(61)
    app.run_sweep(job)
    assert app.messages.callbacks == [(job.id, 0)]


def test_early_callback_message_is_resent_for_its_due_time() -> None:
    app = TestApp()
    job = run_completed_job(app)
    app.webhook_client.outcomes = [SERVER_ERROR]
    app.deliver(job)
    app.messages.callbacks.clear()
    app.deliver(job)
    assert app.messages.callbacks == [(job.id, 6)]
    assert len(app.webhook_client.posts) == 1


def test_busy_receiver_is_retried_without_counting_an_attempt() -> None:
    app = TestApp()
    job = run_completed_job(app)
    app.leases.held["callbacks#me"] = dict.fromkeys(range(PER_KEY), app.clock.now + 1)
    waiting = app.deliver(job)
    assert (waiting.callback, waiting.callback_attempt, waiting.callback_next_at) == (
        CallbackState.PENDING,
        0,
        app.clock.now + 1000,
    )
    assert app.messages.callbacks == [(job.id, 2)]
    app.clock.advance(2)
    assert app.deliver(job).callback == CallbackState.DELIVERED
    assert len(app.webhook_client.posts) == 1


def test_waits_for_a_busy_receiver_grow_to_ten_minutes() -> None:
    app = TestApp()
    job = run_completed_job(app)
    waits: list[int] = []
    while sum(waits) < 7_200_000:
        app.leases.held["callbacks#me"] = dict.fromkeys(range(PER_KEY), app.clock.now + 1_000_000)
        waits.append((app.deliver(job).callback_next_at or 0) - app.clock.now)
        assert app.run_sweep(job).due_at == app.clock.now + waits[-1] + CALLBACK_DUE_MS  # not due for the sweeper yet
        app.clock.now += waits[-1]
    assert waits == sorted(waits)
    assert (waits[0], waits[1], waits[-1]) == (1000, 1500, 600_000)
    assert len(app.messages.callbacks) == len(waits) < 30
    app.leases.held.clear()
    assert app.deliver(job).callback_waits == 0


def test_second_message_of_a_waiting_callback_is_dropped() -> None:
    app = TestApp()
    job = run_completed_job(app)
    first = app.reload(job).callback_next_at
    app.leases.held["callbacks#me"] = dict.fromkeys(range(PER_KEY), app.clock.now + 1_000_000)
    for _ in range(2):  # the second is too early: the first started a wait
        app.deliver_callback.deliver(job.id, remaining_ms=REPLY_MS, due=first)
    waiting = app.reload(job).callback_next_at
    assert (app.messages.callbacks, app.messages.dues) == ([(job.id, 2)], [waiting])
    app.deliver_callback.deliver(job.id, remaining_ms=REPLY_MS, due=waiting)  # a slow clock: the message is still early
    assert app.messages.dues == [waiting, waiting]


def test_callback_of_a_large_result_has_only_its_url() -> None:
    app = TestApp()
    app.dispatcher.outcomes = [type(RESPONSE)(200, {}, b'{"x":"%s"}' % (b"y" * MAX_CALLBACK_BYTES))]
    job = run_completed_job(app)
    app.deliver(job)
    ((_, body, headers),) = app.webhook_client.posts
    payload = json.loads(body)
    assert headers["x-result-url"] == payload["resultUrl"] == f"https://x.io/v1/jobs/{job.id}/result"
    assert payload["jobState"] == "Completed"
    assert "result" not in payload


def test_callback_of_a_deleted_result_has_only_its_url() -> None:
    app = TestApp()
    job = run_completed_job(app)
    app.jobs.bodies.clear()
    app.deliver(job)
    ((_, body, headers),) = app.webhook_client.posts
    assert json.loads(body)["resultUrl"] == headers["x-result-url"]


def test_redelivery_is_a_new_message_of_a_settled_callback() -> None:
    app = TestApp()
    job = run_completed_job(app)
    with pytest.raises(Conflict):
        app.redelivery.redeliver(app.reload(job))
    app.deliver(job)
    before = app.reload(job)
    redelivered = app.redelivery.redeliver(before)
    app.messages.callbacks.clear()
    assert app.redelivery.redeliver(before) == redelivered  # an earlier call wrote it but sent no message
    assert app.messages.callbacks == [(job.id, 0)]
    assert (redelivered.callback, redelivered.callback_attempt, redelivered.ttl) == (CallbackState.PENDING, 0, None)
    app.deliver(job)
    assert [headers["webhook-id"] for _, _, headers in app.webhook_client.posts] == [
        f"msg_{job.id}_0",
        f"msg_{job.id}_1",
    ]


def test_finished_job_is_published_without_its_content() -> None:
    app, events = TestApp(), FakeEventPublisher()
    notifier = JobFinishedNotifier(app.messages, events)
    callback_job, plain_job = run_completed_job(app, tag="t"), app.run(app.accept())
    notifier.on_job_finished(callback_job)
    notifier.on_job_finished(plain_job)
    assert app.messages.callbacks == [(callback_job.id, 0)]
    ((detail_type, detail), _) = events.published
    document = json.loads(detail)
    assert detail_type == "JobCompleted"
    assert (document["id"], document["tag"], document["state"], document["usage"]) == (
        callback_job.id,
        "t",
        "Completed",
        {"total_tokens": 3},
    )
    assert "hi" not in detail.decode()
    assert document["state"] == JobState.COMPLETED

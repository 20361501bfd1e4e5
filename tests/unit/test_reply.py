"""Callbacks: one for every end, signed, tried again by schedule, and dead only in plain sight."""

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
from tests.app import ANSWER, CALLBACK_LEASE_MS, PER_KEY, REPLY_MS, SWEEPER_MS, FakeWebhookClient, TestApp
from tests.fakes import FakeEventPublisher

REFUSED = DeliveryResult(500, "status 500: no")


def completed(house: TestApp, **options: object) -> Job:
    return house.run(house.accept(reply_to="https://r.io/hook", **options))


def test_the_bare_result_is_posted_once_with_who_it_is_about_in_headers() -> None:
    house = TestApp()
    job = completed(house, tag="ü/1", ref_id="a b")
    assert (job.callback, job.ttl) == (CallbackState.PENDING, None)
    house.deliver(job)
    house.deliver(job)
    ((url, body, headers),) = house.replier.posts
    assert (url, body) == ("https://r.io/hook", ANSWER.body)
    assert headers["webhook-id"] == f"msg_{job.id}_0"
    assert (headers["x-ref-id"], headers["x-tag"], headers["x-attempt"]) == ("a%20b", "%C3%BC%2F1", "1")
    done = house.now(job)
    assert (done.callback, done.callback_last_status, done.due_at) == (CallbackState.DELIVERED, 200, None)
    assert done.ttl == house.clock.now // 1000 + 7 * 86_400


@pytest.mark.parametrize("end", ["Failed", "Cancelled", "Expired"])
def test_every_end_is_told(end: str) -> None:
    house = TestApp()
    job = house.accept(reply_to="https://r.io/hook", deadline=60)
    if end == "Failed":
        house.protocol.outcomes = [ProviderRejected("too long")]
        house.run(job)
    elif end == "Cancelled":
        house.enqueue.cancel(job)
    else:
        house.clock.advance(61)
        house.run(job)
    house.deliver(job)
    ((_, body, headers),) = house.replier.posts
    told = json.loads(body)
    assert headers["x-job-state"] == ("Cancelled" if end == "Cancelled" else "Failed")
    assert told["responseStatus"]["errorCode"] == {"Failed": "ProviderRejected"}.get(end, end)
    assert told["error"]["message"] == told["responseStatus"]["message"]


def test_a_receiver_that_is_down_is_tried_ten_times_over_three_days_then_dead() -> None:
    house = TestApp()
    job = completed(house)
    started = house.clock.now
    house.replier.outcomes = [REFUSED] * 10
    waits: list[float] = []
    while house.now(job).callback == CallbackState.PENDING:
        house.deliver(job)
        next_at = house.now(job).callback_next_at
        if next_at:
            waits.append((next_at - house.clock.now) / 1000)
            house.clock.now = next_at
    assert waits == list(CALLBACK_SCHEDULE_S[1:])
    assert len(house.replier.posts) == 10
    assert {headers["webhook-id"] for _, _, headers in house.replier.posts} == {f"msg_{job.id}_0"}
    assert 2.9 < (house.clock.now - started) / 86_400_000 < 3.2
    dead = house.now(job)
    assert (dead.callback, dead.callback_last_status, dead.callback_last_error) == (
        CallbackState.DEAD,
        500,
        "status 500: no",
    )
    assert (dead.due_at, dead.ttl) == (None, house.clock.now // 1000 + (7 + 30) * 86_400)


@pytest.mark.parametrize(
    ("retry_after", "wait_s"),
    [("120", 120), ("1", 5), (None, 5), ("999999999", 86_400), ("soon", 5), ("Fri, 15 Jan 2027 08:10:00 GMT", 600)],
)
def test_a_receiver_that_asks_to_wait_is_heeded_within_reason(retry_after: str | None, wait_s: int) -> None:
    house = TestApp()
    job = completed(house)
    house.replier.outcomes = [DeliveryResult(429, "status 429", retry_after)]
    house.deliver(job)
    assert house.now(job).callback_next_at == house.clock.now + wait_s * 1000


@pytest.mark.parametrize("last", [DeliveryResult(410, "status 410"), CallbackRefused("private")])
def test_a_receiver_that_is_gone_or_may_not_be_called_is_not_tried_again(last: DeliveryResult | Exception) -> None:
    house = TestApp()
    job = completed(house)
    house.replier.outcomes = [last]
    house.deliver(job)
    assert house.now(job).callback == CallbackState.DEAD


def test_while_a_secret_is_rotated_both_sign_and_then_the_new_one_alone() -> None:
    house = TestApp()
    old = house.keys.secrets["me"]
    new = old.rotate(now_ms=house.clock.now, overlap_ms=60_000)
    assert house.keys.replace_webhook_secrets("me", old, new)
    for seconds, secrets in ((0, [new.current, old.current]), (60, [new.current])):
        house.clock.advance(seconds)
        house.replier.posts.clear()
        house.deliver(completed(house))
        ((_, body, headers),) = house.replier.posts
        moment = datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC)
        expected = [Webhook(secret).sign(headers["webhook-id"], moment, body.decode()) for secret in secrets]
        assert headers["webhook-signature"].split() == expected


def test_a_deliverer_that_died_is_followed_by_another_with_the_same_message_id() -> None:
    house = TestApp()
    job = completed(house)
    lease = {
        "now": house.clock.now,
        "completed_at": job.completed_at,
        "max_attempts": 10,
        "callback_token": "t",
        "callback_lease_until": house.clock.now + CALLBACK_LEASE_MS,
    }
    house.jobs.apply(CLAIM_DELIVERY, job.id, lease)
    house.deliver(job)
    assert house.replier.posts == []
    house.clock.advance(CALLBACK_LEASE_MS / 1000 + 1)
    waiting = house.swept(job)
    assert (waiting.callback, waiting.callback_next_at) == (
        CallbackState.PENDING,
        house.clock.now + 5_000,
    )  # by the schedule
    assert waiting.callback_last_error == "the deliverer died; it may have been sent"
    house.clock.advance(5)
    house.deliver(job)
    ((_, _, headers),) = house.replier.posts
    assert (headers["webhook-id"], headers["x-attempt"]) == (f"msg_{job.id}_0", "2")


@pytest.mark.parametrize("away", ["bodies", "keys"])
def test_what_cannot_be_read_just_now_costs_no_attempt(away: str) -> None:
    house = TestApp()
    job = completed(house)

    def fails(*_: object) -> None:
        raise ConnectionError(away)

    broken: Any = (house.jobs, "read_result") if away == "bodies" else (house.keys, "key")
    works = getattr(*broken)
    setattr(*broken, fails)
    with pytest.raises(ConnectionError):
        house.deliver(job)
    assert (house.now(job).callback, house.now(job).callback_attempt) == (CallbackState.PENDING, 0)
    setattr(*broken, works)
    assert house.deliver(job).callback == CallbackState.DELIVERED


def test_a_deliverer_that_comes_back_after_its_lease_decides_nothing() -> None:
    house = TestApp()
    job = completed(house)

    class Slow(FakeWebhookClient):
        def post(self, *given: Any, **more: Any) -> DeliveryResult:
            house.clock.advance(CALLBACK_LEASE_MS / 1000 + 1)
            house.swept(job)
            return DeliveryResult(410, "status 410")

    house.reply._replier = Slow()  # pyright: ignore
    assert house.reply.deliver(job.id, remaining_ms=REPLY_MS) is None
    assert house.now(job).callback == CallbackState.PENDING


def test_a_sweeper_that_is_too_late_counts_no_dead_callback() -> None:
    house = TestApp()
    job = completed(house)
    house.replier.outcomes = [REFUSED] * 9
    for _ in range(9):
        house.clock.now = house.deliver(job).callback_next_at or 0
    claim = {"now": house.clock.now, "completed_at": job.completed_at, "max_attempts": 10, "callback_token": "t"}
    house.jobs.apply(CLAIM_DELIVERY, job.id, claim | {"callback_lease_until": house.clock.now})
    house.clock.advance(1)
    apply = house.jobs.apply
    house.jobs.apply = lambda row, *given: ConditionFailed(None) if row == RECOVER_DELIVERY_DEAD else apply(row, *given)
    assert house.sweep.sweep(remaining_ms=SWEEPER_MS).dead_callbacks == 0
    house.jobs.apply = apply
    assert house.sweep.sweep(remaining_ms=SWEEPER_MS).dead_callbacks == 1
    assert house.now(job).callback_last_error == "the deliverer died; it may have been sent"


def test_a_callback_that_finds_no_place_for_a_day_is_dead_and_says_why() -> None:
    house = TestApp()
    job, started = completed(house), house.clock.now
    for _ in range(200):
        house.clock.now = house.now(job).callback_next_at or house.clock.now
        house.slots.held["callbacks#me"] = dict.fromkeys(range(PER_KEY), house.clock.now + 1_000_000)
        house.deliver(job)
    assert 86_400 < (house.clock.now - started) / 1000 < 1.1 * 86_400
    dead = house.now(job)
    assert (dead.callback, dead.callback_attempt, dead.due_at, house.replier.posts) == (CallbackState.DEAD, 0, None, [])
    assert dead.callback_last_error == "for a day there was no place among its receiver's others"
    assert dead.ttl == house.clock.now // 1000 + (7 + 30) * 86_400


@pytest.mark.parametrize("waits", [0, MAX_BUSY_WAITS])
def test_a_wait_or_a_death_without_a_place_that_was_written_and_never_confirmed_is_ours(waits: int) -> None:
    house = TestApp()
    job = completed(house)
    house.jobs.items[job.id]["callback_waits"] = waits
    house.slots.held["callbacks#me"] = dict.fromkeys(range(PER_KEY), house.clock.now + 1_000_000)
    apply = house.jobs.apply

    def twice(*given: Any) -> Any:  # as boto3 does, when the first answer is lost
        apply(*given)
        return apply(*given)

    house.jobs.apply = twice
    told = house.reply.deliver(job.id, remaining_ms=REPLY_MS)
    assert told == house.now(job).callback == (CallbackState.DEAD if waits else CallbackState.PENDING)
    assert len(house.messages.callbacks) == (0 if waits else 1)


def test_a_queue_that_nobody_reads_is_not_filled_with_reminders() -> None:
    house = TestApp()
    completed(house)
    for _ in range(180):
        house.clock.advance(60)
        house.sweep.sweep(remaining_ms=SWEEPER_MS)
    assert 12 < len(house.messages.callbacks) < 20


def test_reminders_that_piled_up_while_nobody_read_the_queue_end_with_the_first_wait() -> None:
    house = TestApp()
    jobs = [completed(house) for _ in range(20)]
    for job in jobs:
        house.messages.send_callback(job.id, due=job.callback_next_at)
    for _ in range(90):
        house.clock.advance(60)
        house.sweep.sweep(remaining_ms=SWEEPER_MS)
    assert len(house.messages.callbacks) > 5 * len(jobs)
    for _ in range(3):  # rounds in which the receiver is busy all the time
        house.slots.held["callbacks#me"] = dict.fromkeys(range(PER_KEY), house.clock.now + 1_000_000)
        sent = list(zip(house.messages.callbacks, house.messages.dues, strict=True))
        house.messages.callbacks.clear()
        house.messages.dues.clear()
        for (job_id, _), due in sent:
            house.reply.deliver(job_id, remaining_ms=REPLY_MS, due=due)
        assert len(house.messages.callbacks) == len(jobs)
        house.clock.advance(5)


def test_a_callback_nobody_began_is_sent_again_by_the_sweeper() -> None:
    house = TestApp()
    job = completed(house)
    house.clock.advance(61)
    house.swept(job)
    assert house.messages.callbacks == [(job.id, 0)]


def test_a_message_that_comes_too_early_comes_back_when_it_is_due() -> None:
    house = TestApp()
    job = completed(house)
    house.replier.outcomes = [REFUSED]
    house.deliver(job)
    house.messages.callbacks.clear()
    house.deliver(job)
    assert house.messages.callbacks == [(job.id, 6)]
    assert len(house.replier.posts) == 1


def test_a_receiver_that_is_busy_is_tried_later_and_that_is_no_attempt() -> None:
    house = TestApp()
    job = completed(house)
    house.slots.held["callbacks#me"] = dict.fromkeys(range(PER_KEY), house.clock.now + 1)
    waiting = house.deliver(job)
    assert (waiting.callback, waiting.callback_attempt, waiting.callback_next_at) == (
        CallbackState.PENDING,
        0,
        house.clock.now + 1000,
    )
    assert house.messages.callbacks == [(job.id, 2)]
    house.clock.advance(2)
    assert house.deliver(job).callback == CallbackState.DELIVERED
    assert len(house.replier.posts) == 1


def test_the_longer_a_busy_receiver_keeps_a_callback_waiting_the_less_often_it_is_tried() -> None:
    house = TestApp()
    job = completed(house)
    waits: list[int] = []
    while sum(waits) < 7_200_000:
        house.slots.held["callbacks#me"] = dict.fromkeys(range(PER_KEY), house.clock.now + 1_000_000)
        waits.append((house.deliver(job).callback_next_at or 0) - house.clock.now)
        assert house.swept(job).due_at == house.clock.now + waits[-1] + CALLBACK_DUE_MS  # the sweeper leaves it alone
        house.clock.now += waits[-1]
    assert waits == sorted(waits)
    assert (waits[0], waits[1], waits[-1]) == (1000, 1500, 600_000)
    assert len(house.messages.callbacks) == len(waits) < 30
    house.slots.held.clear()
    assert house.deliver(job).callback_waits == 0


def test_of_two_messages_for_one_callback_one_is_left_once_it_has_waited() -> None:
    house = TestApp()
    job = completed(house)
    first = house.now(job).callback_next_at
    house.slots.held["callbacks#me"] = dict.fromkeys(range(PER_KEY), house.clock.now + 1_000_000)
    for _ in range(2):  # the second is too early for the wait that the first began
        house.reply.deliver(job.id, remaining_ms=REPLY_MS, due=first)
    waiting = house.now(job).callback_next_at
    assert (house.messages.callbacks, house.messages.dues) == ([(job.id, 2)], [waiting])
    house.reply.deliver(job.id, remaining_ms=REPLY_MS, due=waiting)  # by a clock that is slow
    assert house.messages.dues == [waiting, waiting]


def test_a_large_result_is_left_to_be_fetched() -> None:
    house = TestApp()
    house.protocol.outcomes = [type(ANSWER)(200, {}, b'{"x":"%s"}' % (b"y" * MAX_CALLBACK_BYTES))]
    job = completed(house)
    house.deliver(job)
    ((_, body, headers),) = house.replier.posts
    told = json.loads(body)
    assert headers["x-result-url"] == told["resultUrl"] == f"https://x.io/v1/jobs/{job.id}/result"
    assert told["jobState"] == "Completed"
    assert "result" not in told


def test_a_result_that_is_no_longer_kept_is_not_told_as_an_empty_one() -> None:
    house = TestApp()
    job = completed(house)
    house.jobs.bodies.clear()
    house.deliver(job)
    ((_, body, headers),) = house.replier.posts
    assert json.loads(body)["resultUrl"] == headers["x-result-url"]


def test_a_redelivery_is_a_new_message_and_only_for_what_was_settled() -> None:
    house = TestApp()
    job = completed(house)
    with pytest.raises(Conflict):
        house.redelivery.redeliver(house.now(job))
    house.deliver(job)
    before = house.now(job)
    again = house.redelivery.redeliver(before)
    house.messages.callbacks.clear()
    assert house.redelivery.redeliver(before) == again  # begun by an earlier call that was never answered, nor sent
    assert house.messages.callbacks == [(job.id, 0)]
    assert (again.callback, again.callback_attempt, again.ttl) == (CallbackState.PENDING, 0, None)
    house.deliver(job)
    assert [headers["webhook-id"] for _, _, headers in house.replier.posts] == [f"msg_{job.id}_0", f"msg_{job.id}_1"]


def test_a_job_that_has_ended_is_told_to_its_deliverer_and_to_the_bus_without_its_words() -> None:
    house, events = TestApp(), FakeEventPublisher()
    finished = JobFinishedNotifier(house.messages, events)
    with_reply, without = completed(house, tag="t"), house.run(house.accept())
    finished.on_job_finished(with_reply)
    finished.on_job_finished(without)
    assert house.messages.callbacks == [(with_reply.id, 0)]
    ((kind, detail), _) = events.published
    told = json.loads(detail)
    assert kind == "JobCompleted"
    assert (told["id"], told["tag"], told["state"], told["usage"]) == (
        with_reply.id,
        "t",
        "Completed",
        {"total_tokens": 3},
    )
    assert "hi" not in detail.decode()
    assert told["state"] == JobState.COMPLETED

"""What every job store promises: the in-memory fake, DynamoDB as moto plays it, and DynamoDB as MiniStack does."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from aiserver.aws.bodies import INLINE_BYTES
from aiserver.aws.items import unpack
from aiserver.clock import job_id as make_id
from aiserver.jobs.job import Job, due_shard
from aiserver.jobs.ports import ConditionFailed, JobStore
from aiserver.jobs.states import JobState
from aiserver.jobs.transitions import CLAIM, COMPLETE, DEFER, FAIL, MARK_CALL, REQUEST_CANCEL, RESEND
from aiserver.usecases.terminal import terminal_fields
from local import aws
from tests.fakes import FakeClock


def job(clock: FakeClock, **more: Any) -> Job:
    job_id = more.pop("id", clock.job_id())
    values = {
        "id": job_id,
        "owner": "me",
        "ref_id": f"ref-{job_id}",
        "operation": "chat.completions",
        "model": "m",
        "queue": "hosted",
        "state": JobState.QUEUED,
        "created_at": clock.now,
        "deadline": clock.now + 3_600_000,
        "request_location": "",
        "request_hash": "h",
        "base_url": "https://x",
        "due_shard": due_shard(job_id),
        "due_at": clock.now + 60_000,
    }
    return Job(**(values | more))


def claim(jobs: JobStore, clock: FakeClock, job_id: int, token: str = "t1") -> Job | ConditionFailed:
    return jobs.apply(CLAIM, job_id, {"now": clock.now, "lease_token": token, "lease_until": clock.now + 900_000})


def claimed(jobs: JobStore, clock: FakeClock, **more: Any) -> Job:
    created = jobs.create(job(clock, **more), b"{}", now_ms=clock.now).job
    taken = claim(jobs, clock, created.id)
    assert isinstance(taken, Job)
    return taken


def answered(taken: Job, clock: FakeClock, token: str = "t1") -> dict[str, Any]:
    fence = {"attempt": taken.attempt, "lease_token": token}
    return (
        fence
        | terminal_fields(taken, now_ms=clock.now, settled_days=7)
        | {"served_by": "p", "usage": '{"total_tokens":1}', "maybe_billed": 0}
    )


def test_an_accepted_job_is_there_with_its_request(jobs: JobStore, clock: FakeClock) -> None:
    accepted = jobs.create(job(clock, tag="t", reply_to="https://x.io"), b'{"a":2.50}', now_ms=clock.now)
    assert accepted.created
    assert jobs.get(accepted.job.id) == accepted.job
    assert jobs.read_request(accepted.job) == b'{"a":2.50}'
    assert jobs.find_by_ref_id("me", accepted.job.ref_id, now_ms=clock.now) == accepted.job
    assert jobs.find_by_ref_id("you", accepted.job.ref_id, now_ms=clock.now) is None
    assert jobs.get(accepted.job.id + 1) is None


@pytest.mark.parametrize("size", [20, INLINE_BYTES + 1])
def test_a_job_answered_on_the_spot_is_there_with_both_its_bodies(size: int, jobs: JobStore, clock: FakeClock) -> None:
    done = job(clock, state=JobState.COMPLETED, due_shard=None, due_at=None)
    made = jobs.create(done, b"q" * size, now_ms=clock.now, result=b"a" * size).job
    assert jobs.get(made.id) == made
    assert (jobs.read_request(made), jobs.read_result(made)) == (b"q" * size, b"a" * size)
    assert made.result_bytes == size
    assert all(list(jobs.due_jobs(str(shard), now_ms=clock.now + 10**9)) == [] for shard in range(8))


def test_one_ref_id_names_one_job_per_owner(jobs: JobStore, clock: FakeClock) -> None:
    first = jobs.create(job(clock, ref_id="r"), b"1", now_ms=clock.now)
    again = jobs.create(job(clock, ref_id="r"), b"2", now_ms=clock.now)
    other = jobs.create(job(clock, ref_id="r", owner="you"), b"3", now_ms=clock.now)
    assert (again.created, again.job.id) == (False, first.job.id)
    assert other.created
    assert jobs.read_request(first.job) == b"1"


@pytest.mark.parametrize("size", [1, INLINE_BYTES + 1])
def test_an_id_that_is_taken_is_replaced_and_no_body_with_it(size: int, jobs: JobStore, clock: FakeClock) -> None:
    taken = make_id(clock.now, 4000)
    mine, yours = b"1" * size, b"2" * size
    first = jobs.create(job(clock, id=taken), mine, now_ms=clock.now)
    second = jobs.create(job(clock, id=taken, ref_id="other", owner="you"), yours, now_ms=clock.now)
    assert second.created
    assert second.job.id != taken
    assert (jobs.read_request(first.job), jobs.read_request(second.job)) == (mine, yours)


@pytest.mark.parametrize("at", ["item", "jobs/1/request-gone"])
def test_a_body_that_is_no_longer_kept_is_none(at: str, jobs: JobStore, clock: FakeClock) -> None:
    forgotten = job(clock, request_location=at, result_location=at)
    assert (jobs.read_request(forgotten), jobs.read_result(forgotten)) == (None, None)


def test_a_ref_id_may_be_used_again_after_its_time(jobs: JobStore, clock: FakeClock) -> None:
    first = jobs.create(job(clock, ref_id="r"), b"1", now_ms=clock.now)
    clock.advance(3600 + 60 * 86_400)
    assert jobs.find_by_ref_id("me", "r", now_ms=clock.now) is None
    second = jobs.create(job(clock, ref_id="r"), b"2", now_ms=clock.now)
    assert second.created
    assert second.job.id > first.job.id


def test_a_claim_is_won_once_and_its_own_echo_counts_as_won(jobs: JobStore, clock: FakeClock) -> None:
    created = jobs.create(job(clock), b"{}", now_ms=clock.now).job
    won = claim(jobs, clock, created.id)
    assert isinstance(won, Job)
    assert (won.state, won.attempt, won.due_at) == (JobState.STARTED, 1, won.lease_until)
    assert claim(jobs, clock, created.id) == won
    lost = claim(jobs, clock, created.id, token="t2")
    assert isinstance(lost, ConditionFailed)
    assert lost.job == won


def test_a_ref_id_whose_job_is_gone_is_free_though_the_job_is_still_stored(jobs: JobStore, clock: FakeClock) -> None:
    gone = job(clock, ref_id="r", state=JobState.COMPLETED, due_at=None, ttl=clock.now // 1000 + 60)
    first = jobs.create(gone, b"1", now_ms=clock.now)
    clock.advance(61)
    assert jobs.find_by_ref_id("me", "r", now_ms=clock.now) is None
    second = jobs.create(job(clock, ref_id="r"), b"2", now_ms=clock.now)
    assert second.created
    assert second.job.id != first.job.id


@pytest.mark.parametrize("ahead_s", [-1, 0, 1])
def test_a_job_is_claimed_neither_early_nor_late(ahead_s: int, jobs: JobStore, clock: FakeClock) -> None:
    early = jobs.create(job(clock, not_before=clock.now + ahead_s * 1000), b"{}", now_ms=clock.now).job
    assert isinstance(claim(jobs, clock, early.id), Job) == (ahead_s <= 0)
    late = jobs.create(job(clock, deadline=clock.now + ahead_s * 1000), b"{}", now_ms=clock.now).job
    assert isinstance(claim(jobs, clock, late.id), Job) == (ahead_s > 0)


@pytest.mark.parametrize("size", [2, INLINE_BYTES, INLINE_BYTES + 1, 300_000])
def test_bodies_of_any_size_come_back_byte_for_byte(size: int, jobs: JobStore, clock: FakeClock) -> None:
    body = b'"' + b"\xc3\xa9" * (size // 2 - 1) + b'"' * (1 + size % 2)
    taken = jobs.create(job(clock), body, now_ms=clock.now).job
    won = claim(jobs, clock, taken.id)
    assert isinstance(won, Job)
    assert jobs.read_request(won) == body
    assert jobs.complete(COMPLETE, won, answered(won, clock), body) is None
    done = jobs.get(won.id)
    assert done is not None
    assert (done.state, done.result_bytes, done.usage, done.due_at) == (
        JobState.COMPLETED,
        size,
        '{"total_tokens":1}',
        None,
    )
    assert done.ttl == clock.now // 1000 + 7 * 86_400
    assert jobs.read_result(done) == body


def test_a_late_worker_changes_nothing(jobs: JobStore, clock: FakeClock) -> None:
    late = claimed(jobs, clock)
    fence = {"attempt": late.attempt, "lease_token": "t1"}
    back = jobs.apply(
        DEFER,
        late.id,
        fence
        | {"not_before": clock.now, "wait_reason": "w", "due_at": clock.now, "invalid_responses": 0, "maybe_billed": 0},
    )
    assert isinstance(back, Job)
    assert back.wait_reason == "w"
    now_its = claim(jobs, clock, late.id, token="t2")
    assert isinstance(now_its, Job)
    assert isinstance(
        jobs.apply(
            MARK_CALL, late.id, fence | {"now": clock.now, "call_queue": "hosted", "calls": 1, "maybe_billed": 0}
        ),
        ConditionFailed,
    )
    assert isinstance(jobs.complete(COMPLETE, late, answered(late, clock), b"late"), ConditionFailed)
    failure = {"error_code": "e", "error": "e", "error_type": "e", "error_sub_code": "e", "maybe_billed": 0}
    assert isinstance(jobs.apply(FAIL, late.id, answered(late, clock) | failure), ConditionFailed)
    assert jobs.get(late.id) == now_its


@pytest.mark.parametrize("size", [2, INLINE_BYTES + 1])
def test_a_finish_that_was_committed_but_not_confirmed_counts_as_made(
    size: int, jobs: JobStore, clock: FakeClock
) -> None:
    taken = claimed(jobs, clock)
    params = answered(taken, clock)
    assert jobs.complete(COMPLETE, taken, params, b"r" * size) is None
    assert jobs.complete(COMPLETE, taken, params, b"r" * size) is None


def test_a_call_whose_mark_was_committed_but_not_confirmed_is_counted_once(jobs: JobStore, clock: FakeClock) -> None:
    taken = claimed(jobs, clock)
    fence = {"attempt": taken.attempt, "lease_token": "t1"}
    mark = fence | {"now": clock.now, "call_queue": "hosted", "calls": taken.calls + 1, "maybe_billed": 0}
    marked = jobs.apply(MARK_CALL, taken.id, mark)
    assert jobs.apply(MARK_CALL, taken.id, mark) == marked
    assert isinstance(marked, Job)
    assert marked.calls == 1


def test_a_finish_is_refused_once_a_cancel_was_asked(jobs: JobStore, clock: FakeClock) -> None:
    taken = claimed(jobs, clock)
    asked = jobs.apply(REQUEST_CANCEL, taken.id, {"now": clock.now, "owner": "me"})
    assert isinstance(asked, Job)
    refused = jobs.complete(COMPLETE, taken, answered(taken, clock), b"{}")
    assert isinstance(refused, ConditionFailed)
    assert jobs.get(taken.id) == asked


def test_only_the_owner_may_ask_to_cancel(jobs: JobStore, clock: FakeClock) -> None:
    taken = claimed(jobs, clock)
    assert isinstance(jobs.apply(REQUEST_CANCEL, taken.id, {"now": clock.now, "owner": "you"}), ConditionFailed)


def test_a_transition_of_a_job_that_never_was_is_refused_with_nothing(jobs: JobStore, clock: FakeClock) -> None:
    refused = claim(jobs, clock, 12345)
    assert isinstance(refused, ConditionFailed)
    assert refused.job is None


def test_the_due_index_holds_unfinished_obligations_only(jobs: JobStore, clock: FakeClock) -> None:
    queued = jobs.create(job(clock), b"{}", now_ms=clock.now).job
    shard = queued.due_shard or ""
    assert list(jobs.due_jobs(shard, now_ms=clock.now)) == []
    clock.advance(61)
    assert list(jobs.due_jobs(shard, now_ms=clock.now)) == [(queued.id, queued.due_at)]
    assert list(jobs.due_jobs(str((int(shard) + 1) % 8), now_ms=clock.now)) == []
    seen = {"seen": queued.due_at, "due_at": clock.now + 60_000}
    assert isinstance(jobs.apply(RESEND, queued.id, seen), Job)
    assert isinstance(jobs.apply(RESEND, queued.id, seen | {"due_at": clock.now + 1}), ConditionFailed)
    assert list(jobs.due_jobs(shard, now_ms=clock.now)) == []
    won = claim(jobs, clock, queued.id)
    assert isinstance(won, Job)
    jobs.complete(COMPLETE, won, answered(won, clock), b"{}")
    clock.advance(100_000)
    assert list(jobs.due_jobs(shard, now_ms=clock.now)) == []


def test_jobs_are_listed_newest_first_by_tag_and_state_with_a_cursor(jobs: JobStore, clock: FakeClock) -> None:
    made = [jobs.create(job(clock, tag="ab"[i % 2]), b"{}", now_ms=clock.now).job for i in range(7)]
    jobs.create(job(clock, owner="you", tag="a"), b"{}", now_ms=clock.now)
    claim(jobs, clock, made[6].id)
    newest = [one.id for one in reversed(made)]

    def listed(**more: Any) -> list[int]:
        found: list[int] = []
        cursor = None
        while True:
            page = jobs.list_page("me", **({"tag": None, "state": None, "take": 2, "cursor": cursor} | more))
            found += [one.id for one in page.jobs]
            cursor = page.cursor
            if cursor is None:
                return found
            more["cursor"] = cursor

    assert listed() == newest
    assert listed(tag="a") == newest[::2]
    assert listed(state="Started") == newest[:1]
    assert listed(tag="b", state="Started") == []


def test_a_page_looks_at_some_hundred_jobs_at_most_and_its_cursor_leads_on(
    clock: FakeClock, ministack_jobs: JobStore
) -> None:
    oldest = ministack_jobs.create(job(clock, state=JobState.FAILED), b"{}", now_ms=clock.now).job
    for _ in range(300):
        ministack_jobs.create(job(clock), b"{}", now_ms=clock.now)
    first = ministack_jobs.list_page("me", tag=None, state="Failed", take=5, cursor=None)
    assert (first.jobs, first.cursor is None) == ([], False)
    then = ministack_jobs.list_page("me", tag=None, state="Failed", take=5, cursor=first.cursor)
    assert ([one.id for one in then.jobs], then.cursor) == ([oldest.id], None)


def test_no_item_comes_near_what_dynamodb_refuses(clock: FakeClock, ministack: str, ministack_jobs: JobStore) -> None:
    """400 KB is its limit: names and errors of any allowed length, and bodies of any size, stay far below."""
    widest = {"ref_id": "\U0001f600" * 256, "tag": "\U0001f600" * 256, "model": "\U0001f600" * 256}
    widest |= {"reply_to": "https://x.io/" + "x" * 2035, "error": "\U0001f600" * 1000, "usage": "x" * 2048}
    for number, size in enumerate((INLINE_BYTES, INLINE_BYTES + 1, 399 * 1024, 400 * 1024)):
        made = job(clock, **widest | {"owner": f"owner-{number}", "state": JobState.COMPLETED, "due_at": None})
        kept = ministack_jobs.create(made, b"q" * size, now_ms=clock.now, result=b"a" * size).job
        assert (ministack_jobs.read_request(kept), ministack_jobs.read_result(kept)) == (b"q" * size, b"a" * size)
    items = aws.client("dynamodb", ministack).scan(TableName="jobs")["Items"]
    assert max(len(str(unpack(item)).encode()) for item in items) < 40 * 1024


def test_a_ref_id_used_by_many_at_once_makes_one_job(clock: FakeClock, ministack_jobs: JobStore) -> None:
    wanted = [replace(job(clock), ref_id="r") for _ in range(50)]
    with ThreadPoolExecutor(10) as pool:
        accepted = list(pool.map(lambda one: ministack_jobs.create(one, b"{}", now_ms=clock.now), wanted))
    assert sum(one.created for one in accepted) == 1
    assert len({one.job.id for one in accepted}) == 1

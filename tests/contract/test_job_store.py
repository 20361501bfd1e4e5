"""The contract of job stores: the in-memory fake, and DynamoDB in moto and in MiniStack."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from aiserver.aws.bodies import MAX_ITEM_BODY_BYTES
from aiserver.aws.items import unpack
from aiserver.clock import job_id as make_id
from aiserver.jobs.job import Job, due_shard
from aiserver.jobs.ports import ConditionFailed, JobFilter, JobStore
from aiserver.jobs.states import JobState
from aiserver.jobs.transitions import CLAIM, COMPLETE, DEFER, FAIL, MARK_CALL, REQUEST_CANCEL, RESEND
from aiserver.usecases.terminal import result_fields, terminal_fields
from local import aws
from tests.fakes import FakeClock


def job(clock: FakeClock, **fields: Any) -> Job:
    job_id = fields.pop("id", clock.job_id())
    defaults = {
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
    return Job(**(defaults | fields))


def claim(jobs: JobStore, clock: FakeClock, job_id: int, token: str = "t1") -> Job | ConditionFailed:
    return jobs.apply(CLAIM, job_id, {"now": clock.now, "lease_token": token, "lease_until": clock.now + 900_000})


def create_claimed_job(jobs: JobStore, clock: FakeClock, **fields: Any) -> Job:
    created = jobs.create(job(clock, **fields), b"{}", now_ms=clock.now).job
    claimed_job = claim(jobs, clock, created.id)
    assert isinstance(claimed_job, Job)
    return claimed_job


def completion_params(claimed_job: Job, clock: FakeClock, token: str = "t1") -> dict[str, Any]:
    fence = {"attempt": claimed_job.attempt, "lease_token": token}
    return (
        fence
        | terminal_fields(claimed_job, now_ms=clock.now, settled_days=7)
        | {"served_by": "p", "calls": 1, "usage": '{"total_tokens":1}', "maybe_billed": 0}
        | result_fields(None, None)
    )


def test_accepted_job_is_stored_with_its_request(jobs: JobStore, clock: FakeClock) -> None:
    accepted = jobs.create(job(clock, tag="t", reply_to="https://x.io"), b'{"a":2.50}', now_ms=clock.now)
    assert accepted.created
    assert jobs.get(accepted.job.id) == accepted.job
    assert jobs.read_request(accepted.job) == b'{"a":2.50}'
    assert jobs.find_by_ref_id("me", accepted.job.ref_id, now_ms=clock.now) == accepted.job
    assert jobs.find_by_ref_id("you", accepted.job.ref_id, now_ms=clock.now) is None
    assert jobs.get(accepted.job.id + 1) is None


@pytest.mark.parametrize("size", [20, MAX_ITEM_BODY_BYTES + 1])
def test_synchronously_completed_job_is_stored_with_both_bodies(size: int, jobs: JobStore, clock: FakeClock) -> None:
    completed = job(clock, state=JobState.COMPLETED, due_shard=None, due_at=None)
    stored = jobs.create(completed, b"q" * size, now_ms=clock.now, result=b"a" * size).job
    assert jobs.get(stored.id) == stored
    assert (jobs.read_request(stored), jobs.read_result(stored)) == (b"q" * size, b"a" * size)
    assert stored.result_bytes == size
    assert all(list(jobs.due_jobs(str(shard), now_ms=clock.now + 10**9)) == [] for shard in range(8))


def test_ref_id_identifies_one_job_per_owner(jobs: JobStore, clock: FakeClock) -> None:
    first = jobs.create(job(clock, ref_id="r"), b"1", now_ms=clock.now)
    repeated = jobs.create(job(clock, ref_id="r"), b"2", now_ms=clock.now)
    foreign = jobs.create(job(clock, ref_id="r", owner="you"), b"3", now_ms=clock.now)
    assert (repeated.created, repeated.job.id) == (False, first.job.id)
    assert foreign.created
    assert jobs.read_request(first.job) == b"1"


@pytest.mark.parametrize("size", [1, MAX_ITEM_BODY_BYTES + 1])
def test_job_id_in_use_is_replaced_without_overwriting_a_body(size: int, jobs: JobStore, clock: FakeClock) -> None:
    used_id = make_id(clock.now, 4000)
    first_body, second_body = b"1" * size, b"2" * size
    first = jobs.create(job(clock, id=used_id), first_body, now_ms=clock.now)
    second = jobs.create(job(clock, id=used_id, ref_id="other", owner="you"), second_body, now_ms=clock.now)
    assert second.created
    assert second.job.id != used_id
    assert (jobs.read_request(first.job), jobs.read_request(second.job)) == (first_body, second_body)


@pytest.mark.parametrize("at", ["item", "jobs/1/request-gone"])
def test_deleted_body_is_none(at: str, jobs: JobStore, clock: FakeClock) -> None:
    job_without_bodies = job(clock, request_location=at, result_location=at)
    assert (jobs.read_request(job_without_bodies), jobs.read_result(job_without_bodies)) == (None, None)


def test_ref_id_can_be_reused_after_its_retention_time(jobs: JobStore, clock: FakeClock) -> None:
    first = jobs.create(job(clock, ref_id="r"), b"1", now_ms=clock.now)
    clock.advance(3600 + 60 * 86_400)
    assert jobs.find_by_ref_id("me", "r", now_ms=clock.now) is None
    second = jobs.create(job(clock, ref_id="r"), b"2", now_ms=clock.now)
    assert second.created
    assert second.job.id > first.job.id


def test_claim_succeeds_once_and_its_repetition_is_idempotent(jobs: JobStore, clock: FakeClock) -> None:
    created = jobs.create(job(clock), b"{}", now_ms=clock.now).job
    claimed_job = claim(jobs, clock, created.id)
    assert isinstance(claimed_job, Job)
    assert (claimed_job.state, claimed_job.attempt, claimed_job.due_at) == (
        JobState.STARTED,
        1,
        claimed_job.lease_until,
    )
    assert claim(jobs, clock, created.id) == claimed_job
    rejected = claim(jobs, clock, created.id, token="t2")
    assert isinstance(rejected, ConditionFailed)
    assert rejected.job == claimed_job


def test_ref_id_of_an_expired_job_is_free_before_the_item_is_deleted(jobs: JobStore, clock: FakeClock) -> None:
    expiring = job(clock, ref_id="r", state=JobState.COMPLETED, due_at=None, ttl=clock.now // 1000 + 60)
    first = jobs.create(expiring, b"1", now_ms=clock.now)
    clock.advance(61)
    assert jobs.find_by_ref_id("me", "r", now_ms=clock.now) is None
    second = jobs.create(job(clock, ref_id="r"), b"2", now_ms=clock.now)
    assert second.created
    assert second.job.id != first.job.id


@pytest.mark.parametrize("ahead_s", [-1, 0, 1])
def test_claim_respects_not_before_and_deadline(ahead_s: int, jobs: JobStore, clock: FakeClock) -> None:
    early = jobs.create(job(clock, not_before=clock.now + ahead_s * 1000), b"{}", now_ms=clock.now).job
    assert isinstance(claim(jobs, clock, early.id), Job) == (ahead_s <= 0)
    late = jobs.create(job(clock, deadline=clock.now + ahead_s * 1000), b"{}", now_ms=clock.now).job
    assert isinstance(claim(jobs, clock, late.id), Job) == (ahead_s > 0)


@pytest.mark.parametrize("size", [2, MAX_ITEM_BODY_BYTES, MAX_ITEM_BODY_BYTES + 1, 300_000])
def test_bodies_of_any_size_are_stored_byte_for_byte(size: int, jobs: JobStore, clock: FakeClock) -> None:
    body = b'"' + b"\xc3\xa9" * (size // 2 - 1) + b'"' * (1 + size % 2)
    created = jobs.create(job(clock), body, now_ms=clock.now).job
    claimed_job = claim(jobs, clock, created.id)
    assert isinstance(claimed_job, Job)
    assert jobs.read_request(claimed_job) == body
    assert jobs.complete(COMPLETE, claimed_job, completion_params(claimed_job, clock), body) is None
    completed = jobs.get(claimed_job.id)
    assert completed is not None
    assert (completed.state, completed.result_bytes, completed.usage, completed.due_at) == (
        JobState.COMPLETED,
        size,
        '{"total_tokens":1}',
        None,
    )
    assert completed.ttl == clock.now // 1000 + 7 * 86_400
    assert jobs.read_result(completed) == body


def test_late_worker_changes_nothing(jobs: JobStore, clock: FakeClock) -> None:
    late_job = create_claimed_job(jobs, clock)
    fence = {"attempt": late_job.attempt, "lease_token": "t1"}
    deferred = jobs.apply(
        DEFER,
        late_job.id,
        fence
        | {"not_before": clock.now, "wait_reason": "w", "due_at": clock.now, "invalid_responses": 0, "maybe_billed": 0},
    )
    assert isinstance(deferred, Job)
    assert deferred.wait_reason == "w"
    reclaimed = claim(jobs, clock, late_job.id, token="t2")
    assert isinstance(reclaimed, Job)
    assert isinstance(
        jobs.apply(
            MARK_CALL, late_job.id, fence | {"now": clock.now, "call_queue": "hosted", "calls": 1, "maybe_billed": 0}
        ),
        ConditionFailed,
    )
    assert isinstance(jobs.complete(COMPLETE, late_job, completion_params(late_job, clock), b"late"), ConditionFailed)
    failure = {"error_code": "e", "error": "e", "error_type": "e", "error_sub_code": "e", "maybe_billed": 0}
    assert isinstance(jobs.apply(FAIL, late_job.id, completion_params(late_job, clock) | failure), ConditionFailed)
    assert jobs.get(late_job.id) == reclaimed


@pytest.mark.parametrize("size", [2, MAX_ITEM_BODY_BYTES + 1])
def test_finish_committed_without_confirmation_is_idempotent(size: int, jobs: JobStore, clock: FakeClock) -> None:
    claimed_job = create_claimed_job(jobs, clock)
    params = completion_params(claimed_job, clock)
    assert jobs.complete(COMPLETE, claimed_job, params, b"r" * size) is None
    assert jobs.complete(COMPLETE, claimed_job, params, b"r" * size) is None


def test_call_mark_committed_without_confirmation_counts_once(jobs: JobStore, clock: FakeClock) -> None:
    claimed_job = create_claimed_job(jobs, clock)
    fence = {"attempt": claimed_job.attempt, "lease_token": "t1"}
    mark = fence | {"now": clock.now, "call_queue": "hosted", "calls": claimed_job.calls + 1, "maybe_billed": 0}
    marked = jobs.apply(MARK_CALL, claimed_job.id, mark)
    assert jobs.apply(MARK_CALL, claimed_job.id, mark) == marked
    assert isinstance(marked, Job)
    assert marked.calls == 1


def test_finish_is_rejected_after_a_cancel_request(jobs: JobStore, clock: FakeClock) -> None:
    claimed_job = create_claimed_job(jobs, clock)
    cancelling = jobs.apply(REQUEST_CANCEL, claimed_job.id, {"now": clock.now, "owner": "me"})
    assert isinstance(cancelling, Job)
    rejected = jobs.complete(COMPLETE, claimed_job, completion_params(claimed_job, clock), b"{}")
    assert isinstance(rejected, ConditionFailed)
    assert jobs.get(claimed_job.id) == cancelling


def test_only_the_owner_may_request_a_cancel(jobs: JobStore, clock: FakeClock) -> None:
    claimed_job = create_claimed_job(jobs, clock)
    assert isinstance(jobs.apply(REQUEST_CANCEL, claimed_job.id, {"now": clock.now, "owner": "you"}), ConditionFailed)


def test_transition_of_an_unknown_job_is_rejected_without_a_job(jobs: JobStore, clock: FakeClock) -> None:
    rejected = claim(jobs, clock, 12345)
    assert isinstance(rejected, ConditionFailed)
    assert rejected.job is None


def test_due_index_contains_only_pending_work(jobs: JobStore, clock: FakeClock) -> None:
    queued = jobs.create(job(clock), b"{}", now_ms=clock.now).job
    shard = queued.due_shard or ""
    assert list(jobs.due_jobs(shard, now_ms=clock.now)) == []
    clock.advance(61)
    assert list(jobs.due_jobs(shard, now_ms=clock.now)) == [(queued.id, queued.due_at)]
    assert list(jobs.due_jobs(str((int(shard) + 1) % 8), now_ms=clock.now)) == []
    params = {"expected_due_at": queued.due_at, "due_at": clock.now + 60_000}
    assert isinstance(jobs.apply(RESEND, queued.id, params), Job)
    assert isinstance(jobs.apply(RESEND, queued.id, params | {"due_at": clock.now + 1}), ConditionFailed)
    assert list(jobs.due_jobs(shard, now_ms=clock.now)) == []
    claimed_job = claim(jobs, clock, queued.id)
    assert isinstance(claimed_job, Job)
    jobs.complete(COMPLETE, claimed_job, completion_params(claimed_job, clock), b"{}")
    clock.advance(100_000)
    assert list(jobs.due_jobs(shard, now_ms=clock.now)) == []


def test_jobs_are_listed_newest_first_by_tag_and_state_with_a_cursor(jobs: JobStore, clock: FakeClock) -> None:
    created = [jobs.create(job(clock, tag="ab"[i % 2]), b"{}", now_ms=clock.now).job for i in range(7)]
    jobs.create(job(clock, owner="you", tag="a"), b"{}", now_ms=clock.now)
    claim(jobs, clock, created[6].id)
    newest = [job.id for job in reversed(created)]

    def list_ids(**filters: Any) -> list[int]:
        job_ids: list[int] = []
        cursor = None
        while True:
            page = jobs.list_page("me", JobFilter(**filters), take=2, cursor=cursor)
            job_ids += [job.id for job in page.jobs]
            cursor = page.cursor
            if cursor is None:
                return job_ids

    assert list_ids() == newest
    assert list_ids(tag="a") == newest[::2]
    assert list_ids(state="Started") == newest[:1]
    assert list_ids(tag="b", state="Started") == []


def test_jobs_are_listed_by_the_time_of_their_creation(jobs: JobStore, clock: FakeClock) -> None:
    """Also a synchronous request, which is recorded up to 15 minutes after it began: at its end."""
    created: list[Job] = []
    for _ in range(4):
        created.append(jobs.create(job(clock), b"{}", now_ms=clock.now).job)
        clock.advance(60)
    late = replace(job(clock), created_at=created[1].created_at + 1)
    created.insert(2, jobs.create(late, b"{}", now_ms=clock.now).job)
    times = [job.created_at for job in created]

    def list_times(since: int | None, until: int | None, **filters: Any) -> list[int]:
        page = jobs.list_page("me", JobFilter(since_ms=since, until_ms=until, **filters), take=9)
        return sorted(job.created_at for job in page.jobs)

    assert list_times(times[1], None) == times[1:]
    assert list_times(None, times[3]) == times[:3]
    assert list_times(times[1], times[2]) == times[1:2]
    assert list_times(times[0] + 1, times[1]) == []
    assert list_times(times[0], times[4] + 1, state="Failed") == []
    assert list_times(times[4] + 10**10, None) == []
    assert jobs.list_page("me", take=9, cursor=0).jobs == []


def test_page_scans_a_few_hundred_jobs_and_its_cursor_continues(clock: FakeClock, ministack_jobs: JobStore) -> None:
    oldest = ministack_jobs.create(job(clock, state=JobState.FAILED), b"{}", now_ms=clock.now).job
    for _ in range(300):
        ministack_jobs.create(job(clock), b"{}", now_ms=clock.now)
    first = ministack_jobs.list_page("me", JobFilter(state="Failed"), take=5)
    assert (first.jobs, first.cursor is None) == ([], False)
    second = ministack_jobs.list_page("me", JobFilter(state="Failed"), take=5, cursor=first.cursor)
    assert ([job.id for job in second.jobs], second.cursor) == ([oldest.id], None)


def test_items_stay_far_below_the_size_limit_of_dynamodb(
    clock: FakeClock, ministack: str, ministack_jobs: JobStore
) -> None:
    """The limit is 400 KB; names and errors of any allowed length, and bodies of any size, stay far below."""
    longest_fields = {"ref_id": "\U0001f600" * 256, "tag": "\U0001f600" * 256, "model": "\U0001f600" * 256}
    longest_fields |= {"reply_to": "https://x.io/" + "x" * 2035, "error": "\U0001f600" * 1000, "usage": "x" * 2048}
    for number, size in enumerate((MAX_ITEM_BODY_BYTES, MAX_ITEM_BODY_BYTES + 1, 399 * 1024, 400 * 1024)):
        largest_job = job(
            clock, **longest_fields | {"owner": f"owner-{number}", "state": JobState.COMPLETED, "due_at": None}
        )
        stored = ministack_jobs.create(largest_job, b"q" * size, now_ms=clock.now, result=b"a" * size).job
        assert (ministack_jobs.read_request(stored), ministack_jobs.read_result(stored)) == (b"q" * size, b"a" * size)
    items = aws.client("dynamodb", ministack).scan(TableName="jobs")["Items"]
    assert max(len(str(unpack(item)).encode()) for item in items) < 40 * 1024


def test_concurrent_requests_with_one_ref_id_create_one_job(clock: FakeClock, ministack_jobs: JobStore) -> None:
    new_jobs = [replace(job(clock), ref_id="r") for _ in range(50)]
    with ThreadPoolExecutor(10) as pool:
        accepted = list(pool.map(lambda new_job: ministack_jobs.create(new_job, b"{}", now_ms=clock.now), new_jobs))
    assert sum(result.created for result in accepted) == 1
    assert len({result.job.id for result in accepted}) == 1

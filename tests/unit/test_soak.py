"""The soak test's checks: AWS requests are parsed into job operations, and a wrong record violates an invariant."""

import json
from dataclasses import replace
from typing import Any

import pytest

from aiserver.aws.items import update_arguments
from aiserver.jobs.job import Job
from aiserver.jobs.states import CallbackState, JobState
from aiserver.jobs.transitions import TRANSITIONS, Transition
from benchmarks.soak.audit_log import Arrival, AuditLog
from benchmarks.soak.faults import Faults, Operation, Point, parse_operation
from benchmarks.soak.invariants import FinishedJob, check_invariants
from tests.contract.test_job_store import job
from tests.contract.test_transitions import params
from tests.fakes import FakeClock

POINTS = {
    **dict.fromkeys(("T4", "T4c", "T5", "T5c", "T5s", "T5d", "T6"), Point.OUTCOME),
    "T2": Point.CLAIM,
    "T3": Point.MARK,
    "T12": Point.MARK,  # it claims the job and marks its call at once; a soak makes no synchronous requests
    "C1": Point.DELIVER,
    "C2": Point.DELIVERED,
}
TERMINAL_TRANSITIONS = {"T4", "T4c", "T5", "T5c", "T5s", "T5d", "T7f", "T7c", "T8", "T9"}


@pytest.mark.parametrize("transition", TRANSITIONS, ids=lambda transition: transition.name)
def test_every_transition_is_parsed_from_its_update_request(transition: Transition) -> None:
    request = {"Key": {"pk": {"S": "JOB#7"}, "sk": {"S": "JOB"}}, **update_arguments(transition, params(FakeClock()))}
    operation = parse_operation("DynamoDB_20120810.UpdateItem", json.dumps(request).encode())
    assert operation is not None
    assert (operation.point, operation.job_id, operation.ends) == (
        POINTS.get(transition.name),
        7,
        transition.name in TERMINAL_TRANSITIONS,
    )
    assert operation.lease == ("t" if operation.point in (Point.CLAIM, Point.MARK, Point.OUTCOME) else "")


def test_faults_depend_only_on_the_seed_and_occur_once() -> None:
    def run(seed: int, order: list[int]) -> set[tuple[int, Point, str]]:
        faults = Faults(seed, lambda job_id: job_id, lambda _: None)
        injected = [(n, point, faults.take(n, point)) for _ in range(5) for n in order for point in Point]
        return {(n, point, str(fault)) for n, point, fault in injected if fault}

    ascending, descending = list(range(300)), list(reversed(range(300)))
    assert run(1, ascending) == run(1, descending)
    assert run(1, ascending) != run(2, ascending)


def finish(*, is_killed: bool, **fields: Any) -> FinishedJob:
    """A hosted job with a ReplyTo and one provider call, which succeeded or whose worker was killed."""
    audit_log = AuditLog()
    stored_job = job(FakeClock(), reply_to="http://x", calls=1, attempt=1, callback=CallbackState.DELIVERED)
    if is_killed:
        failure = {"state": JobState.FAILED, "error_code": "ProviderTimeout", "maybe_billed": 1}
        stored_job = replace(stored_job, **failure)
    else:
        stored_job = replace(stored_job, state=JobState.COMPLETED)
    operation = Operation(None, stored_job.id, lease="t")
    audit_log.record_operation(replace(operation, point=Point.ACCEPT, number=3), 1)
    audit_log.record_operation(replace(operation, point=Point.CLAIM), 1)
    audit_log.record_operation(replace(operation, point=Point.MARK), 1)
    audit_log.record_call(stored_job.id, 1, "answered")
    if is_killed:
        audit_log.record_kill(1)
        audit_log.record_operation(Operation(None, stored_job.id, ends=True), 2)
    else:
        audit_log.record_response(stored_job.id, b"{}")
        audit_log.record_operation(replace(operation, point=Point.OUTCOME, ends=True), 1)
    body = b'{"errorCode":"ProviderTimeout"}' if is_killed else b"{}"
    audit_log.record_arrival(stored_job.id, Arrival(str(stored_job.state), "msg_1", body, 200))
    return FinishedJob(Job(**(vars(stored_job) | fields)), audit_log.histories[stored_job.id], audit_log.killed_pids)


def test_concurrency_lease_update_is_not_a_job_operation() -> None:
    update = {"Key": {"pk": {"S": "SLOTS#callbacks#k"}, "sk": {"S": "SLOTS"}}, "UpdateExpression": "REMOVE s1"}
    assert parse_operation("DynamoDB_20120810.UpdateItem", json.dumps(update).encode()) is None


def list_violations(finished_job: FinishedJob) -> list[str]:
    invariants = check_invariants([finished_job])
    return [invariant.words.split(" = ")[0] for invariant in invariants if not invariant.holds]


@pytest.mark.parametrize("is_killed", [False, True])
def test_consistent_records_violate_no_invariant(is_killed: bool) -> None:
    assert list_violations(finish(is_killed=is_killed)) == []


@pytest.mark.parametrize(
    ("fields", "invariant"),
    [
        ({"calls": 2}, "calls recorded"),
        ({"maybe_billed": 0}, "maybeBilled"),
        ({"attempt": 2}, "attempts recorded"),
        ({"callback": CallbackState.PENDING}, "callbacks Delivered"),
        ({"error_code": "Expired"}, "jobs Failed with another error"),
    ],
)
def test_inconsistent_job_violates_the_matching_invariant(fields: dict[str, Any], invariant: str) -> None:
    assert invariant in list_violations(finish(is_killed=True, **fields))


def test_open_call_of_a_surviving_process_violates_an_invariant() -> None:
    finished_job = replace(finish(is_killed=True), killed_pids=set[int | None]())
    assert "attempts without an outcome, outside killed processes" in list_violations(finished_job)


def test_early_or_conflicting_callback_violates_invariants() -> None:
    finished_job = finish(is_killed=False)
    finished_job.history.arrivals.append(Arrival("Started", "msg_1", b"[]", 200))
    violated = list_violations(finished_job)
    assert "callbacks received before the job's end" in violated
    assert "webhook-ids with different bodies" in violated
    assert "callbacks with a body that does not match the job" in violated

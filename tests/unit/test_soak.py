"""The soak's own eyes: it tells what a request to AWS does to a job, and a book that is wrong breaks an equation."""

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
from benchmarks.soak.invariants import FinishedJob, invariants
from tests.contract.test_job_store import job
from tests.contract.test_transitions import params
from tests.fakes import FakeClock

TOLD = {
    **dict.fromkeys(("T4", "T4c", "T5", "T5c", "T6"), Point.OUTCOME),
    "T2": Point.CLAIM,
    "T3": Point.MARK,
    "C1": Point.DELIVER,
    "C2": Point.DELIVERED,
}
ENDS = {"T4", "T4c", "T5", "T5c", "T7f", "T7c", "T8", "T9"}


@pytest.mark.parametrize("row", TRANSITIONS, ids=lambda row: row.name)
def test_every_transition_is_told_from_its_request(row: Transition) -> None:
    request = {"Key": {"pk": {"S": "JOB#7"}, "sk": {"S": "JOB"}}, **update_arguments(row, params(FakeClock()))}
    seen = parse_operation("DynamoDB_20120810.UpdateItem", json.dumps(request).encode())
    assert seen is not None
    assert (seen.point, seen.job_id, seen.ends) == (TOLD.get(row.name), 7, row.name in ENDS)
    assert seen.lease == ("t" if seen.point in (Point.CLAIM, Point.MARK, Point.OUTCOME) else "")


def test_what_happens_to_a_job_follows_from_the_seed_and_happens_once() -> None:
    def run(seed: int, order: list[int]) -> set[tuple[int, Point, str]]:
        faults = Faults(seed, lambda job_id: job_id, lambda _: None)
        taken = [(n, point, faults.take(n, point)) for _ in range(5) for n in order for point in Point]
        return {(n, point, str(what)) for n, point, what in taken if what}

    there, back = list(range(300)), list(reversed(range(300)))
    assert run(1, there) == run(1, back)
    assert run(1, there) != run(2, there)


def closed(*, died: bool, **more: Any) -> FinishedJob:
    """A hosted job with a ReplyTo that was called once: answered, or its worker died over it."""
    ledger, one = (
        AuditLog(),
        job(FakeClock(), reply_to="http://x", calls=1, attempt=1, callback=CallbackState.DELIVERED),
    )
    if died:
        failed = {"state": JobState.FAILED, "error_code": "ProviderTimeout", "maybe_billed": 1}
        one = replace(one, **failed)
    else:
        one = replace(one, state=JobState.COMPLETED)
    seen = Operation(None, one.id, lease="t")
    ledger.wrote(replace(seen, point=Point.ACCEPT, number=3), 1)
    ledger.wrote(replace(seen, point=Point.CLAIM), 1)
    ledger.wrote(replace(seen, point=Point.MARK), 1)
    ledger.asked(one.id, 1, "answered")
    if died:
        ledger.kills(1)
        ledger.wrote(Operation(None, one.id, ends=True), 2)
    else:
        ledger.answered(one.id, b"{}")
        ledger.wrote(replace(seen, point=Point.OUTCOME, ends=True), 1)
    body = b'{"errorCode":"ProviderTimeout"}' if died else b"{}"
    ledger.arrived(one.id, Arrival(str(one.state), "msg_1", body, 200))
    return FinishedJob(Job(**(vars(one) | more)), ledger.entries[one.id], ledger.killed)


def test_what_is_written_of_a_receiver_s_places_is_no_deed_to_a_job() -> None:
    update = {"Key": {"pk": {"S": "SLOTS#callbacks#k"}, "sk": {"S": "SLOTS"}}, "UpdateExpression": "REMOVE s1"}
    assert parse_operation("DynamoDB_20120810.UpdateItem", json.dumps(update).encode()) is None


def broken(one: FinishedJob) -> list[str]:
    return [equation.words.split(" = ")[0] for equation in invariants([one]) if not equation.holds]


@pytest.mark.parametrize("died", [False, True])
def test_books_that_agree_with_the_table_balance(died: bool) -> None:
    assert broken(closed(died=died)) == []


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"calls": 2}, "calls recorded"),
        ({"maybe_billed": 0}, "maybeBilled"),
        ({"attempt": 2}, "attempts recorded"),
        ({"callback": CallbackState.PENDING}, "callbacks Delivered"),
        ({"error_code": "Expired"}, "jobs Failed otherwise"),
    ],
)
def test_a_table_that_disagrees_breaks_the_equation_that_says_so(wrong: dict[str, Any], words: str) -> None:
    assert words in broken(closed(died=True, **wrong))


def test_a_call_left_open_by_a_process_that_nobody_killed_breaks_an_equation() -> None:
    one = closed(died=True)
    assert "attempts without an outcome, outside a killed process" in broken(replace(one, killed=set[int | None]()))


def test_a_callback_before_the_end_or_with_a_second_body_breaks_an_equation() -> None:
    one = closed(died=False)
    one.book.arrivals.append(Arrival("Started", "msg_1", b"[]", 200))
    told = broken(one)
    assert "callbacks that arrived before the job's end" in told
    assert "webhook-ids with a second body" in told
    assert "callbacks with a body that is not the job's own" in told

"""The table of transitions, written a second time: every store enforces each condition of each row separately."""

from dataclasses import fields, replace
from typing import Any

from aiserver.jobs.job import Job
from aiserver.jobs.ports import ConditionFailed, JobStore
from aiserver.jobs.transitions import TRANSITIONS, Param, Transition
from tests.contract.test_job_store import job
from tests.fakes import FakeClock

DEFAULTS = {field.name: field.default for field in fields(Job)}
FENCE = "attempt = 3, lease_token = 't'"
EXPECTED = {
    "T2": "state = 'Queued', not_before <= now, deadline > now",
    "T3": f"state = 'Started', {FENCE}, lease_until > now, cancel_requested_at absent",
    "T4": f"state = 'Started', {FENCE}, cancel_requested_at absent",
    "T4c": f"state = 'Started', {FENCE}",
    "T5": f"state = 'Started', {FENCE}, cancel_requested_at absent",
    "T5c": f"state = 'Started', {FENCE}",
    "T5s": f"state = 'Started', {FENCE}",
    "T5d": f"state = 'Started', {FENCE}",
    "T6": f"state = 'Started', {FENCE}, cancel_requested_at absent",
    "T7": "state = 'Started', attempt = 3, lease_until < now, cancel_requested_at absent",
    "T7f": "state = 'Started', attempt = 3, lease_until < now, cancel_requested_at absent",
    "T7c": "state = 'Started', attempt = 3, lease_until < now",
    "T8": "state = 'Queued', deadline <= now",
    "T8b": "state = 'Queued', due_at = 5",
    "T9": "state = 'Queued', owner = 'me'",
    "T10": "state = 'Started', owner = 'me'",
    "T11": "state = 'Failed'",
    "T12": "state = 'Failed', queue = '', maybe_billed = 0, completed_at = 7",
    "T13": "state = 'Failed', queue = '', maybe_billed = 0, completed_at = 7",
    "C1": "callback = 'Pending', callback_next_at <= now, callback_attempt < 10, completed_at = 7",
    "C1b": "callback = 'Pending', callback_next_at <= now, callback_attempt = 2",
    "C1d": "callback = 'Pending', callback_next_at <= now, callback_attempt = 2",
    "C2": "callback = 'Delivering', callback_attempt = 2, callback_token = 'd'",
    "C3": "callback = 'Delivering', callback_attempt = 2, callback_token = 'd'",
    "C4": "callback = 'Delivering', callback_attempt = 2, callback_token = 'd'",
    "C5": "callback = 'Delivering', callback_attempt = 2, callback_token = 'd', callback_lease_until < now",
    "C5d": "callback = 'Delivering', callback_attempt = 2, callback_token = 'd', callback_lease_until < now",
    "C5b": "callback = 'Pending', due_at = 5",
    "C6": "callback = 'Dead', owner = 'me'",
    "C6d": "callback = 'Delivered', owner = 'me'",
}
ROWS = {row.name: row for row in TRANSITIONS}
CASES = [(name, index) for name, text in EXPECTED.items() for index in range(len(text.split(", ")))]


def params(clock: FakeClock) -> dict[str, Any]:
    """Return the values of the conditions, and harmless values for all other parameters."""
    values: dict[str, Any] = {"now": clock.now, "attempt": 3, "lease_token": "t", "expected_due_at": 5, "owner": "me"}
    values |= {"completed_at": 7, "callback_attempt": 2, "max_attempts": 10, "callback": "None", "callback_token": "d"}
    for row in TRANSITIONS:
        for param in row.sets.values():
            if isinstance(param, Param):
                values.setdefault(param.name, 77 if param.name.endswith(("_at", "until", "ttl", "billed")) else "x")
    return values


def attributes_for(text: str, clock: FakeClock, *, wrong: int | None = None) -> dict[str, Any]:
    """Return attributes that meet every condition of `text` except the one at index `wrong`."""
    values: dict[str, Any] = {}
    for index, condition in enumerate(text.split(", ")):
        attribute, op, *operands = condition.split(" ")
        operand: Any = clock.now if operands == ["now"] else operands[0].strip("'") if operands else None
        operand = int(operand) if isinstance(operand, str) and operand.isdigit() else operand
        matching = {"=": operand, "<=": operand, "absent": None}.get(op)
        matching = operand - 1 if op == "<" else operand + 1 if op == ">" else matching
        failing = clock.now if op == "absent" else operand if op in "<>" else operand + 1 if op == "<=" else None
        if op == "=":
            failing = (
                operand + 1
                if isinstance(operand, int)
                else {"state": "Completed", "callback": "None"}.get(attribute, "?")
            )
        values[attribute] = failing if index == wrong else matching
    return values


def create_job(jobs: JobStore, clock: FakeClock, values: dict[str, Any]) -> Job:
    base = job(clock, lease_until=0, not_before=0)
    return jobs.create(replace(base, **values), b"{}", now_ms=clock.now).job


def is_applied(jobs: JobStore, row: Transition, job: Job, params: dict[str, Any]) -> bool:
    return not isinstance(jobs.apply(row, job.id, params), ConditionFailed)


def test_every_row_has_expected_conditions() -> None:
    assert list(EXPECTED) == list(ROWS)
    for name, text in EXPECTED.items():
        assert len(ROWS[name].conditions) == len(text.split(", ")), name


def test_transition_is_applied_when_its_conditions_hold(jobs: JobStore, clock: FakeClock) -> None:
    for name, row in ROWS.items():
        before = create_job(jobs, clock, attributes_for(EXPECTED[name], clock))
        assert is_applied(jobs, row, before, params(clock)), name
        after = jobs.get(before.id)
        assert after is not None
        assert getattr(after, row.machine) == row.target, name
        for attribute, increment in row.adds.items():
            assert getattr(after, attribute) == getattr(before, attribute) + increment, name
        assert all(getattr(after, attribute) == DEFAULTS[attribute] for attribute in row.removes), name


def test_transition_is_rejected_when_one_condition_fails(jobs: JobStore, clock: FakeClock) -> None:
    for name, index in CASES:
        before = create_job(jobs, clock, attributes_for(EXPECTED[name], clock, wrong=index))
        assert not is_applied(jobs, ROWS[name], before, params(clock)), (
            f"{name} without {EXPECTED[name].split(', ')[index]}"
        )
        assert jobs.get(before.id) == before, name

"""The table of transitions, spelled out a second time: each row's conditions, each held on its own by every store."""

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
    "T6": f"state = 'Started', {FENCE}, cancel_requested_at absent",
    "T7": "state = 'Started', attempt = 3, lease_until < now, cancel_requested_at absent",
    "T7f": "state = 'Started', attempt = 3, lease_until < now, cancel_requested_at absent",
    "T7c": "state = 'Started', attempt = 3, lease_until < now",
    "T8": "state = 'Queued', deadline <= now",
    "T8b": "state = 'Queued', due_at = 5",
    "T9": "state = 'Queued', owner = 'me'",
    "T10": "state = 'Started', owner = 'me'",
    "T11": "state = 'Failed'",
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
    """What the conditions compare with, and something harmless for whatever else a row sets."""
    told: dict[str, Any] = {"now": clock.now, "attempt": 3, "lease_token": "t", "seen": 5, "owner": "me"}
    told |= {"completed_at": 7, "callback_attempt": 2, "max_attempts": 10, "callback": "None", "callback_token": "d"}
    for row in TRANSITIONS:
        for value in row.sets.values():
            if isinstance(value, Param):
                told.setdefault(value.name, 77 if value.name.endswith(("_at", "until", "ttl", "billed")) else "x")
    return told


def stored(text: str, clock: FakeClock, *, wrong: int | None = None) -> dict[str, Any]:
    """Attributes that fulfil every condition of `text`, but for the one at index `wrong`."""
    values: dict[str, Any] = {}
    for index, condition in enumerate(text.split(", ")):
        attribute, op, *rest = condition.split(" ")
        wanted: Any = clock.now if rest == ["now"] else rest[0].strip("'") if rest else None
        wanted = int(wanted) if isinstance(wanted, str) and wanted.isdigit() else wanted
        fits = {"=": wanted, "<=": wanted, "absent": None}.get(op)
        fits = wanted - 1 if op == "<" else wanted + 1 if op == ">" else fits
        fails = clock.now if op == "absent" else wanted if op in "<>" else wanted + 1 if op == "<=" else None
        if op == "=":
            fails = (
                wanted + 1
                if isinstance(wanted, int)
                else {"state": "Completed", "callback": "None"}.get(attribute, "?")
            )
        values[attribute] = fails if index == wrong else fits
    return values


def placed(jobs: JobStore, clock: FakeClock, values: dict[str, Any]) -> Job:
    base = job(clock, lease_until=0, not_before=0)
    return jobs.create(replace(base, **values), b"{}", now_ms=clock.now).job


def made(jobs: JobStore, row: Transition, one: Job, told: dict[str, Any]) -> bool:
    return not isinstance(jobs.apply(row, one.id, told), ConditionFailed)


def test_every_row_is_spelled_out_here() -> None:
    assert list(EXPECTED) == list(ROWS)
    for name, text in EXPECTED.items():
        assert len(ROWS[name].conditions) == len(text.split(", ")), name


def test_a_transition_is_made_where_its_conditions_hold(jobs: JobStore, clock: FakeClock) -> None:
    for name, row in ROWS.items():
        before = placed(jobs, clock, stored(EXPECTED[name], clock))
        assert made(jobs, row, before, params(clock)), name
        after = jobs.get(before.id)
        assert after is not None
        assert getattr(after, row.machine) == row.target, name
        for attribute, by in row.adds.items():
            assert getattr(after, attribute) == getattr(before, attribute) + by, name
        assert all(getattr(after, attribute) == DEFAULTS[attribute] for attribute in row.removes), name


def test_a_transition_is_refused_where_any_one_condition_fails(jobs: JobStore, clock: FakeClock) -> None:
    for name, index in CASES:
        before = placed(jobs, clock, stored(EXPECTED[name], clock, wrong=index))
        assert not made(jobs, ROWS[name], before, params(clock)), f"{name} without {EXPECTED[name].split(', ')[index]}"
        assert jobs.get(before.id) == before, name

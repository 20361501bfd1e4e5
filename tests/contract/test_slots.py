"""What slots promise: the in-memory fake, DynamoDB as moto plays it, and DynamoDB as MiniStack does."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from aiserver.aws.leases import DynamoLeases
from aiserver.jobs.ports import LeaseStore
from tests import moto_stack
from tests.contract.conftest import embedded, table_properties
from tests.fakes import FakeLeases

NOW, LATER = 1_800_000_000_000, 1_800_000_150_000


@pytest.fixture(params=["fake", "moto", "ministack"])
def slots(request: pytest.FixtureRequest) -> Iterator[LeaseStore]:
    if request.param == "fake":
        yield FakeLeases()
    elif request.param == "moto":
        with moto_stack.mock_aws():
            moto_stack.client("dynamodb").create_table(**table_properties())
            yield DynamoLeases("jobs", moto_stack.client("dynamodb"))
    else:
        dynamodb, _ = embedded(request.getfixturevalue("ministack"))
        dynamodb.create_table(**table_properties())
        yield DynamoLeases("jobs", dynamodb)
        dynamodb.delete_table(TableName="jobs")


def take(
    slots: LeaseStore, name: str = "a", *, among: Sequence[int] = (0, 1, 2), now_ms: int = NOW, **more: int
) -> int | None:
    return slots.acquire(name, among, now_ms=now_ms, expires_ms=more.get("until_ms", LATER))


def test_a_name_has_the_slots_it_is_asked_for_and_each_name_its_own(slots: LeaseStore) -> None:
    assert {take(slots) for _ in range(3)} == {0, 1, 2}
    assert take(slots) is None
    assert take(slots, "b") is not None


def test_a_slot_that_is_given_back_is_free(slots: LeaseStore) -> None:
    first, *_ = [take(slots) for _ in range(3)]
    assert first is not None
    slots.release("a", first, expires_ms=LATER)
    assert take(slots) == first
    assert take(slots) is None


def test_a_slot_whose_holder_died_is_free_when_its_time_is_up(slots: LeaseStore) -> None:
    assert {take(slots) for _ in range(3)} == {0, 1, 2}
    assert take(slots, now_ms=LATER) is None
    assert take(slots, now_ms=LATER + 1, until_ms=LATER + 150_000) is not None


def test_a_holder_that_comes_back_late_frees_no_slot_of_another(slots: LeaseStore) -> None:
    assert take(slots, among=[0]) == 0
    assert take(slots, among=[0], now_ms=LATER + 1, until_ms=LATER + 150_000) == 0
    slots.release("a", 0, expires_ms=LATER)
    slots.release("nobody", 0, expires_ms=LATER)
    assert take(slots, among=[0], now_ms=LATER + 2) is None


def test_how_many_are_taken_is_told_of_many_names_at_once(slots: LeaseStore) -> None:
    assert {take(slots), take(slots)} <= {0, 1, 2}
    assert take(slots, "b", until_ms=NOW + 1) is not None
    assert slots.count_held(["a", "b", "nobody", "a"], now_ms=NOW + 1) == {"a": 2, "b": 1, "nobody": 0}
    assert slots.count_held(["b"], now_ms=NOW + 2) == {"b": 0}


def test_who_may_have_other_slots_of_a_name_finds_those_free(slots: LeaseStore) -> None:
    assert {take(slots) for _ in range(3)} == {0, 1, 2}
    assert take(slots, among=[1, 2]) is None
    assert take(slots, among=[2, 3]) == 3
    assert take(slots, among=[]) is None


def test_of_many_at_once_no_more_get_a_slot_than_there_are(slots: LeaseStore) -> None:
    with ThreadPoolExecutor(16) as pool:
        taken = list(pool.map(lambda _: take(slots, among=range(8)), range(24)))
    held = [slot for slot in taken if slot is not None]
    assert len(held) == len(set(held)) <= 8
    assert held

"""The contract of lease stores: the in-memory fake, and DynamoDB in moto and in MiniStack."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from aiserver.aws.leases import DynamoConcurrencyLeases
from aiserver.concurrency import ConcurrencyLeaseStore
from tests import moto_stack
from tests.contract.conftest import ministack_clients, table_properties
from tests.fakes import FakeLeases

NOW, LATER = 1_800_000_000_000, 1_800_000_150_000


@pytest.fixture(params=["fake", "moto", "ministack"])
def leases(request: pytest.FixtureRequest) -> Iterator[ConcurrencyLeaseStore]:
    if request.param == "fake":
        yield FakeLeases()
    elif request.param == "moto":
        with moto_stack.mock_aws():
            moto_stack.client("dynamodb").create_table(**table_properties())
            yield DynamoConcurrencyLeases("jobs", moto_stack.client("dynamodb"))
    else:
        dynamodb, _ = ministack_clients(request.getfixturevalue("ministack"))
        dynamodb.create_table(**table_properties())
        yield DynamoConcurrencyLeases("jobs", dynamodb)
        dynamodb.delete_table(TableName="jobs")


def acquire(
    leases: ConcurrencyLeaseStore,
    name: str = "a",
    *,
    indexes: Sequence[int] = (0, 1, 2),
    now_ms: int = NOW,
    expires_ms: int = LATER,
) -> int | None:
    return leases.acquire(name, indexes, now_ms=now_ms, expires_ms=expires_ms)


def test_each_name_has_its_own_leases(leases: ConcurrencyLeaseStore) -> None:
    assert {acquire(leases) for _ in range(3)} == {0, 1, 2}
    assert acquire(leases) is None
    assert acquire(leases, "b") is not None


def test_released_lease_is_free(leases: ConcurrencyLeaseStore) -> None:
    first, *_ = [acquire(leases) for _ in range(3)]
    assert first is not None
    leases.release("a", first, expires_ms=LATER)
    assert acquire(leases) == first
    assert acquire(leases) is None


def test_lease_of_a_dead_holder_is_free_after_its_expiry(leases: ConcurrencyLeaseStore) -> None:
    assert {acquire(leases) for _ in range(3)} == {0, 1, 2}
    assert acquire(leases, now_ms=LATER) is None
    assert acquire(leases, now_ms=LATER + 1, expires_ms=LATER + 150_000) is not None


def test_late_holder_releases_no_lease_of_another(leases: ConcurrencyLeaseStore) -> None:
    assert acquire(leases, indexes=[0]) == 0
    assert acquire(leases, indexes=[0], now_ms=LATER + 1, expires_ms=LATER + 150_000) == 0
    leases.release("a", 0, expires_ms=LATER)
    leases.release("nobody", 0, expires_ms=LATER)
    assert acquire(leases, indexes=[0], now_ms=LATER + 2) is None


def test_held_leases_of_many_names_are_counted(leases: ConcurrencyLeaseStore) -> None:
    assert {acquire(leases), acquire(leases)} <= {0, 1, 2}
    assert acquire(leases, "b", expires_ms=NOW + 1) is not None
    assert leases.count_active(["a", "b", "nobody", "a"], now_ms=NOW + 1) == {"a": 2, "b": 1, "nobody": 0}
    assert leases.count_active(["b"], now_ms=NOW + 2) == {"b": 0}


def test_other_indexes_of_a_name_are_free(leases: ConcurrencyLeaseStore) -> None:
    assert {acquire(leases) for _ in range(3)} == {0, 1, 2}
    assert acquire(leases, indexes=[1, 2]) is None
    assert acquire(leases, indexes=[2, 3]) == 3
    assert acquire(leases, indexes=[]) is None


def test_concurrent_holders_do_not_exceed_the_number_of_leases(leases: ConcurrencyLeaseStore) -> None:
    with ThreadPoolExecutor(16) as pool:
        acquired = list(pool.map(lambda _: acquire(leases, indexes=range(8)), range(24)))
    indexes = [index for index in acquired if index is not None]
    assert len(indexes) == len(set(indexes)) <= 8
    assert indexes

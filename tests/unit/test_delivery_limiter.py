"""Concurrency leases of deliveries: a limit per key, and within it a limit per receiver."""

from typing import Any

import pytest

from aiserver.aws.leases import DynamoConcurrencyLeases
from aiserver.usecases.delivery_limiter import DeliveryLimiter
from tests.fakes import FakeLeases

NOW, LATER = 1_800_000_000_000, 1_800_000_150_000


def exhaust(leases: FakeLeases, limiter: DeliveryLimiter, owner: str, receiver: str) -> int:
    """Acquire all free leases of this owner and receiver, and return their number."""
    name, count = f"callbacks#{owner}", 0
    while leases.acquire(name, limiter.lease_indexes(receiver), now_ms=NOW, expires_ms=LATER) is not None:
        count += 1
    return count


def test_hanging_receiver_leaves_other_receivers_most_of_their_leases() -> None:
    free_counts: list[int] = []
    for i in range(200):
        leases = FakeLeases()
        limiter = DeliveryLimiter(leases, per_key=25, per_receiver=10)
        assert exhaust(leases, limiter, "a", "dead.io") == 10
        free_counts.append(exhaust(leases, limiter, "a", f"r{i}.io"))
    assert min(free_counts) >= 2
    assert sum(free_counts) / len(free_counts) > 5


def test_key_without_free_leases_does_not_limit_another_key() -> None:
    leases = FakeLeases()
    limiter = DeliveryLimiter(leases, per_key=25, per_receiver=10)
    assert sum(exhaust(leases, limiter, "a", f"r{i}.io") for i in range(200)) == 25
    assert exhaust(leases, limiter, "b", "r0.io") == 10


def test_lease_indexes_of_a_receiver_are_stable() -> None:
    limiter = DeliveryLimiter(FakeLeases(), per_key=25, per_receiver=10)
    assert limiter.lease_indexes("hooks.example.com") == [4, 6, 16, 20, 19, 17, 5, 11, 10, 12]
    assert sorted(DeliveryLimiter(FakeLeases(), per_key=3, per_receiver=10).lease_indexes("x")) == [0, 1, 2]


def test_lease_is_held_during_the_block_and_released_on_error() -> None:
    leases = FakeLeases()
    limiter = DeliveryLimiter(leases, per_key=1, per_receiver=1)

    def fail_in_block() -> None:
        with limiter.acquire("a", "r.io", now_ms=NOW, expires_ms=LATER) as is_acquired:
            assert is_acquired
            with limiter.acquire("a", "r.io", now_ms=NOW, expires_ms=LATER) as is_second_acquired:
                assert not is_second_acquired
            raise KeyError

    with pytest.raises(KeyError):
        fail_in_block()
    with limiter.acquire("a", "r.io", now_ms=NOW, expires_ms=LATER) as is_acquired_again:
        assert is_acquired_again


class LostResponses:
    """A boto3 DynamoDB client whose write succeeds, its response is lost, and the retry fails its condition."""

    class exceptions:  # noqa: N801  the name in boto3
        class ConditionalCheckFailedException(Exception):
            def __init__(self, response: dict[str, Any]) -> None:
                self.response = response

    def __init__(self, retries: int) -> None:
        self.response: dict[str, Any] = {"ResponseMetadata": {"RetryAttempts": retries}}

    def update_item(self, **request: Any) -> None:
        (slot,) = [word for word in request["ConditionExpression"].split() if word.startswith("s")]
        self.response["Item"] = {slot: request["ExpressionAttributeValues"][":until"]}
        raise self.exceptions.ConditionalCheckFailedException(self.response)


@pytest.mark.parametrize(("retries", "slot"), [(1, 0), (0, None)])
def test_lease_acquired_by_a_write_with_a_lost_response_is_owned(retries: int, slot: int | None) -> None:
    dynamodb: Any = LostResponses(retries)
    assert DynamoConcurrencyLeases("jobs", dynamodb).acquire("a", [0], now_ms=NOW, expires_ms=LATER) == slot

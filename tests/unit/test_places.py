"""Places of deliveries: a key has its share, a receiver a part of it, and one that hangs takes no more."""

from typing import Any

import pytest

from aiserver.aws.leases import DynamoLeases
from aiserver.usecases.delivery_limiter import DeliveryLimiter
from tests.fakes import FakeLeases

NOW, LATER = 1_800_000_000_000, 1_800_000_150_000


def hold(slots: FakeLeases, places: DeliveryLimiter, owner: str, receiver: str) -> int:
    """How many places there were, now all taken."""
    name, taken = f"callbacks#{owner}", 0
    while slots.acquire(name, places.lease_indexes(receiver), now_ms=NOW, expires_ms=LATER) is not None:
        taken += 1
    return taken


def test_a_receiver_that_hangs_leaves_every_other_most_of_its_part() -> None:
    left: list[int] = []
    for i in range(200):
        slots = FakeLeases()
        places = DeliveryLimiter(slots, per_key=25, per_receiver=10)
        assert hold(slots, places, "a", "dead.io") == 10
        left.append(hold(slots, places, "a", f"r{i}.io"))
    assert min(left) >= 2
    assert sum(left) / len(left) > 5


def test_a_key_that_takes_all_its_places_takes_none_of_another_s() -> None:
    slots = FakeLeases()
    places = DeliveryLimiter(slots, per_key=25, per_receiver=10)
    assert sum(hold(slots, places, "a", f"r{i}.io") for i in range(200)) == 25
    assert hold(slots, places, "b", "r0.io") == 10


def test_a_receiver_s_part_is_the_same_in_every_process() -> None:
    places = DeliveryLimiter(FakeLeases(), per_key=25, per_receiver=10)
    assert places.lease_indexes("hooks.example.com") == [4, 6, 16, 20, 19, 17, 5, 11, 10, 12]
    assert sorted(DeliveryLimiter(FakeLeases(), per_key=3, per_receiver=10).lease_indexes("x")) == [0, 1, 2]


def test_a_place_is_held_while_the_block_lasts_and_free_however_it_ends() -> None:
    slots = FakeLeases()
    places = DeliveryLimiter(slots, per_key=1, per_receiver=1)

    def dies() -> None:
        with places.acquire("a", "r.io", now_ms=NOW, expires_ms=LATER) as there_is_room:
            assert there_is_room
            with places.acquire("a", "r.io", now_ms=NOW, expires_ms=LATER) as more:
                assert not more
            raise KeyError

    with pytest.raises(KeyError):
        dies()
    with places.acquire("a", "r.io", now_ms=NOW, expires_ms=LATER) as again:
        assert again


class LostAnswers:
    """DynamoDB, as boto3 tells of it: the write was made, its answer lost, and the second try met the first."""

    class exceptions:  # noqa: N801  boto3's word
        class ConditionalCheckFailedException(Exception):
            def __init__(self, response: dict[str, Any]) -> None:
                self.response = response

    def __init__(self, retries: int) -> None:
        self.response: dict[str, Any] = {"ResponseMetadata": {"RetryAttempts": retries}}

    def update_item(self, **asked: Any) -> None:
        (slot,) = [word for word in asked["ConditionExpression"].split() if word.startswith("s")]
        self.response["Item"] = {slot: asked["ExpressionAttributeValues"][":until"]}
        raise self.exceptions.ConditionalCheckFailedException(self.response)


@pytest.mark.parametrize(("retries", "slot"), [(1, 0), (0, None)])
def test_a_slot_that_was_taken_by_a_write_whose_answer_was_lost_is_ours(retries: int, slot: int | None) -> None:
    dynamodb: Any = LostAnswers(retries)
    assert DynamoLeases("jobs", dynamodb).acquire("a", [0], now_ms=NOW, expires_ms=LATER) == slot

"""Slots on DynamoDB: one item a name, one attribute a slot, which holds until when it is taken."""

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiserver.aws.items import pack, unpack

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

TRIES = 4  # each only after another took the very slot that was free
KEPT_S = 86_400  # an item that nobody uses is forgotten


class DynamoSlots:
    """jobs.ports.Slots."""

    def __init__(self, table: str, dynamodb: "DynamoDBClient") -> None:
        self._table = table
        self._dynamodb = dynamodb

    def take(self, name: str, among: Sequence[int], *, now_ms: int, until_ms: int) -> int | None:
        free = among
        for _ in range(TRIES):
            if not free:
                return None
            slot = random.choice(free)
            there = self._update(
                name,
                f"SET {_attribute(slot)} = :until, #ttl = :ttl",
                f"attribute_not_exists({_attribute(slot)}) OR {_attribute(slot)} < :now",
                {":until": until_ms, ":now": now_ms, ":ttl": until_ms // 1000 + KEPT_S},
                names={"#ttl": "ttl"},
            )
            if there is None or (there.retried and there.slots.get(_attribute(slot)) == until_ms):
                return slot
            free = [one for one in among if there.slots.get(_attribute(one), 0) < now_ms]
        return None

    def give_back(self, name: str, slot: int, *, until_ms: int) -> None:
        self._update(name, f"REMOVE {_attribute(slot)}", f"{_attribute(slot)} = :until", {":until": until_ms})

    def taken(self, names: Collection[str], *, now_ms: int) -> dict[str, int]:
        keys = [_key(name) for name in dict.fromkeys(names)]
        answer = self._dynamodb.batch_get_item(RequestItems={self._table: {"Keys": keys}})
        items = [unpack(item) for item in answer["Responses"].get(self._table, [])]
        found = {item["pk"]: sum(_is_slot(name) and until >= now_ms for name, until in item.items()) for item in items}
        return {name: found.get(_partition(name), 0) for name in names}

    def _update(
        self, name: str, change: str, condition: str, values: dict[str, int], names: dict[str, str] | None = None
    ) -> "_There | None":
        """What was there instead, when the condition did not hold; None when the change was made."""
        more: dict[str, Any] = {"ExpressionAttributeNames": names} if names else {}
        try:
            self._dynamodb.update_item(
                TableName=self._table,
                Key=_key(name),
                UpdateExpression=change,
                ConditionExpression=condition,
                ExpressionAttributeValues=pack(values),
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
                **more,
            )
        except self._dynamodb.exceptions.ConditionalCheckFailedException as error:
            told: Any = error.response
            return _There(unpack(told.get("Item", {})), bool(told["ResponseMetadata"].get("RetryAttempts")))
        return None


@dataclass(frozen=True)
class _There:
    """An item that stood in the way; after a retry of boto3's it may be our own, whose first answer was lost."""

    slots: dict[str, Any]
    retried: bool


def _key(name: str) -> dict[str, Any]:
    return pack({"pk": _partition(name), "sk": "SLOTS"})


def _partition(name: str) -> str:
    return f"SLOTS#{name}"


def _attribute(slot: int) -> str:
    return f"s{slot}"


def _is_slot(attribute: str) -> bool:
    return attribute.startswith("s") and attribute[1:].isdigit()

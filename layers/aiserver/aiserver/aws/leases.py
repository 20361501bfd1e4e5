"""Slots on DynamoDB: one item a name, one attribute a slot, which holds until when it is taken."""

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiserver.aws.items import pack, unpack

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

MAX_ACQUIRE_ATTEMPTS = 4  # each only after another took the very slot that was free
RETENTION_S = 86_400  # an item that nobody uses is forgotten


class DynamoLeases:
    """jobs.ports.Slots."""

    def __init__(self, table: str, dynamodb: "DynamoDBClient") -> None:
        self._table = table
        self._dynamodb = dynamodb

    def acquire(self, name: str, indexes: Sequence[int], *, now_ms: int, expires_ms: int) -> int | None:
        free = indexes
        for _ in range(MAX_ACQUIRE_ATTEMPTS):
            if not free:
                return None
            slot = random.choice(free)
            there = self._update(
                name,
                f"SET {_attribute(slot)} = :until, #ttl = :ttl",
                f"attribute_not_exists({_attribute(slot)}) OR {_attribute(slot)} < :now",
                {":until": expires_ms, ":now": now_ms, ":ttl": expires_ms // 1000 + RETENTION_S},
                names={"#ttl": "ttl"},
            )
            if there is None or (there.retried and there.attributes.get(_attribute(slot)) == expires_ms):
                return slot
            free = [one for one in indexes if there.attributes.get(_attribute(one), 0) < now_ms]
        return None

    def release(self, name: str, index: int, *, expires_ms: int) -> None:
        self._update(name, f"REMOVE {_attribute(index)}", f"{_attribute(index)} = :until", {":until": expires_ms})

    def count_held(self, names: Collection[str], *, now_ms: int) -> dict[str, int]:
        keys = [_key(name) for name in dict.fromkeys(names)]
        answer = self._dynamodb.batch_get_item(RequestItems={self._table: {"Keys": keys}})
        items = [unpack(item) for item in answer["Responses"].get(self._table, [])]
        found = {
            item["pk"]: sum(_is_lease_attribute(name) and until >= now_ms for name, until in item.items())
            for item in items
        }
        return {name: found.get(_partition(name), 0) for name in names}

    def _update(
        self, name: str, change: str, condition: str, values: dict[str, int], names: dict[str, str] | None = None
    ) -> "_ConflictingItem | None":
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
            return _ConflictingItem(unpack(told.get("Item", {})), bool(told["ResponseMetadata"].get("RetryAttempts")))
        return None


@dataclass(frozen=True)
class _ConflictingItem:
    """An item that stood in the way; after a retry of boto3's it may be our own, whose first answer was lost."""

    attributes: dict[str, Any]
    retried: bool


def _key(name: str) -> dict[str, Any]:
    return pack({"pk": _partition(name), "sk": "SLOTS"})


def _partition(name: str) -> str:
    return f"SLOTS#{name}"


def _attribute(index: int) -> str:
    return f"s{index}"


def _is_lease_attribute(attribute: str) -> bool:
    return attribute.startswith("s") and attribute[1:].isdigit()

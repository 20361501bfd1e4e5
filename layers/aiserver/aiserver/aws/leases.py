"""Concurrency leases in DynamoDB: one item per name, one attribute per lease, which stores its expiry (Unix ms)."""

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiserver.aws.items import pack, unpack

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

MAX_ACQUIRE_ATTEMPTS = 4  # each after another process took the lease that was free
RETENTION_S = 86_400  # an unused item is deleted


class DynamoConcurrencyLeases:
    """Implements jobs.ports.LeaseStore."""

    def __init__(self, table: str, dynamodb: "DynamoDBClient") -> None:
        self._table = table
        self._dynamodb = dynamodb

    def acquire(self, name: str, indexes: Sequence[int], *, now_ms: int, expires_ms: int) -> int | None:
        free = indexes
        for _ in range(MAX_ACQUIRE_ATTEMPTS):
            if not free:
                return None
            index = random.choice(free)
            conflict = self._update(
                name,
                f"SET {_attribute(index)} = :until, #ttl = :ttl",
                f"attribute_not_exists({_attribute(index)}) OR {_attribute(index)} < :now",
                {":until": expires_ms, ":now": now_ms, ":ttl": expires_ms // 1000 + RETENTION_S},
                names={"#ttl": "ttl"},
            )
            if conflict is None or (conflict.retried and conflict.attributes.get(_attribute(index)) == expires_ms):
                return index
            free = [i for i in indexes if conflict.attributes.get(_attribute(i), 0) < now_ms]
        return None

    def release(self, name: str, index: int, *, expires_ms: int) -> None:
        self._update(name, f"REMOVE {_attribute(index)}", f"{_attribute(index)} = :until", {":until": expires_ms})

    def count_active(self, names: Collection[str], *, now_ms: int) -> dict[str, int]:
        keys = [_key(name) for name in dict.fromkeys(names)]
        response = self._dynamodb.batch_get_item(RequestItems={self._table: {"Keys": keys}})
        items = [unpack(item) for item in response["Responses"].get(self._table, [])]
        counts = {
            item["pk"]: sum(_is_lease_attribute(name) and expiry >= now_ms for name, expiry in item.items())
            for item in items
        }
        return {name: counts.get(_partition(name), 0) for name in names}

    def _update(
        self, name: str, change: str, condition: str, values: dict[str, int], names: dict[str, str] | None = None
    ) -> "_ConflictingItem | None":
        """The stored item, when it does not meet the condition; None when the change was made."""
        extra_arguments: dict[str, Any] = {"ExpressionAttributeNames": names} if names else {}
        try:
            self._dynamodb.update_item(
                TableName=self._table,
                Key=_key(name),
                UpdateExpression=change,
                ConditionExpression=condition,
                ExpressionAttributeValues=pack(values),
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
                **extra_arguments,
            )
        except self._dynamodb.exceptions.ConditionalCheckFailedException as error:
            response: Any = error.response
            is_retry = bool(response["ResponseMetadata"].get("RetryAttempts"))
            return _ConflictingItem(unpack(response.get("Item", {})), is_retry)
        return None


@dataclass(frozen=True)
class _ConflictingItem:
    """An item that did not meet the condition; after a boto3 retry it may be this call's own, confirmation lost."""

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

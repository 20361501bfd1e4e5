"""Capacity units of recorded DynamoDB requests: each is replayed against a table with the same content.

moto and MiniStack do not compute them: the ConsumedCapacity they return is independent of the item's size.
"""

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import moto

from docs.units import Index, Item, index_units, item_bytes, read_units, write_units
from tests import stack
from tests.aws_call_recorder import Call
from tests.moto_stack import MotoStack, client


@dataclass
class CapacityUsage:
    """Capacity units of the table and its indexes, and the remaining items."""

    table_writes: int = 0
    index_writes: int = 0
    reads: float = 0
    items: dict[tuple[str, str], Item] = field(default_factory=dict[tuple[str, str], Item])

    @property
    def writes(self) -> int:
        return self.table_writes + self.index_writes

    @property
    def largest_job_bytes(self) -> int:
        return max(item_bytes(item) for (_, kind), item in self.items.items() if kind == "JOB")


def measure_capacity(calls: Iterable[Call], table: str = "JobsTable") -> CapacityUsage:
    """Replay the calls; they must be all calls to the table, in order."""
    usage = CapacityUsage()
    indexes = indexes_of(table)
    with moto.mock_aws():
        MotoStack().create()
        for call in calls:
            _replay(call.operation, cast(dict[str, Any], _decode_bytes(call.params)), indexes, usage)
    return usage


def indexes_of(table: str) -> list[Index]:
    """The indexes of a table in template.yaml."""
    properties = stack.properties(table)
    table_keys = {key["AttributeName"] for key in properties["KeySchema"]}
    indexes: list[Index] = []
    for index in properties["GlobalSecondaryIndexes"]:
        keys = {key["AttributeName"] for key in index["KeySchema"]}
        attributes = table_keys | keys | set(index["Projection"].get("NonKeyAttributes", []))
        indexes.append(Index(index["IndexName"], frozenset(keys), frozenset(attributes)))
    return indexes


def _replay(operation: str, parameters: dict[str, Any], indexes: list[Index], usage: CapacityUsage) -> None:
    """Send the request and add its capacity units and written items to `usage`."""
    in_transaction = operation == "TransactWriteItems"
    if operation == "GetItem":
        item = _get(parameters["TableName"], parameters["Key"])
        usage.reads += read_units(item, consistent=parameters.get("ConsistentRead", False))
        return
    writes = [next(iter(action.values())) for action in parameters["TransactItems"]] if in_transaction else [parameters]
    addresses = [(write["TableName"], write.get("Key") or _key(write["Item"])) for write in writes]
    before = [_get(*address) for address in addresses]
    getattr(client("dynamodb"), re.sub(r"(?<!^)([A-Z])", r"_\1", operation).lower())(**parameters)
    for address, old in zip(addresses, before, strict=True):
        new = _get(*address)
        usage.table_writes += write_units(old, new, in_transaction=in_transaction)
        usage.index_writes += index_units(old, new, indexes)
        if new is not None:
            usage.items[new["pk"]["S"], new["sk"]["S"]] = new


def _key(item: Item) -> Item:
    return {"pk": item["pk"], "sk": item["sk"]}


def _get(table: str, key: Item) -> Item | None:
    return client("dynamodb").get_item(TableName=table, Key=key).get("Item")


def _decode_bytes(json_value: object) -> object:
    """Request parameters for boto3: decodes the base64 of binary attributes."""
    if isinstance(json_value, list):
        return [_decode_bytes(element) for element in cast(list[object], json_value)]
    if not isinstance(json_value, Mapping):
        return json_value
    members = cast(Mapping[str, object], json_value)
    return {
        name: base64.b64decode(str(member)) if name == "B" else _decode_bytes(member)
        for name, member in members.items()
    }

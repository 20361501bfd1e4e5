"""What recorded requests cost in DynamoDB's units: each is sent once more, to a table that holds what it held then.

Neither moto nor MiniStack can be asked: the ConsumedCapacity they return is the same whatever an item's size.
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
class Metered:
    """Units of the table and of its indexes, and the items that are left behind."""

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


def metered(calls: Iterable[Call], table: str = "JobsTable") -> Metered:
    """The calls must be all that has been sent to the table, in their order."""
    found = Metered()
    indexes = indexes_of(table)
    with moto.mock_aws():
        MotoStack().create()
        for call in calls:
            _meter(call.operation, cast(dict[str, Any], _decoded(call.asked)), indexes, found)
    return found


def indexes_of(table: str) -> list[Index]:
    """The template's indexes of a table."""
    properties = stack.properties(table)
    own = {key["AttributeName"] for key in properties["KeySchema"]}
    found: list[Index] = []
    for index in properties["GlobalSecondaryIndexes"]:
        keys = {key["AttributeName"] for key in index["KeySchema"]}
        holds = own | keys | set(index["Projection"].get("NonKeyAttributes", []))
        found.append(Index(index["IndexName"], frozenset(keys), frozenset(holds)))
    return found


def _meter(operation: str, asked: dict[str, Any], indexes: list[Index], found: Metered) -> None:
    in_transaction = operation == "TransactWriteItems"
    if operation == "GetItem":
        item = _get(asked["TableName"], asked["Key"])
        found.reads += read_units(item, consistent=asked.get("ConsistentRead", False))
        return
    writes = [next(iter(one.values())) for one in asked["TransactItems"]] if in_transaction else [asked]
    places = [(one["TableName"], one.get("Key") or _key(one["Item"])) for one in writes]
    before = [_get(*place) for place in places]
    getattr(client("dynamodb"), re.sub(r"(?<!^)([A-Z])", r"_\1", operation).lower())(**asked)
    for place, old in zip(places, before, strict=True):
        new = _get(*place)
        found.table_writes += write_units(old, new, in_transaction=in_transaction)
        found.index_writes += index_units(old, new, indexes)
        if new is not None:
            found.items[new["pk"]["S"], new["sk"]["S"]] = new


def _key(item: Item) -> Item:
    return {"pk": item["pk"], "sk": item["sk"]}


def _get(table: str, key: Item) -> Item | None:
    return client("dynamodb").get_item(TableName=table, Key=key).get("Item")


def _decoded(asked: object) -> object:
    """Parameters as boto3 takes them: what was sent holds bytes in base64."""
    if isinstance(asked, list):
        return [_decoded(one) for one in cast(list[object], asked)]
    if not isinstance(asked, Mapping):
        return asked
    told = cast(Mapping[str, object], asked)
    return {name: base64.b64decode(str(value)) if name == "B" else _decoded(value) for name, value in told.items()}

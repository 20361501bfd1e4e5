"""What DynamoDB bills for a read and a write, in units, by its published rules.

Sources, below https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/:
CapacityUnitCalculations.html (an item's size), read-write-operations.html (units of an item),
transaction-apis.html#transaction-capacity-handling, GSI.html#GSI.ThroughputConsiderations.Writes (indexes).
That a transaction's factor does not reach its indexes is AWS's own measurement:
https://github.com/aws/agent-toolkit-for-aws (amazon-dynamodb/scripts/calculate_costs.py).
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

WRITE_BYTES = 1024  # of an item, a unit
READ_BYTES = 4096
TRANSACTION = 2  # a write to prepare, and one to commit
STORED_BYTES = 100  # added to each item, and to each of its index entries, where storage is billed

Item = Mapping[str, Mapping[str, Any]]  # attribute values as the low-level API has them


@dataclass(frozen=True)
class Index:
    """A global secondary index: what it is ordered by, and all that it holds."""

    name: str
    keys: frozenset[str]
    holds: frozenset[str]

    def entry(self, item: Item | None) -> Item | None:
        """What it holds of an item; nothing of one that lacks a key."""
        if item is None or not self.keys <= item.keys():
            return None
        return {name: value for name, value in item.items() if name in self.holds}


def item_bytes(item: Item) -> int:
    return sum(len(name.encode()) + _value_bytes(value) for name, value in item.items())


def write_units(before: Item | None, after: Item | None, *, in_transaction: bool) -> int:
    """Of the table, for one item. The larger of what was there and what is counts; all of it, whatever changed."""
    size = max((item_bytes(item) for item in (before, after) if item is not None), default=0)
    return max(1, math.ceil(size / WRITE_BYTES)) * (TRANSACTION if in_transaction else 1)


def index_units(before: Item | None, after: Item | None, indexes: Iterable[Index]) -> int:
    """Of all indexes, for one write: an entry whose key changes is removed and put, one that stays as it is is free."""
    return sum(_entry_units(index.entry(before), index.entry(after), index.keys) for index in indexes)


def read_units(item: Item | None, *, consistent: bool) -> float:
    """Of a GetItem; one that finds nothing costs as much as one of the smallest item."""
    units = max(1, math.ceil(item_bytes(item or {}) / READ_BYTES))
    return units if consistent else units / 2


def _entry_units(before: Item | None, after: Item | None, keys: frozenset[str]) -> int:
    if before == after:
        return 0
    there = [entry for entry in (before, after) if entry is not None]
    if len(there) == 2 and all(there[0][key] == there[1][key] for key in keys):
        there = [max(there, key=item_bytes)]
    return sum(math.ceil(item_bytes(entry) / WRITE_BYTES) for entry in there)


def _value_bytes(value: Mapping[str, Any]) -> int:
    ((kind, told),) = value.items()
    if kind == "N":
        return math.ceil(len(told.lstrip("-").replace(".", "").strip("0")) / 2) + 1
    return len(told if isinstance(told, bytes) else told.encode())

"""DynamoDB capacity units of reads and writes, by the published rules.

Sources, below https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/:
CapacityUnitCalculations.html (item sizes), read-write-operations.html (units of an item),
transaction-apis.html#transaction-capacity-handling, GSI.html#GSI.ThroughputConsiderations.Writes (indexes).
The transaction factor does not apply to indexes, measured by AWS:
https://github.com/aws/agent-toolkit-for-aws (amazon-dynamodb/scripts/calculate_costs.py).
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

WRITE_BYTES = 1024  # per write unit of an item
READ_BYTES = 4096  # per read unit of an item
TRANSACTION = 2  # one write to prepare and one to commit
STORED_BYTES = 100  # added to each item and index entry in billed storage

Item = Mapping[str, Mapping[str, Any]]  # attribute values of the low-level API


@dataclass(frozen=True)
class Index:
    """A global secondary index: its key attributes and all projected attributes."""

    name: str
    keys: frozenset[str]
    attributes: frozenset[str]

    def entry(self, item: Item | None) -> Item | None:
        """The index entry of an item; None, when the item lacks a key attribute."""
        if item is None or not self.keys <= item.keys():
            return None
        return {name: value for name, value in item.items() if name in self.attributes}


def item_bytes(item: Item) -> int:
    return sum(len(name.encode()) + _value_bytes(value) for name, value in item.items())


def write_units(before: Item | None, after: Item | None, *, in_transaction: bool) -> int:
    """Write units of the table for one item: by the larger of both versions, independent of the changed attributes."""
    size = max((item_bytes(item) for item in (before, after) if item is not None), default=0)
    return max(1, math.ceil(size / WRITE_BYTES)) * (TRANSACTION if in_transaction else 1)


def index_units(before: Item | None, after: Item | None, indexes: Iterable[Index]) -> int:
    """Write units of all indexes for one write. A changed key deletes and puts the entry; no change is free."""
    return sum(_entry_units(index.entry(before), index.entry(after), index.keys) for index in indexes)


def read_units(item: Item | None, *, consistent: bool) -> float:
    """Read units of a GetItem; a missing item costs the minimum."""
    units = max(1, math.ceil(item_bytes(item or {}) / READ_BYTES))
    return units if consistent else units / 2


def _entry_units(before: Item | None, after: Item | None, keys: frozenset[str]) -> int:
    if before == after:
        return 0
    entries = [entry for entry in (before, after) if entry is not None]
    if len(entries) == 2 and all(entries[0][key] == entries[1][key] for key in keys):
        entries = [max(entries, key=item_bytes)]
    return sum(math.ceil(item_bytes(entry) / WRITE_BYTES) for entry in entries)


def _value_bytes(value: Mapping[str, Any]) -> int:
    ((kind, content),) = value.items()
    if kind == "N":
        return math.ceil(len(content.lstrip("-").replace(".", "").strip("0")) / 2) + 1
    return len(content if isinstance(content, bytes) else content.encode())

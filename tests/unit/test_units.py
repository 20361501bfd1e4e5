"""DynamoDB billing rules, on examples of its documentation and on the cases that determine our costs."""

import pytest

from docs.cost import BODY_ITEM_BYTES, as_item, break_even
from docs.metered import indexes_of
from docs.units import Index, index_units, item_bytes, read_units, write_units

DUE = Index("due", frozenset({"due_shard", "due_at"}), frozenset({"pk", "due_shard", "due_at"}))


def item_of_size(size: int) -> dict[str, dict[str, str]]:
    return {"b": {"S": "x" * (size - 1)}}


def job(**attributes: str) -> dict[str, dict[str, str]]:
    return {"pk": {"S": "JOB#1"}, **{name: {"S": value} for name, value in attributes.items()}}


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ({"S": "é"}, 2),
        ({"B": b"\x00\x01"}, 2),
        ({"N": "27"}, 2),
        ({"N": "-1.5"}, 2),
        ({"N": "0"}, 1),
        ({"N": "100"}, 2),
        ({"N": "1795622663984"}, 8),
    ],
)
def test_item_size_is_the_sum_of_names_and_values(value: dict[str, str | bytes], size: int) -> None:
    assert item_bytes({"name": value}) == len("name") + size


@pytest.mark.parametrize(("size", "units"), [(1, 1), (1024, 1), (1025, 2), (3 * 1024, 3)])
def test_write_is_billed_per_kilobyte_and_twice_in_a_transaction(size: int, units: int) -> None:
    assert write_units(None, item_of_size(size), in_transaction=False) == units
    assert write_units(None, item_of_size(size), in_transaction=True) == units * 2


def test_update_is_billed_for_the_larger_of_old_and_new_item() -> None:
    assert write_units(item_of_size(1024), item_of_size(2048), in_transaction=False) == 2
    assert write_units(item_of_size(2048), item_of_size(1024), in_transaction=False) == 2


@pytest.mark.parametrize(
    ("before", "after", "units"),
    [
        (None, job(due_shard="1", due_at="5"), 1),
        (job(due_shard="1", due_at="5"), job(due_shard="1", due_at="6"), 2),
        (job(due_shard="1", due_at="5"), job(due_shard="1"), 1),
        (job(due_shard="1", due_at="5"), job(due_shard="1", due_at="5", state="Started"), 0),
        (job(due_shard="1"), job(due_shard="1", state="Started"), 0),
    ],
    ids=["item enters", "key changes", "item leaves", "another attribute changes", "not in the index"],
)
def test_index_is_billed_for_its_changed_entries(
    before: dict[str, dict[str, str]] | None, after: dict[str, dict[str, str]], units: int
) -> None:
    assert index_units(before, after, [DUE]) == units


@pytest.mark.parametrize(("size", "units"), [(1, 1), (4096, 1), (4097, 2), (10 * 1024, 3)])
def test_read_is_billed_per_four_kilobytes_and_half_if_not_consistent(size: int, units: int) -> None:
    assert read_units(item_of_size(size), consistent=True) == units
    assert read_units(item_of_size(size), consistent=False) == units / 2


def test_read_of_a_missing_item_is_billed_as_one_unit() -> None:
    assert read_units(None, consistent=True) == 1


def test_indexes_project_only_the_attributes_to_find_a_job() -> None:
    attributes = {index.name: index.attributes for index in indexes_of("JobsTable")}
    assert attributes == {"due": {"pk", "sk", "due_shard", "due_at"}, "by_owner": {"pk", "sk", "owner", "id", "tag"}}


def test_s3_object_is_cheaper_than_an_item_from_four_kilobytes() -> None:
    assert break_even() == 4 * 1024 - BODY_ITEM_BYTES + 1
    assert as_item(break_even() - 1) == pytest.approx(8 * 0.625 + 0.125)

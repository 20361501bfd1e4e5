"""Between our values and DynamoDB's: items, and a transition as an update expression."""

from collections.abc import Mapping
from typing import Any

from aiserver.jobs.job import attribute_name
from aiserver.jobs.transitions import AttributeValue, Transition, resolve

Item = Mapping[str, Any]


def pack(values: Mapping[str, str | int | bytes]) -> dict[str, Any]:
    """Our values as DynamoDB's attribute values."""
    return {name: _pack(value) for name, value in values.items()}


def unpack(item: Item) -> dict[str, Any]:
    """DynamoDB's attribute values as ours; all our numbers are whole."""
    return {name: int(value["N"]) if "N" in value else next(iter(value.values())) for name, value in item.items()}


def _pack(value: str | int | bytes) -> dict[str, Any]:
    if isinstance(value, bytes):
        return {"B": value}
    return {"N": str(value)} if isinstance(value, int) else {"S": str(value)}


def update_arguments(transition: Transition, params: Mapping[str, AttributeValue]) -> dict[str, Any]:
    """The expression arguments of UpdateItem, or of an Update in a transaction."""
    names: dict[str, str] = {}
    values: dict[str, Any] = {}

    def name(field: str) -> str:
        attribute = attribute_name(field)
        names[f"#{attribute}"] = attribute
        return f"#{attribute}"

    def value(field: str, given: str | int) -> str:
        values[f":{attribute_name(field)}"] = _pack(given)
        return f":{attribute_name(field)}"

    conditions: list[str] = []
    for i, when in enumerate(transition.conditions):
        if when.op == "absent":
            conditions.append(f"attribute_not_exists({name(when.attribute)})")
        else:
            wanted = resolve(when.value, params)
            if wanted is None:
                raise ValueError(f"{transition.name}: the condition on {when.attribute} needs a value")
            conditions.append(f"{name(when.attribute)} {when.op} {value(f'when{i}', wanted)}")
    effects = {attribute: resolve(given, params) for attribute, given in transition.effects.items()}
    sets = [f"{name(a)} = {value(a, given)}" for a, given in effects.items() if given is not None]
    adds = [f"{name(a)} {value(a, by)}" for a, by in transition.adds.items()]
    removes = [name(a) for a in (*transition.removes, *(a for a, given in effects.items() if given is None))]
    clauses = [("SET", sets), ("ADD", adds), ("REMOVE", removes)]
    return {
        "ConditionExpression": " AND ".join(conditions),
        "UpdateExpression": " ".join(f"{word} {', '.join(parts)}" for word, parts in clauses if parts),
        "ExpressionAttributeNames": names,
        "ExpressionAttributeValues": values,
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }

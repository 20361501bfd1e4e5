"""Conversion to DynamoDB: attribute values, and transitions as update expressions."""

from collections.abc import Mapping
from typing import Any

from aiserver.jobs.job import attribute_name
from aiserver.jobs.transitions import AttributeValue, Transition, resolve_value

Item = Mapping[str, Any]


def pack(values: Mapping[str, str | int | bytes]) -> dict[str, Any]:
    """Convert Python values to DynamoDB attribute values."""
    return {name: _pack(value) for name, value in values.items()}


def unpack(item: Item) -> dict[str, Any]:
    """Convert DynamoDB attribute values to Python values; all stored numbers are integers."""
    return {name: int(value["N"]) if "N" in value else next(iter(value.values())) for name, value in item.items()}


def _pack(value: str | int | bytes) -> dict[str, Any]:
    """Raises: TypeError, for a value of another type: DynamoDB would store its text."""
    match value:
        case bytes():
            return {"B": value}
        case int() if not isinstance(value, bool):
            return {"N": str(value)}
        case str():
            return {"S": str(value)}
        case _:
            raise TypeError(f"cannot be stored in DynamoDB: {type(value).__name__}")


def update_arguments(transition: Transition, params: Mapping[str, AttributeValue]) -> dict[str, Any]:
    """The expression arguments of UpdateItem, or of an Update in a transaction."""
    names: dict[str, str] = {}
    values: dict[str, Any] = {}

    def name_placeholder(field: str) -> str:
        attribute = attribute_name(field)
        names[f"#{attribute}"] = attribute
        return f"#{attribute}"

    def value_placeholder(field: str, operand: str | int) -> str:
        values[f":{attribute_name(field)}"] = _pack(operand)
        return f":{attribute_name(field)}"

    conditions: list[str] = []
    for i, condition in enumerate(transition.conditions):
        if condition.op == "absent":
            conditions.append(f"attribute_not_exists({name_placeholder(condition.attribute)})")
        else:
            operand = resolve_value(condition.value, params)
            if operand is None:
                raise ValueError(f"{transition.name}: the condition on {condition.attribute} needs a value")
            placeholder = value_placeholder(f"when{i}", operand)
            conditions.append(f"{name_placeholder(condition.attribute)} {condition.op} {placeholder}")
    effects = {field: resolve_value(effect, params) for field, effect in transition.effects.items()}
    sets = [
        f"{name_placeholder(f)} = {value_placeholder(f, effect)}" for f, effect in effects.items() if effect is not None
    ]
    adds = [f"{name_placeholder(f)} {value_placeholder(f, increment)}" for f, increment in transition.adds.items()]
    cleared = [field for field, effect in effects.items() if effect is None]
    removes = [name_placeholder(field) for field in (*transition.removes, *cleared)]
    clauses = [("SET", sets), ("ADD", adds), ("REMOVE", removes)]
    return {
        "ConditionExpression": " AND ".join(conditions),
        "UpdateExpression": " ".join(f"{word} {', '.join(parts)}" for word, parts in clauses if parts),
        "ExpressionAttributeNames": names,
        "ExpressionAttributeValues": values,
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }

"""Circuits on DynamoDB: one item a provider, all in one partition, so that one query reads them."""

import json
from typing import TYPE_CHECKING, Any

from aiserver.aws.items import pack, unpack
from aiserver.clock import Clock
from aiserver.providers.circuit import Circuit, Tally

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

KEPT_S = 86_400  # a circuit of which nothing new is heard is forgotten, and closed

_PARTITION = "CIRCUITS"


class DynamoCircuits:
    """providers.circuit.Circuits."""

    def __init__(self, table: str, dynamodb: "DynamoDBClient", clock: Clock) -> None:
        self._table = table
        self._dynamodb = dynamodb
        self._clock = clock

    def all(self) -> dict[str, Circuit]:
        pages = self._dynamodb.get_paginator("query").paginate(
            TableName=self._table,
            KeyConditionExpression="pk = :partition",
            ExpressionAttributeValues=pack({":partition": _PARTITION}),
        )
        items = [unpack(item) for page in pages for item in page["Items"]]
        return {item["sk"]: _circuit(item) for item in items}

    def replace(self, name: str, old: Circuit, new: Circuit) -> Circuit:
        try:
            self._dynamodb.put_item(
                TableName=self._table,
                Item=pack({"pk": _PARTITION, "sk": name, **self._attributes(new)}),
                ConditionExpression="attribute_not_exists(stamp) OR stamp = :old",
                ExpressionAttributeValues=pack({":old": old.stamp}),
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )
        except self._dynamodb.exceptions.ConditionalCheckFailedException as error:
            told: Any = error.response
            return _circuit(unpack(told["Item"]))
        return new

    def _attributes(self, circuit: Circuit) -> dict[str, Any]:
        tally = circuit.tally
        return {
            "stamp": circuit.stamp,
            "tally": json.dumps([list(tally.seconds.items()), tally.good_at, tally.bad_since, tally.bad_at]),
            "ttl": self._clock.now_ms() // 1000 + KEPT_S,
            **({} if circuit.ask_at is None else {"ask_at": circuit.ask_at}),
        }


def _circuit(item: dict[str, Any]) -> Circuit:
    seconds, good_at, bad_since, bad_at = json.loads(item["tally"])
    tally = Tally({second: (good, bad) for second, (good, bad) in seconds}, good_at, bad_since, tuple(bad_at))
    return Circuit(tally, item.get("ask_at"), item["stamp"])

"""Circuits on DynamoDB: one item a provider, all in one partition, so that one query reads them."""

import json
from typing import TYPE_CHECKING, Any

from aiserver.aws.items import pack, unpack
from aiserver.clock import Clock
from aiserver.providers.circuit import CLOSED, EVERYONE, Circuit, Failure, Gate, Key, Tally

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
        """Everyone's gate stands where versions without others look for it."""
        everyone = circuit.gate(EVERYONE)
        others = [
            [*key, _tally_values(gate.tally), gate.ask_at, *([gate.probes] if gate.probes else [])]
            for key, gate in circuit.gates.items()
            if key != EVERYONE
        ]
        seconds, good_at, bad_since, bad = _tally_values(everyone.tally)
        return {
            "stamp": circuit.stamp,
            "tally": json.dumps([seconds, good_at, bad_since, [at for at, _ in bad]]),
            "ttl": self._clock.now_ms() // 1000 + KEPT_S,
            **({} if everyone.ask_at is None else {"ask_at": everyone.ask_at}),
            **({"probes": json.dumps(everyone.probes)} if everyone.probes else {}),
            **({"gates": json.dumps(others)} if others else {}),
        }


def _tally_values(tally: Tally) -> tuple[list[tuple[int, tuple[int, int]]], int, int, tuple[Failure, ...]]:
    return list(tally.seconds.items()), tally.good_at, tally.bad_since, tally.bad


def _tally(values: Any) -> Tally:
    seconds, good_at, bad_since, bad = values
    return Tally({second: (good, bad) for second, (good, bad) in seconds}, good_at, bad_since, bad)


def _circuit(item: dict[str, Any]) -> Circuit:
    *counts, bad_at = json.loads(item["tally"])
    tally = _tally([*counts, tuple((at, "") for at in bad_at)])
    everyone = Gate(tally, item.get("ask_at"), tuple(json.loads(item.get("probes", "[]"))))
    gates: dict[Key, Gate] = {EVERYONE: everyone} if everyone != CLOSED else {}
    for owner, model, values, ask_at, *probes in json.loads(item.get("gates", "[]")):
        *counts, bad = values
        tally = _tally([*counts, tuple((at, request) for at, request in bad)])
        gates[owner, model] = Gate(tally, ask_at, tuple(probes[0]) if probes else ())
    return Circuit(gates, item["stamp"])

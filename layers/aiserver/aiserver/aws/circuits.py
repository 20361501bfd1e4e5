"""Circuits on DynamoDB: one item a provider, all in one partition, so that one query reads them."""

import json
from typing import TYPE_CHECKING, Any

from aiserver.aws.items import pack, unpack
from aiserver.clock import Clock
from aiserver.providers.circuit import CLOSED_GATE, PROVIDER_GATE, CallStats, Circuit, FailureRecord, Gate, GateKey

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

RETENTION_S = 86_400  # a circuit of which nothing new is heard is forgotten, and closed

_PARTITION = "CIRCUITS"


class DynamoCircuits:
    """providers.circuit.Circuits."""

    def __init__(self, table: str, dynamodb: "DynamoDBClient", clock: Clock) -> None:
        self._table = table
        self._dynamodb = dynamodb
        self._clock = clock

    def read_all(self) -> dict[str, Circuit]:
        pages = self._dynamodb.get_paginator("query").paginate(
            TableName=self._table,
            KeyConditionExpression="pk = :partition",
            ExpressionAttributeValues=pack({":partition": _PARTITION}),
        )
        items = [unpack(item) for page in pages for item in page["Items"]]
        return {item["sk"]: _decode_circuit(item) for item in items}

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
            return _decode_circuit(unpack(told["Item"]))
        return new

    def _attributes(self, circuit: Circuit) -> dict[str, Any]:
        """Everyone's gate stands where versions without others look for it."""
        everyone = circuit.gate(PROVIDER_GATE)
        others = [
            [*key, _stats_values(gate.stats), gate.retry_at, *([gate.probes] if gate.probes else [])]
            for key, gate in circuit.gates.items()
            if key != PROVIDER_GATE
        ]
        seconds, good_at, bad_since, bad = _stats_values(everyone.stats)
        return {
            "stamp": circuit.stamp,
            "tally": json.dumps([seconds, good_at, bad_since, [at for at, _ in bad]]),
            "ttl": self._clock.now_ms() // 1000 + RETENTION_S,
            **({} if everyone.retry_at is None else {"ask_at": everyone.retry_at}),
            **({"probes": json.dumps(everyone.probes)} if everyone.probes else {}),
            **({"gates": json.dumps(others)} if others else {}),
        }


def _stats_values(tally: CallStats) -> tuple[list[tuple[int, tuple[int, int]]], int, int, tuple[FailureRecord, ...]]:
    return list(tally.per_second.items()), tally.last_success_at, tally.failing_since, tally.failures


def _stats(values: Any) -> CallStats:
    seconds, good_at, bad_since, bad = values
    return CallStats({second: (good, bad) for second, (good, bad) in seconds}, good_at, bad_since, bad)


def _decode_circuit(item: dict[str, Any]) -> Circuit:
    *counts, bad_at = json.loads(item["tally"])
    tally = _stats([*counts, tuple((at, "") for at in bad_at)])
    everyone = Gate(tally, item.get("ask_at"), tuple(json.loads(item.get("probes", "[]"))))
    gates: dict[GateKey, Gate] = {PROVIDER_GATE: everyone} if everyone != CLOSED_GATE else {}
    for owner, model, values, ask_at, *probes in json.loads(item.get("gates", "[]")):
        *counts, bad = values
        tally = _stats([*counts, tuple((at, request) for at, request in bad)])
        gates[owner, model] = Gate(tally, ask_at, tuple(probes[0]) if probes else ())
    return Circuit(gates, item["stamp"])

"""Circuits in DynamoDB: one item per provider, all in one partition, so that one query reads them."""

import json
from typing import TYPE_CHECKING, Any

from aiserver.aws.items import pack, unpack
from aiserver.circuit_breaker.circuit import (
    CLOSED_GATE,
    PROVIDER_GATE,
    CallStats,
    Circuit,
    FailureRecord,
    Gate,
    GateKey,
)
from aiserver.clock import Clock

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

RETENTION_S = 86_400  # a circuit that is not updated is deleted, which closes it

_PARTITION = "CIRCUITS"


class DynamoCircuits:
    """Implements providers.circuit.CircuitStore."""

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
            response: Any = error.response
            return _decode_circuit(unpack(response["Item"]))
        return new

    def _attributes(self, circuit: Circuit) -> dict[str, Any]:
        """The item's attributes. The provider's gate keeps the attributes of versions that had no other gates."""
        provider_gate = circuit.gate(PROVIDER_GATE)
        gates = [
            [*key, _encode_stats(gate.stats), gate.retry_at, *([gate.probes] if gate.probes else [])]
            for key, gate in circuit.gates.items()
            if key != PROVIDER_GATE
        ]
        per_second, last_success_at, failing_since, failures = _encode_stats(provider_gate.stats)
        return {
            "stamp": circuit.stamp,
            "tally": json.dumps([per_second, last_success_at, failing_since, [at for at, _ in failures]]),
            "ttl": self._clock.now_ms() // 1000 + RETENTION_S,
            **({} if provider_gate.retry_at is None else {"ask_at": provider_gate.retry_at}),
            **({"probes": json.dumps(provider_gate.probes)} if provider_gate.probes else {}),
            **({"gates": json.dumps(gates)} if gates else {}),
        }


def _encode_stats(stats: CallStats) -> tuple[list[tuple[int, tuple[int, int]]], int, int, tuple[FailureRecord, ...]]:
    return list(stats.per_second.items()), stats.last_success_at, stats.failing_since, stats.failures


def _decode_stats(counts: list[Any], failures: tuple[FailureRecord, ...]) -> CallStats:
    per_second, last_success_at, failing_since = counts
    return CallStats(
        {second: (successes, errors) for second, (successes, errors) in per_second},
        last_success_at,
        failing_since,
        failures,
    )


def _decode_circuit(item: dict[str, Any]) -> Circuit:
    *counts, failed_at = json.loads(item["tally"])
    stats = _decode_stats(counts, tuple((at, "") for at in failed_at))
    provider_gate = Gate(stats, item.get("ask_at"), tuple(json.loads(item.get("probes", "[]"))))
    gates: dict[GateKey, Gate] = {PROVIDER_GATE: provider_gate} if provider_gate != CLOSED_GATE else {}
    for owner, model, stored_stats, retry_at, *probes in json.loads(item.get("gates", "[]")):
        *counts, failures = stored_stats
        stats = _decode_stats(counts, tuple((at, request) for at, request in failures))
        gates[owner, model] = Gate(stats, retry_at, tuple(probes[0]) if probes else ())
    return Circuit(gates, item["stamp"])

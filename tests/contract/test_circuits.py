"""The contract of circuit stores: the in-memory fake, and DynamoDB in moto and in MiniStack."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from aiserver.aws.circuits import DynamoCircuits
from aiserver.aws.circuits import _decode_circuit as decode_circuit
from aiserver.circuit_breaker.circuit import PROVIDER_GATE, CallStats, Circuit, CircuitStore, Gate
from tests import moto_stack
from tests.contract.conftest import ministack_clients, table_properties
from tests.fakes import FakeCircuits, FakeClock

FAILURES_AT = (1_800_000_000_500, 1_800_000_003_000)
SECONDS = {1_800_000_000: (1, 2), 1_800_000_003: (0, 1)}
STATS = CallStats(SECONDS, 1_800_000_000_250, FAILURES_AT[0], tuple((at, "") for at in FAILURES_AT))
REQUEST_STATS = CallStats(
    SECONDS, 1_800_000_000_250, FAILURES_AT[0], ((FAILURES_AT[0], "a1b2c3d4"), (FAILURES_AT[1], ""))
)
GATES = {
    PROVIDER_GATE: Gate(STATS),
    ("", "m"): Gate(CallStats({}, 1_800_000_000_250), 1_800_000_025_000, ("", "key")),
    ("key", "m"): Gate(REQUEST_STATS, 1_800_000_025_000),
    ("other-key", "語"): Gate(REQUEST_STATS),
}


@pytest.fixture(params=["fake", "moto", "ministack"])
def circuits(request: pytest.FixtureRequest) -> Iterator[CircuitStore]:
    if request.param == "fake":
        yield FakeCircuits()
    elif request.param == "moto":
        with moto_stack.mock_aws():
            moto_stack.client("dynamodb").create_table(**table_properties())
            yield DynamoCircuits("jobs", moto_stack.client("dynamodb"), FakeClock())
    else:
        dynamodb, _ = ministack_clients(request.getfixturevalue("ministack"))
        dynamodb.create_table(**table_properties())
        yield DynamoCircuits("jobs", dynamodb, FakeClock())
        dynamodb.delete_table(TableName="jobs")


def test_circuits_of_all_providers_are_read_as_stored(circuits: CircuitStore) -> None:
    assert circuits.read_all() == {}
    closed_circuit, open_circuit = (
        Circuit(GATES, "a"),
        Circuit({PROVIDER_GATE: Gate(STATS, 1_800_000_025_000, ("key",))}, "b"),
    )
    assert circuits.replace("p", Circuit(), closed_circuit) == closed_circuit
    assert circuits.replace("q", Circuit(), open_circuit) == open_circuit
    assert circuits.read_all() == {"p": closed_circuit, "q": open_circuit}
    assert circuits.replace("q", open_circuit, Circuit(stamp="c")) == Circuit(stamp="c")
    assert circuits.read_all() == {"p": closed_circuit, "q": Circuit(stamp="c")}


EARLIER_ITEM = {  # written by the version with one gate per circuit
    "stamp": "s",
    "tally": "[[[1800000000, [1, 2]]], 1800000000250, 1800000000500, [1800000000500, 1800000003000]]",
    "ttl": 1800086430,
    "ask_at": 1_800_000_025_000,
}


def test_item_of_an_earlier_version_is_read_as_the_provider_gate() -> None:
    circuit = decode_circuit(EARLIER_ITEM)
    tally = CallStats({1_800_000_000: (1, 2)}, 1_800_000_000_250, FAILURES_AT[0], tuple((at, "") for at in FAILURES_AT))
    assert circuit == Circuit({PROVIDER_GATE: Gate(tally, 1_800_000_025_000)}, "s")


def test_stored_item_can_be_read_by_an_earlier_version() -> None:
    attributes = DynamoCircuits("jobs", moto_stack.client("dynamodb"), FakeClock())._attributes(Circuit(GATES, "s"))
    assert attributes.keys() == {"stamp", "tally", "ttl", "gates"}
    seconds, last_success_at, failing_since, failures = json.loads(attributes["tally"])
    assert (seconds, last_success_at, failing_since) == (
        [[second, list(counts)] for second, counts in SECONDS.items()],
        STATS.last_success_at,
        FAILURES_AT[0],
    )
    assert failures == list(FAILURES_AT)  # times only


def test_concurrent_write_is_kept_and_returned(circuits: CircuitStore) -> None:
    other_circuit = Circuit(GATES, "other")
    circuits.replace("p", Circuit(), other_circuit)
    assert circuits.replace("p", Circuit(), Circuit(stamp="ours")) == other_circuit
    assert circuits.replace("p", Circuit(stamp="older"), Circuit(stamp="ours")) == other_circuit
    assert circuits.read_all() == {"p": other_circuit}


def test_repeated_write_is_idempotent(circuits: CircuitStore) -> None:
    circuit = Circuit(GATES, "ours")
    circuits.replace("p", Circuit(), circuit)
    assert circuits.replace("p", Circuit(), circuit) == circuit


def test_deleted_circuit_is_written_again(circuits: CircuitStore) -> None:
    circuit = Circuit(GATES, "ours")
    assert circuits.replace("p", Circuit(stamp="forgotten"), circuit) == circuit


def test_only_one_of_many_concurrent_writes_succeeds(circuits: CircuitStore) -> None:
    def write(number: int) -> bool:
        circuit = Circuit(stamp=f"s{number}")
        return circuits.replace("p", Circuit(), circuit) == circuit

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(write, range(16))) == 1

"""What circuits promise: the in-memory fake, DynamoDB as moto plays it, and DynamoDB as MiniStack does."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from aiserver.aws.circuits import DynamoCircuits
from aiserver.aws.circuits import _decode_circuit as item_read
from aiserver.providers.circuit import PROVIDER_GATE, CallStats, Circuit, CircuitStore, Gate
from tests import moto_stack
from tests.contract.conftest import embedded, table_properties
from tests.fakes import FakeCircuits, FakeClock

BAD_AT = (1_800_000_000_500, 1_800_000_003_000)
SECONDS = {1_800_000_000: (1, 2), 1_800_000_003: (0, 1)}
TALLY = CallStats(SECONDS, 1_800_000_000_250, BAD_AT[0], tuple((at, "") for at in BAD_AT))
OF_REQUESTS = CallStats(SECONDS, 1_800_000_000_250, BAD_AT[0], ((BAD_AT[0], "a1b2c3d4"), (BAD_AT[1], "")))
GATES = {
    PROVIDER_GATE: Gate(TALLY),
    ("", "m"): Gate(CallStats({}, 1_800_000_000_250), 1_800_000_025_000, ("", "key")),
    ("key", "m"): Gate(OF_REQUESTS, 1_800_000_025_000),
    ("other-key", "語"): Gate(OF_REQUESTS),
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
        dynamodb, _ = embedded(request.getfixturevalue("ministack"))
        dynamodb.create_table(**table_properties())
        yield DynamoCircuits("jobs", dynamodb, FakeClock())
        dynamodb.delete_table(TableName="jobs")


def test_what_is_stored_is_what_is_read_of_every_provider_at_once(circuits: CircuitStore) -> None:
    assert circuits.read_all() == {}
    closed, opened = Circuit(GATES, "a"), Circuit({PROVIDER_GATE: Gate(TALLY, 1_800_000_025_000, ("key",))}, "b")
    assert circuits.replace("p", Circuit(), closed) == closed
    assert circuits.replace("q", Circuit(), opened) == opened
    assert circuits.read_all() == {"p": closed, "q": opened}
    assert circuits.replace("q", opened, Circuit(stamp="c")) == Circuit(stamp="c")
    assert circuits.read_all() == {"p": closed, "q": Circuit(stamp="c")}


BEFORE = {  # as the version wrote it that knew one gate
    "stamp": "s",
    "tally": "[[[1800000000, [1, 2]]], 1800000000250, 1800000000500, [1800000000500, 1800000003000]]",
    "ttl": 1800086430,
    "ask_at": 1_800_000_025_000,
}


def test_an_item_of_the_version_before_is_read_as_everyone_s_gate() -> None:
    circuit = item_read(BEFORE)
    tally = CallStats({1_800_000_000: (1, 2)}, 1_800_000_000_250, BAD_AT[0], tuple((at, "") for at in BAD_AT))
    assert circuit == Circuit({PROVIDER_GATE: Gate(tally, 1_800_000_025_000)}, "s")


def test_what_is_written_can_be_read_by_the_version_before() -> None:
    written = DynamoCircuits("jobs", moto_stack.client("dynamodb"), FakeClock())._attributes(Circuit(GATES, "s"))
    assert written.keys() == {"stamp", "tally", "ttl", "gates"}
    seconds, good_at, bad_since, bad_at = json.loads(written["tally"])
    assert (seconds, good_at, bad_since) == (
        [[n, list(m)] for n, m in SECONDS.items()],
        TALLY.last_success_at,
        BAD_AT[0],
    )
    assert bad_at == list(BAD_AT)  # times alone


def test_what_another_has_written_meanwhile_stays_and_is_told(circuits: CircuitStore) -> None:
    theirs = Circuit(GATES, "theirs")
    circuits.replace("p", Circuit(), theirs)
    assert circuits.replace("p", Circuit(), Circuit(stamp="ours")) == theirs
    assert circuits.replace("p", Circuit(stamp="older"), Circuit(stamp="ours")) == theirs
    assert circuits.read_all() == {"p": theirs}


def test_a_write_that_was_made_and_never_said_so_is_told_as_made(circuits: CircuitStore) -> None:
    ours = Circuit(GATES, "ours")
    circuits.replace("p", Circuit(), ours)
    assert circuits.replace("p", Circuit(), ours) == ours


def test_one_that_has_been_forgotten_is_written_anew(circuits: CircuitStore) -> None:
    ours = Circuit(GATES, "ours")
    assert circuits.replace("p", Circuit(stamp="forgotten"), ours) == ours


def test_of_many_at_once_one_writes(circuits: CircuitStore) -> None:
    def write(number: int) -> bool:
        ours = Circuit(stamp=f"s{number}")
        return circuits.replace("p", Circuit(), ours) == ours

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(write, range(16))) == 1

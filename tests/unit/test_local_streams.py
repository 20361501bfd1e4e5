"""The embedded cloud's stream poller feeds its function in order, what its filter lets through, until it is done."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from local.event_source_mappings import EventSourceMapping
from local.runtime_api import FunctionFailed
from local.streams import StreamPoller

ARN = "arn:aws:dynamodb:us-east-1:123456789012:table/jobs/stream/1"
PATIENCE_S = 20
SEEN = {"eventName": ["INSERT"], "dynamodb": {"NewImage": {"state": {"S": ["Completed"]}}}}
SEEN_TOO = {"eventName": ["REMOVE"]}
SOURCE = EventSourceMapping("dynamodb", ARN, "function", 3, True, 1, 1, (SEEN, SEEN_TOO))


def record(number: int, state: str = "Completed") -> dict[str, Any]:
    image = {"state": {"S": state}, "body": {"B": b"\xff"}}
    at = datetime(2026, 1, 31, tzinfo=UTC)
    told = {"SequenceNumber": str(number), "NewImage": image, "ApproximateCreationDateTime": at}
    return {"eventID": str(number), "eventName": "INSERT", "dynamodb": told}


class FakeStreams:
    """A stream of one shard; an iterator is the place of the next record."""

    def __init__(self, *records: dict[str, Any]) -> None:
        self._records = records
        self.read_to_the_end = threading.Event()

    def describe_stream(self, StreamArn: str) -> dict[str, Any]:  # noqa: N803
        assert StreamArn == ARN
        return {"StreamDescription": {"Shards": [{"ShardId": "only"}]}}

    def get_shard_iterator(self, **asked: Any) -> dict[str, Any]:
        assert asked == {"StreamArn": ARN, "ShardId": "only", "ShardIteratorType": "TRIM_HORIZON"}
        return {"ShardIterator": "0"}

    def get_records(self, ShardIterator: str, Limit: int) -> dict[str, Any]:  # noqa: N803
        at = int(ShardIterator)
        page = self._records[at : at + Limit]
        if not page:
            self.read_to_the_end.set()
        return {"Records": page, "NextShardIterator": str(at + len(page))}


class Function:
    """Gives its answers in order, then says that nothing failed."""

    def __init__(self, *answers: list[str] | FunctionFailed) -> None:
        self.events: list[dict[str, Any]] = []
        self._answers = list(answers)

    def __call__(self, event: bytes) -> bytes:
        self.events.append(json.loads(event))
        answer = self._answers.pop(0) if self._answers else []
        if isinstance(answer, FunctionFailed):
            raise answer
        return json.dumps({"batchItemFailures": [{"itemIdentifier": one} for one in answer]}).encode()

    @property
    def batches(self) -> list[list[str]]:
        return [[one["dynamodb"]["SequenceNumber"] for one in event["Records"]] for event in self.events]


@contextmanager
def polling(streams: FakeStreams, function: Function) -> Iterator[None]:
    poller = StreamPoller(SOURCE, streams, function)
    poller.start()
    try:
        yield
        assert streams.read_to_the_end.wait(PATIENCE_S)
    finally:
        poller.stop()
        poller.join()


def test_records_are_handed_over_in_order_in_batches() -> None:
    function = Function()
    with polling(FakeStreams(*map(record, range(5))), function):
        pass
    assert function.batches == [["0", "1", "2"], ["3", "4"]]


def test_a_record_is_spelled_as_lambda_spells_it() -> None:
    function = Function()
    with polling(FakeStreams(record(0)), function):
        pass
    (told,) = function.events[0]["Records"]
    assert told["eventSourceARN"] == ARN
    assert told["dynamodb"]["NewImage"]["body"] == {"B": "/w=="}
    assert told["dynamodb"]["ApproximateCreationDateTime"] == datetime(2026, 1, 31, tzinfo=UTC).timestamp()


def test_the_function_sees_only_what_the_filter_lets_through() -> None:
    function = Function()
    seen, unseen = record(0), [record(n, "Started") for n in range(1, 5)]
    with polling(FakeStreams(unseen[0], seen, *unseen[1:]), function):
        pass
    assert function.batches == [["0"]]


def test_a_batch_is_tried_again_from_its_first_failure_on() -> None:
    function = Function(["2", "1"])
    with polling(FakeStreams(*map(record, range(4))), function):
        pass
    assert function.batches == [["0", "1", "2"], ["1", "2"], ["3"]]


@pytest.mark.parametrize("failure", [FunctionFailed("Sandbox.Timedout", "too slow"), ["0"], ["nobody"]])
def test_what_fails_too_often_holds_up_nothing_for_good(failure: list[str] | FunctionFailed) -> None:
    function = Function(failure, failure)
    with polling(FakeStreams(*map(record, range(4))), function):
        pass
    assert function.batches == [["0", "1", "2"], ["0", "1", "2"], ["3"]]


def test_who_stops_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    with polling(FakeStreams(), Function()):
        assert set(threading.enumerate()) > before
    assert set(threading.enumerate()) == before

"""The embedded cloud's stream poller invokes its function in order with filtered records, and retries failures."""

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
COMPLETED_PATTERN = {"eventName": ["INSERT"], "dynamodb": {"NewImage": {"state": {"S": ["Completed"]}}}}
REMOVED_PATTERN = {"eventName": ["REMOVE"]}
MAPPING = EventSourceMapping("dynamodb", ARN, "function", 3, True, 1, 1, (COMPLETED_PATTERN, REMOVED_PATTERN))


def record(number: int, state: str = "Completed") -> dict[str, Any]:
    image = {"state": {"S": state}, "body": {"B": b"\xff"}}
    created_at = datetime(2026, 1, 31, tzinfo=UTC)
    change = {"SequenceNumber": str(number), "NewImage": image, "ApproximateCreationDateTime": created_at}
    return {"eventID": str(number), "eventName": "INSERT", "dynamodb": change}


class FakeStreams:
    """A stream of one shard; an iterator is the index of the next record."""

    def __init__(self, *records: dict[str, Any]) -> None:
        self._records = records
        self.reached_end = threading.Event()

    def describe_stream(self, StreamArn: str) -> dict[str, Any]:  # noqa: N803
        assert StreamArn == ARN
        return {"StreamDescription": {"Shards": [{"ShardId": "only"}]}}

    def get_shard_iterator(self, **request: Any) -> dict[str, Any]:
        assert request == {"StreamArn": ARN, "ShardId": "only", "ShardIteratorType": "TRIM_HORIZON"}
        return {"ShardIterator": "0"}

    def get_records(self, ShardIterator: str, Limit: int) -> dict[str, Any]:  # noqa: N803
        start = int(ShardIterator)
        page = self._records[start : start + Limit]
        if not page:
            self.reached_end.set()
        return {"Records": page, "NextShardIterator": str(start + len(page))}


class Function:
    """Reports the given failures in order, one for each event, then none."""

    def __init__(self, *failures: list[str] | FunctionFailed) -> None:
        self.events: list[dict[str, Any]] = []
        self._failures = list(failures)

    def __call__(self, event: bytes) -> bytes:
        self.events.append(json.loads(event))
        failure = self._failures.pop(0) if self._failures else []
        if isinstance(failure, FunctionFailed):
            raise failure
        return json.dumps({"batchItemFailures": [{"itemIdentifier": record_id} for record_id in failure]}).encode()

    @property
    def batches(self) -> list[list[str]]:
        return [[change["dynamodb"]["SequenceNumber"] for change in event["Records"]] for event in self.events]


@contextmanager
def polling(streams: FakeStreams, function: Function) -> Iterator[None]:
    poller = StreamPoller(MAPPING, streams, function)
    poller.start()
    try:
        yield
        assert streams.reached_end.wait(PATIENCE_S)
    finally:
        poller.stop()
        poller.join()


def test_records_are_delivered_in_order_in_batches() -> None:
    function = Function()
    with polling(FakeStreams(*map(record, range(5))), function):
        pass
    assert function.batches == [["0", "1", "2"], ["3", "4"]]


def test_record_has_the_format_of_a_lambda_stream_event() -> None:
    function = Function()
    with polling(FakeStreams(record(0)), function):
        pass
    (event_record,) = function.events[0]["Records"]
    assert event_record["eventSourceARN"] == ARN
    assert event_record["dynamodb"]["NewImage"]["body"] == {"B": "/w=="}
    assert event_record["dynamodb"]["ApproximateCreationDateTime"] == datetime(2026, 1, 31, tzinfo=UTC).timestamp()


def test_function_receives_only_records_that_match_the_filter() -> None:
    function = Function()
    matching, filtered_out = record(0), [record(n, "Started") for n in range(1, 5)]
    with polling(FakeStreams(filtered_out[0], matching, *filtered_out[1:]), function):
        pass
    assert function.batches == [["0"]]


def test_batch_is_retried_from_its_first_failed_record() -> None:
    function = Function(["2", "1"])
    with polling(FakeStreams(*map(record, range(4))), function):
        pass
    assert function.batches == [["0", "1", "2"], ["1", "2"], ["3"]]


@pytest.mark.parametrize("failure", [FunctionFailed("Sandbox.Timedout", "too slow"), ["0"], ["nobody"]])
def test_records_over_the_retry_limit_are_skipped(failure: list[str] | FunctionFailed) -> None:
    function = Function(failure, failure)
    with polling(FakeStreams(*map(record, range(4))), function):
        pass
    assert function.batches == [["0", "1", "2"], ["0", "1", "2"], ["3"]]


def test_stop_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    with polling(FakeStreams(), Function()):
        assert set(threading.enumerate()) > before
    assert set(threading.enumerate()) == before

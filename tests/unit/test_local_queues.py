"""The embedded cloud's queue pollers receive, invoke, delete and stop as Lambda's do."""

import json
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from local.event_source_mappings import EventSourceMapping
from local.queues import QueuePoller
from local.runtime_api import FunctionFailed
from local.template import REPOSITORY

ARN = "arn:aws:sqs:us-east-1:123456789012:jobs"
PATIENCE_S = 20
MAX_INVOCATIONS = 8
NONE_FAILED = b'{"batchItemFailures": []}'


def mapping(*, batch_size: int = 1, reports_failures: bool = True, max_invocations: int = 2) -> EventSourceMapping:
    return EventSourceMapping("sqs", ARN, "function", batch_size, reports_failures, max_invocations, 0, ())


class FakeSqs:
    """One queue whose long poll ends with a message, its timeout, or `close`.

    `in_flight_counts` has the number of messages in flight at the start of each poll.
    """

    def __init__(self) -> None:
        self.messages: deque[dict[str, Any]] = deque()
        self.deleted: list[str] = []
        self.in_flight_counts: list[int] = []
        self.outages = 0
        self.polled = threading.Event()
        self.open_polls = 0
        self._received_count = 0
        self._closed = False
        self._changed = threading.Condition()

    def send(self, *bodies: str, **fields: Any) -> None:
        with self._changed:
            for body in bodies:
                message = {"MessageId": body, "ReceiptHandle": f"handle of {body}", "Body": body, "MD5OfBody": "md5"}
                self.messages.append({**message, "Attributes": {"ApproximateReceiveCount": "1"}, **fields})
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, PATIENCE_S)

    def get_queue_url(self, QueueName: str) -> dict[str, str]:  # noqa: N803
        return {"QueueUrl": f"https://queues/{QueueName}"}

    def receive_message(self, **request: Any) -> dict[str, Any]:
        assert request["QueueUrl"] == "https://queues/jobs"
        with self._changed:
            self.in_flight_counts.append(self._received_count - len(self.deleted))
            self.polled.set()
            if self.outages:
                self.outages -= 1
                raise EndpointConnectionError(endpoint_url="https://queues")
            self.open_polls += 1
            self._changed.wait_for(lambda: self.messages or self._closed, request["WaitTimeSeconds"])
            self.open_polls -= 1
            if self._closed:
                raise EndpointConnectionError(endpoint_url="https://queues")
            count = min(len(self.messages), request["MaxNumberOfMessages"])
            batch = [self.messages.popleft() for _ in range(count)]
            self._received_count += count
            return {"Messages": batch} if batch else {}

    def delete_message_batch(self, **request: Any) -> None:
        with self._changed:
            self.deleted += [entry["ReceiptHandle"].removeprefix("handle of ") for entry in request["Entries"]]
            self._changed.notify_all()


class Function:
    """Returns or raises `response` for every event, once `permits` is released; `events` has what it received."""

    def __init__(self, response: bytes | FunctionFailed = NONE_FAILED, *, is_blocked: bool = False) -> None:
        self.response = response
        self.events: list[dict[str, Any]] = []
        self.permits = threading.Semaphore(0 if is_blocked else 1_000)
        self._invocations = threading.Semaphore(0)
        self._lock = threading.Lock()

    def __call__(self, event: bytes) -> bytes:
        with self._lock:
            self.events.append(json.loads(event))
        self._invocations.release()
        assert self.permits.acquire(timeout=PATIENCE_S)
        if isinstance(self.response, FunctionFailed):
            raise self.response
        return self.response

    def wait_for(self, count: int) -> None:
        """Wait for `count` further invocations."""
        for _ in range(count):
            assert self._invocations.acquire(timeout=PATIENCE_S)

    @property
    def batches(self) -> list[list[str]]:
        return [[record["messageId"] for record in event["Records"]] for event in self.events]


@pytest.fixture
def sqs() -> FakeSqs:
    return FakeSqs()


@contextmanager
def polling(sqs: FakeSqs, function: Callable[[bytes], bytes], mapping: EventSourceMapping) -> Iterator[QueuePoller]:
    poller = QueuePoller(mapping, sqs, function, max_invocations=MAX_INVOCATIONS)
    poller.start()
    try:
        yield poller
    finally:
        poller.stop()
        sqs.close()
        poller.join()


def test_record_has_the_format_of_a_lambda_sqs_event(sqs: FakeSqs) -> None:
    function = Function()
    attributes = {
        "keyId": {"StringValue": "k", "DataType": "String"},
        "raw": {"BinaryValue": b"\xff", "DataType": "Binary"},
    }
    sqs.send("café", MessageAttributes=attributes)
    with polling(sqs, function, mapping()):
        sqs.wait_for(lambda: sqs.deleted == ["café"])
    (record,) = function.events[0]["Records"]
    (example, *_) = json.loads((REPOSITORY / "events" / "worker.json").read_text())["Records"]
    assert record.keys() == example.keys()
    assert (record["body"], record["receiptHandle"], record["md5OfBody"]) == ("café", "handle of café", "md5")
    assert (record["eventSource"], record["eventSourceARN"], record["awsRegion"]) == ("aws:sqs", ARN, "us-east-1")
    assert record["attributes"] == {"ApproximateReceiveCount": "1"}
    lists: dict[str, list[str]] = {"stringListValues": [], "binaryListValues": []}
    assert record["messageAttributes"] == {
        "keyId": {"stringValue": "k", **lists, "dataType": "String"},
        "raw": {"binaryValue": "/w==", **lists, "dataType": "Binary"},
    }


@pytest.mark.parametrize("answer", [NONE_FAILED, b"{}", b"null", b'{"batchItemFailures": null}'])
def test_handled_messages_are_deleted(sqs: FakeSqs, answer: bytes) -> None:
    sqs.send("a", "b", "c")
    with polling(sqs, Function(answer), mapping(batch_size=10)):
        sqs.wait_for(lambda: sqs.deleted == ["a", "b", "c"])


def test_partial_batch_failure_keeps_only_the_failed_message(sqs: FakeSqs) -> None:
    sqs.send("a", "b", "c")
    with polling(sqs, Function(b'{"batchItemFailures": [{"itemIdentifier": "b"}]}'), mapping(batch_size=10)):
        sqs.wait_for(lambda: sqs.deleted == ["a", "c"])


@pytest.mark.parametrize(
    "answer",
    [
        FunctionFailed("Sandbox.Timedout", "too slow"),
        b'{"batchItemFailures": [{"itemIdentifier": "a"}, {"itemIdentifier": "nobody"}]}',
        b'{"batchItemFailures": [{"itemIdentifier": ""}]}',
        b'{"batchItemFailures": [{"itemIdentifier": null}]}',
        b'{"batchItemFailures": [{"itemIdentifier": ["a"]}]}',
        b'{"batchItemFailures": [{"id": "a"}]}',
        b'"not a batch response"',
        b"not JSON",
    ],
)
def test_failed_or_invalid_batch_response_keeps_every_message(sqs: FakeSqs, answer: bytes | FunctionFailed) -> None:
    function = Function(answer)
    sqs.send("a", "b")
    with polling(sqs, function, mapping(batch_size=2, max_invocations=1)):
        function.wait_for(1)
        function.response = NONE_FAILED
        sqs.send("c")
        sqs.wait_for(lambda: bool(sqs.deleted))
    assert sqs.deleted == ["c"]


def test_batch_failures_are_ignored_unless_the_mapping_reports_them(sqs: FakeSqs) -> None:
    sqs.send("a")
    function = Function(b'{"batchItemFailures": [{"itemIdentifier": "a"}]}')
    with polling(sqs, function, mapping(reports_failures=False)):
        sqs.wait_for(lambda: sqs.deleted == ["a"])


@pytest.mark.parametrize(("mapping_limit", "concurrency"), [(2, 2), (50, MAX_INVOCATIONS)])
def test_messages_over_the_concurrency_limit_stay_in_the_queue(
    sqs: FakeSqs, mapping_limit: int, concurrency: int
) -> None:
    function = Function(is_blocked=True)
    names = [str(n) for n in range(concurrency + 3)]
    sqs.send(*names)
    with polling(sqs, function, mapping(max_invocations=mapping_limit)):
        function.wait_for(concurrency)
        for _ in range(3):
            assert len(function.events) - len(sqs.deleted) == concurrency
            function.permits.release()
            function.wait_for(1)
        for _ in range(concurrency):
            function.permits.release()
        sqs.wait_for(lambda: sorted(sqs.deleted) == sorted(names))
    assert max(sqs.in_flight_counts) == concurrency - 1


def test_batch_over_the_payload_limit_is_split(sqs: FakeSqs) -> None:
    function = Function()
    sqs.send("a", "b", Body="x" * 4_000_000)
    with polling(sqs, function, mapping(batch_size=10)):
        sqs.wait_for(lambda: sqs.deleted == ["a", "b"])
    assert function.batches == [["a"], ["b"]]


def test_unreachable_queue_is_polled_again(sqs: FakeSqs) -> None:
    sqs.outages = 1
    sqs.send("a")
    with polling(sqs, Function(), mapping()):
        sqs.wait_for(lambda: sqs.deleted == ["a"])


def test_messages_sent_during_a_pause_form_one_batch(sqs: FakeSqs) -> None:
    function = Function()
    with polling(sqs, function, mapping(batch_size=10)) as poller:
        assert sqs.polled.wait(PATIENCE_S)
        for first, last in (("a", "b"), ("c", "d")):
            with poller.pause():
                assert sqs.open_polls == 0
                sqs.send(first)
                sqs.send(last)
            function.wait_for(1)
    assert function.batches == [["a", "b"], ["c", "d"]]


def test_stopping_an_idle_poller_leaves_no_thread(sqs: FakeSqs) -> None:
    before = set(threading.enumerate())
    with polling(sqs, Function(), mapping()):
        assert sqs.polled.wait(PATIENCE_S)
        assert set(threading.enumerate()) > before
    assert set(threading.enumerate()) == before


def test_message_received_after_stop_is_not_invoked(sqs: FakeSqs) -> None:
    function = Function()
    with polling(sqs, function, mapping()) as poller:
        assert sqs.polled.wait(PATIENCE_S)
        poller.stop()
        sqs.send("a")
        poller.join()
    assert (function.events, sqs.deleted) == ([], [])


def test_join_waits_for_running_invocations(sqs: FakeSqs) -> None:
    function = Function(is_blocked=True)
    sqs.send("a", "b")
    with polling(sqs, function, mapping(max_invocations=3)) as poller:
        function.wait_for(2)
        poller.stop()
        sqs.close()
        threading.Timer(0.2, function.permits.release, (2,)).start()
        poller.join()
        assert sorted(sqs.deleted) == ["a", "b"]

"""The embedded cloud's queue pollers take, run, delete and stop as Lambda's do."""

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
MOST = 8
NONE_FAILED = b'{"batchItemFailures": []}'


def source(*, batch_size: int = 1, reports_failures: bool = True, max_invocations: int = 2) -> EventSourceMapping:
    return EventSourceMapping("sqs", ARN, "function", batch_size, reports_failures, max_invocations, 0, ())


class FakeSqs:
    """One queue whose long poll ends with a message, its time, or the queue's own end. `crowds` tells of each poll how
    many messages were out when it began."""

    def __init__(self) -> None:
        self.waiting: deque[dict[str, Any]] = deque()
        self.deleted: list[str] = []
        self.crowds: list[int] = []
        self.outages = 0
        self.polled = threading.Event()
        self.open_polls = 0
        self._taken = 0
        self._gone = False
        self._changed = threading.Condition()

    def send(self, *bodies: str, **more: Any) -> None:
        with self._changed:
            for body in bodies:
                told = {"MessageId": body, "ReceiptHandle": f"handle of {body}", "Body": body, "MD5OfBody": "md5"}
                self.waiting.append({**told, "Attributes": {"ApproximateReceiveCount": "1"}, **more})
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._gone = True
            self._changed.notify_all()

    def until(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, PATIENCE_S)

    def get_queue_url(self, QueueName: str) -> dict[str, str]:  # noqa: N803
        return {"QueueUrl": f"https://queues/{QueueName}"}

    def receive_message(self, **asked: Any) -> dict[str, Any]:
        assert asked["QueueUrl"] == "https://queues/jobs"
        with self._changed:
            self.crowds.append(self._taken - len(self.deleted))
            self.polled.set()
            if self.outages:
                self.outages -= 1
                raise EndpointConnectionError(endpoint_url="https://queues")
            self.open_polls += 1
            self._changed.wait_for(lambda: self.waiting or self._gone, asked["WaitTimeSeconds"])
            self.open_polls -= 1
            if self._gone:
                raise EndpointConnectionError(endpoint_url="https://queues")
            taken = [self.waiting.popleft() for _ in range(min(len(self.waiting), asked["MaxNumberOfMessages"]))]
            self._taken += len(taken)
            return {"Messages": taken} if taken else {}

    def delete_message_batch(self, **asked: Any) -> None:
        with self._changed:
            self.deleted += [entry["ReceiptHandle"].removeprefix("handle of ") for entry in asked["Entries"]]
            self._changed.notify_all()


class Function:
    """Answers every event alike, once it may; `events` holds what it was given."""

    def __init__(self, answer: bytes | FunctionFailed = NONE_FAILED, *, held: bool = False) -> None:
        self.answer = answer
        self.events: list[dict[str, Any]] = []
        self.leave = threading.Semaphore(0 if held else 1_000)
        self._began = threading.Semaphore(0)
        self._lock = threading.Lock()

    def __call__(self, event: bytes) -> bytes:
        with self._lock:
            self.events.append(json.loads(event))
        self._began.release()
        assert self.leave.acquire(timeout=PATIENCE_S)
        if isinstance(self.answer, FunctionFailed):
            raise self.answer
        return self.answer

    def wait_for(self, count: int) -> None:
        """Until it was invoked so many times more."""
        for _ in range(count):
            assert self._began.acquire(timeout=PATIENCE_S)

    @property
    def batches(self) -> list[list[str]]:
        return [[record["messageId"] for record in event["Records"]] for event in self.events]


@pytest.fixture
def sqs() -> FakeSqs:
    return FakeSqs()


@contextmanager
def polling(sqs: FakeSqs, function: Callable[[bytes], bytes], told: EventSourceMapping) -> Iterator[QueuePoller]:
    poller = QueuePoller(told, sqs, function, most=MOST)
    poller.start()
    try:
        yield poller
    finally:
        poller.stop()
        sqs.close()
        poller.join()


def test_a_record_is_spelled_as_lambda_spells_it(sqs: FakeSqs) -> None:
    function = Function()
    sent = {
        "keyId": {"StringValue": "k", "DataType": "String"},
        "raw": {"BinaryValue": b"\xff", "DataType": "Binary"},
    }
    sqs.send("café", MessageAttributes=sent)
    with polling(sqs, function, source()):
        sqs.until(lambda: sqs.deleted == ["café"])
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
def test_messages_that_were_handled_are_deleted(sqs: FakeSqs, answer: bytes) -> None:
    sqs.send("a", "b", "c")
    with polling(sqs, Function(answer), source(batch_size=10)):
        sqs.until(lambda: sqs.deleted == ["a", "b", "c"])


def test_a_message_that_failed_stays_and_the_others_of_its_batch_are_deleted(sqs: FakeSqs) -> None:
    sqs.send("a", "b", "c")
    with polling(sqs, Function(b'{"batchItemFailures": [{"itemIdentifier": "b"}]}'), source(batch_size=10)):
        sqs.until(lambda: sqs.deleted == ["a", "c"])


@pytest.mark.parametrize(
    "answer",
    [
        FunctionFailed("Sandbox.Timedout", "too slow"),
        b'{"batchItemFailures": [{"itemIdentifier": "a"}, {"itemIdentifier": "nobody"}]}',
        b'{"batchItemFailures": [{"itemIdentifier": ""}]}',
        b'{"batchItemFailures": [{"itemIdentifier": null}]}',
        b'{"batchItemFailures": [{"itemIdentifier": ["a"]}]}',
        b'{"batchItemFailures": [{"id": "a"}]}',
        b'"not what was agreed"',
        b"not JSON",
    ],
)
def test_a_batch_that_failed_as_a_whole_stays(sqs: FakeSqs, answer: bytes | FunctionFailed) -> None:
    function = Function(answer)
    sqs.send("a", "b")
    with polling(sqs, function, source(batch_size=2, max_invocations=1)):
        function.wait_for(1)
        function.answer = NONE_FAILED
        sqs.send("c")
        sqs.until(lambda: bool(sqs.deleted))
    assert sqs.deleted == ["c"]


def test_a_mapping_that_takes_no_word_of_failures_deletes_what_did_not_raise(sqs: FakeSqs) -> None:
    sqs.send("a")
    function = Function(b'{"batchItemFailures": [{"itemIdentifier": "a"}]}')
    with polling(sqs, function, source(reports_failures=False)):
        sqs.until(lambda: sqs.deleted == ["a"])


@pytest.mark.parametrize(("told", "at_once"), [(2, 2), (50, MOST)])
def test_as_many_run_at_once_as_may_and_the_rest_stays_in_the_queue(sqs: FakeSqs, told: int, at_once: int) -> None:
    function = Function(held=True)
    names = [str(n) for n in range(at_once + 3)]
    sqs.send(*names)
    with polling(sqs, function, source(max_invocations=told)):
        function.wait_for(at_once)
        for _ in range(3):
            assert len(function.events) - len(sqs.deleted) == at_once
            function.leave.release()
            function.wait_for(1)
        for _ in range(at_once):
            function.leave.release()
        sqs.until(lambda: sorted(sqs.deleted) == sorted(names))
    assert max(sqs.crowds) == at_once - 1


def test_a_batch_beyond_what_an_event_may_hold_is_parted(sqs: FakeSqs) -> None:
    function = Function()
    sqs.send("a", "b", Body="x" * 4_000_000)
    with polling(sqs, function, source(batch_size=10)):
        sqs.until(lambda: sqs.deleted == ["a", "b"])
    assert function.batches == [["a"], ["b"]]


def test_a_queue_that_cannot_be_reached_is_tried_again(sqs: FakeSqs) -> None:
    sqs.outages = 1
    sqs.send("a")
    with polling(sqs, Function(), source()):
        sqs.until(lambda: sqs.deleted == ["a"])


def test_what_is_sent_in_a_pause_is_one_batch_after_it(sqs: FakeSqs) -> None:
    function = Function()
    with polling(sqs, function, source(batch_size=10)) as poller:
        assert sqs.polled.wait(PATIENCE_S)
        for first, last in (("a", "b"), ("c", "d")):
            with poller.paused():
                assert sqs.open_polls == 0
                sqs.send(first)
                sqs.send(last)
            function.wait_for(1)
    assert function.batches == [["a", "b"], ["c", "d"]]


def test_who_stops_ends_an_idle_poller_at_once_and_leaves_no_thread(sqs: FakeSqs) -> None:
    before = set(threading.enumerate())
    with polling(sqs, Function(), source()):
        assert sqs.polled.wait(PATIENCE_S)
        assert set(threading.enumerate()) > before
    assert set(threading.enumerate()) == before


def test_a_message_that_comes_with_the_end_is_not_run(sqs: FakeSqs) -> None:
    function = Function()
    with polling(sqs, function, source()) as poller:
        assert sqs.polled.wait(PATIENCE_S)
        poller.stop()
        sqs.send("a")
        poller.join()
    assert (function.events, sqs.deleted) == ([], [])


def test_who_stops_waits_for_the_invocations_under_way(sqs: FakeSqs) -> None:
    function = Function(held=True)
    sqs.send("a", "b")
    with polling(sqs, function, source(max_invocations=3)) as poller:
        function.wait_for(2)
        poller.stop()
        sqs.close()
        threading.Timer(0.2, function.leave.release, (2,)).start()
        poller.join()
        assert sorted(sqs.deleted) == ["a", "b"]

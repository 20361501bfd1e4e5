"""Feeds functions from their SQS queues as Lambda's pollers do: each queue by itself, many invocations at once.

Source: https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from local.event_source_mappings import EventSourceMapping
from local.runtime_api import MAX_PAYLOAD_BYTES, FunctionFailed
from local.template import REGION

WAIT_S = 1  # of one long poll: MiniStack, asked to end, waits for those that are open
RETRY_S = 1.0  # after SQS failed

Message = dict[str, Any]


class QueuePoller:
    """Polls one queue from `start` to `stop`. `sqs` does not try again by itself, or stopping would take its time."""

    def __init__(self, source: EventSourceMapping, sqs: Any, invoke: Callable[[bytes], bytes], *, most: int) -> None:
        """`most` invocations at once, or fewer where the mapping says so."""
        self._source = source
        self._sqs = sqs
        self._url: str = sqs.get_queue_url(QueueName=source.arn.rpartition(":")[2])["QueueUrl"]
        self._invoke = invoke
        self._places = threading.Semaphore(min(source.max_invocations, most))
        self._runs: set[threading.Thread] = set()
        self._receiving = threading.Lock()
        self._wanted = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)

    def start(self) -> None:
        self._wanted.set()
        self._thread.start()

    def stop(self) -> None:
        """Begin no invocation any more."""
        self._over.set()
        self._wanted.set()

    def join(self) -> None:
        """Wait, once stopped, for the open long poll and the invocations under way."""
        self._thread.join()
        for run in list(self._runs):
            run.join()

    @contextmanager
    def paused(self) -> Generator[None]:
        """Take no message while the block lasts."""
        self._wanted.clear()
        try:
            with self._receiving:  # the open long poll may still bring some
                yield
        finally:
            self._wanted.set()

    def _poll(self) -> None:
        while not self._over.is_set():
            self._wanted.wait()
            self._places.acquire()  # before there are messages: who is not run at once stays in the queue
            if messages := self._receive():
                run = threading.Thread(target=self._run, args=(messages,), daemon=True)
                self._runs.add(run)
                run.start()
            else:
                self._places.release()

    def _receive(self) -> list[Message]:
        try:
            with self._receiving:
                told = self._sqs.receive_message(
                    QueueUrl=self._url,
                    MaxNumberOfMessages=self._source.batch_size,
                    WaitTimeSeconds=WAIT_S,
                    MessageSystemAttributeNames=["All"],
                    MessageAttributeNames=["All"],
                )
        except (BotoCoreError, ClientError):
            self._over.wait(RETRY_S)
            return []
        return told.get("Messages", [])

    def _run(self, messages: list[Message]) -> None:
        """Invoke the function; what it is not done with comes again when its visibility timeout is over."""
        try:
            done = [] if self._over.is_set() else self._done(messages)
            entries = [{"Id": str(n), "ReceiptHandle": one["ReceiptHandle"]} for n, one in enumerate(done)]
            with suppress(BotoCoreError, ClientError):
                if entries:
                    self._sqs.delete_message_batch(QueueUrl=self._url, Entries=entries)
        finally:
            self._places.release()
            self._runs.discard(threading.current_thread())

    def _done(self, messages: list[Message]) -> list[Message]:
        event = self._event(messages)
        if len(event) > MAX_PAYLOAD_BYTES and len(messages) > 1:
            half = len(messages) // 2
            return self._done(messages[:half]) + self._done(messages[half:])
        try:
            answer = self._invoke(event)
        except FunctionFailed:  # its log says so
            return []
        failed = self._source.failed(answer, {one["MessageId"] for one in messages})
        return [one for one in messages if one["MessageId"] not in failed]

    def _event(self, messages: list[Message]) -> bytes:
        records = [
            {
                "messageId": one["MessageId"],
                "receiptHandle": one["ReceiptHandle"],
                "body": one["Body"],
                "attributes": one["Attributes"],
                "messageAttributes": _attributes(one),
                "md5OfBody": one["MD5OfBody"],
                "eventSource": "aws:sqs",
                "eventSourceARN": self._source.arn,
                "awsRegion": REGION,
            }
            for one in messages
        ]
        return json.dumps({"Records": records}, ensure_ascii=False).encode()


def _attributes(message: Message) -> dict[str, dict[str, Any]]:
    """The attributes a message was sent with, as events spell them."""
    spelled: dict[str, dict[str, Any]] = {}
    for name, told in message.get("MessageAttributes", {}).items():
        spelled[name] = {"stringListValues": [], "binaryListValues": []}
        for member, value in told.items():
            text = base64.b64encode(value).decode() if isinstance(value, bytes) else value
            spelled[name][member[0].lower() + member[1:]] = text
    return spelled

"""Invokes functions with messages of their SQS queues as Lambda's pollers do: one poller a queue, many invocations.

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

WAIT_S = 1  # of one long poll: MiniStack waits for open polls when it is stopped
RETRY_S = 1.0  # after SQS failed

Message = dict[str, Any]


class QueuePoller:
    """Polls one queue from `start` to `stop`. `sqs` must not retry by itself, because that would delay `stop`."""

    def __init__(
        self, mapping: EventSourceMapping, sqs: Any, invoke: Callable[[bytes], bytes], *, max_invocations: int
    ) -> None:
        """At most `max_invocations` concurrent invocations, or the mapping's limit if that is lower."""
        self._mapping = mapping
        self._sqs = sqs
        self._url: str = sqs.get_queue_url(QueueName=mapping.arn.rpartition(":")[2])["QueueUrl"]
        self._invoke = invoke
        self._concurrency = threading.Semaphore(min(mapping.max_invocations, max_invocations))
        self._invocations: set[threading.Thread] = set()
        self._receive_lock = threading.Lock()
        self._enabled = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)

    def start(self) -> None:
        self._enabled.set()
        self._thread.start()

    def stop(self) -> None:
        """Start no further invocation."""
        self._stopping.set()
        self._enabled.set()

    def join(self) -> None:
        """Wait, after `stop`, for the open long poll and the running invocations."""
        self._thread.join()
        for thread in list(self._invocations):
            thread.join()

    @contextmanager
    def pause(self) -> Generator[None]:
        """Receive no message until the block ends."""
        self._enabled.clear()
        try:
            with self._receive_lock:  # the open long poll may still return messages
                yield
        finally:
            self._enabled.set()

    def _poll(self) -> None:
        while not self._stopping.is_set():
            self._enabled.wait()
            self._concurrency.acquire()  # before receiving: messages that cannot run yet stay in the queue
            if messages := self._receive():
                thread = threading.Thread(target=self._run, args=(messages,), daemon=True)
                self._invocations.add(thread)
                thread.start()
            else:
                self._concurrency.release()

    def _receive(self) -> list[Message]:
        try:
            with self._receive_lock:
                response = self._sqs.receive_message(
                    QueueUrl=self._url,
                    MaxNumberOfMessages=self._mapping.batch_size,
                    WaitTimeSeconds=WAIT_S,
                    MessageSystemAttributeNames=["All"],
                    MessageAttributeNames=["All"],
                )
        except (BotoCoreError, ClientError):
            self._stopping.wait(RETRY_S)
            return []
        return response.get("Messages", [])

    def _run(self, messages: list[Message]) -> None:
        """Invoke the function and delete what it handled; other messages return after their visibility timeout."""
        try:
            handled = [] if self._stopping.is_set() else self._invoke_batch(messages)
            entries = [{"Id": str(n), "ReceiptHandle": message["ReceiptHandle"]} for n, message in enumerate(handled)]
            with suppress(BotoCoreError, ClientError):
                if entries:
                    self._sqs.delete_message_batch(QueueUrl=self._url, Entries=entries)
        finally:
            self._concurrency.release()
            self._invocations.discard(threading.current_thread())

    def _invoke_batch(self, messages: list[Message]) -> list[Message]:
        """Invoke the function, in halves where the event is too large; the messages that it handled."""
        event = self._event(messages)
        if len(event) > MAX_PAYLOAD_BYTES and len(messages) > 1:
            half = len(messages) // 2
            return self._invoke_batch(messages[:half]) + self._invoke_batch(messages[half:])
        try:
            response = self._invoke(event)
        except FunctionFailed:  # already in the function's log
            return []
        failed_ids = self._mapping.batch_failures(response, {message["MessageId"] for message in messages})
        return [message for message in messages if message["MessageId"] not in failed_ids]

    def _event(self, messages: list[Message]) -> bytes:
        records = [
            {
                "messageId": message["MessageId"],
                "receiptHandle": message["ReceiptHandle"],
                "body": message["Body"],
                "attributes": message["Attributes"],
                "messageAttributes": _event_attributes(message),
                "md5OfBody": message["MD5OfBody"],
                "eventSource": "aws:sqs",
                "eventSourceARN": self._mapping.arn,
                "awsRegion": REGION,
            }
            for message in messages
        ]
        return json.dumps({"Records": records}, ensure_ascii=False).encode()


def _event_attributes(message: Message) -> dict[str, dict[str, Any]]:
    """The message attributes in the spelling of Lambda events: camelCase members, binary values in base64."""
    attributes: dict[str, dict[str, Any]] = {}
    for name, attribute in message.get("MessageAttributes", {}).items():
        attributes[name] = {"stringListValues": [], "binaryListValues": []}
        for member, value in attribute.items():
            text = base64.b64encode(value).decode() if isinstance(value, bytes) else value
            attributes[name][member[0].lower() + member[1:]] = text
    return attributes

"""SQS messages that start work, the dead-letter queue, and EventBridge events."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aiserver.errors import AiServerError

if TYPE_CHECKING:
    from mypy_boto3_events.client import EventBridgeClient
    from mypy_boto3_sqs.client import SQSClient

EVENT_SOURCE = "aiserver"


class SqsMessageSender:
    """Implements jobs.ports.MessageSender. A message contains only the job's id; the state is in the table."""

    def __init__(self, sqs: "SQSClient", *, hosted: str = "", gpu: str = "", callback: str = "") -> None:
        self._sqs = sqs
        self._job_queues = {"hosted": hosted, "gpu": gpu}
        self._callbacks = callback

    def send_job(self, queue: str, job_id: int, *, attempt: int, delay_s: int = 0) -> None:
        self._send(self._job_queues[queue], {"id": job_id, "attempt": attempt}, delay_s)

    def send_callback(self, job_id: int, *, due: int | None, delay_s: int = 0) -> None:
        self._send(self._callbacks, {"id": job_id, "due": due}, delay_s)

    def _send(self, url: str, message: Mapping[str, int | None], delay_s: int) -> None:
        self._sqs.send_message(QueueUrl=url, MessageBody=json.dumps(message), DelaySeconds=delay_s)


class SqsDeadLetters:
    """Sends invalid messages to the dead-letter queue, with the reason as attributes."""

    def __init__(self, sqs: "SQSClient", url: str) -> None:
        self._sqs = sqs
        self._url = url

    def put(self, body: str, attributes: Mapping[str, str]) -> None:
        """Send the unchanged body. SQS rejects unprintable characters and empty attributes: they become `?`."""
        message_attributes: dict[str, Any] = {
            name: {"DataType": "String", "StringValue": "".join(c if c.isprintable() else "?" for c in text) or "?"}
            for name, text in attributes.items()
        }
        self._sqs.send_message(QueueUrl=self._url, MessageBody=body, MessageAttributes=message_attributes)


class EventBridgePublisher:
    """Implements jobs.ports.EventPublisher."""

    def __init__(self, bus: str, events: "EventBridgeClient") -> None:
        self._bus = bus
        self._events = events

    def publish(self, detail_type: str, detail: bytes) -> None:
        entry = {
            "EventBusName": self._bus,
            "Source": EVENT_SOURCE,
            "DetailType": detail_type,
            "Detail": detail.decode(),
        }
        response = self._events.put_events(Entries=[entry])  # pyright: ignore[reportArgumentType]
        if response["FailedEntryCount"]:
            raise AiServerError("EventBridge rejected the event")

"""The hints on SQS, and the events on EventBridge."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aiserver.errors import AiServerError

if TYPE_CHECKING:
    from mypy_boto3_events.client import EventBridgeClient
    from mypy_boto3_sqs.client import SQSClient

EVENT_SOURCE = "aiserver"


class SqsMessageSender:
    """jobs.ports.Messages. A message names a job; what is to be done stands in the table."""

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
    """Where a message goes that will never be good, with the reason beside it."""

    def __init__(self, sqs: "SQSClient", url: str) -> None:
        self._sqs = sqs
        self._url = url

    def put(self, body: str, attributes: Mapping[str, str]) -> None:
        """Keep the message as it came. Characters that SQS takes in no attribute, and empty ones, are made a `?`."""
        told: dict[str, Any] = {
            name: {"DataType": "String", "StringValue": "".join(c if c.isprintable() else "?" for c in value) or "?"}
            for name, value in attributes.items()
        }
        self._sqs.send_message(QueueUrl=self._url, MessageBody=body, MessageAttributes=told)


class EventBridgePublisher:
    """jobs.ports.Events."""

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
        answer = self._events.put_events(Entries=[entry])  # pyright: ignore[reportArgumentType]
        if answer["FailedEntryCount"]:
            raise AiServerError("EventBridge did not take the event")

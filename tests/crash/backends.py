"""Where the world keeps jobs and messages: in fakes, or in the embedded cloud's DynamoDB, S3, SQS and EventBridge."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

from aiserver.aws.circuits import DynamoCircuits
from aiserver.aws.jobs import DynamoJobs
from aiserver.aws.leases import DynamoLeases
from aiserver.aws.messages import EventBridgePublisher, SqsMessageSender
from aiserver.jobs.job import Job
from aiserver.jobs.ports import EventPublisher, JobStore, LeaseStore, MessageSender
from aiserver.providers.circuit import CircuitStore
from local import aws
from tests.contract.conftest import table_properties
from tests.crash.fault_points import FaultPoints, FaultyProxy
from tests.fakes import FakeCircuits, FakeClock, FakeEventPublisher, FakeJobs, FakeLeases, FakeMessageSender

OWNER = "example00000"  # whose key the event files hold
BUCKET = "crash-bodies"
BUS = "crash-bus"


@dataclass(frozen=True)
class SentMessage:
    """A message as it was sent: to which kind of function, saying what, to be seen after how long."""

    kind: str
    body: str
    delay_s: int


class Backend(Protocol):
    """`jobs` is what the product uses, each call a place to die; `seen` is the same store, for those who look on."""

    jobs: JobStore
    seen: JobStore
    messages: MessageSender
    events: EventPublisher
    slots: LeaseStore
    circuits: CircuitStore

    def sent(self) -> list[SentMessage]:
        """Take what was sent since last asked."""
        ...

    def all_jobs(self) -> list[Job]: ...


OpenPlace = Callable[[FakeClock, FaultPoints], Backend]


class FakeBackend:
    """In memory; a port's call is a place to die."""

    def __init__(self, clock: FakeClock, crashes: FaultPoints) -> None:
        self.seen = FakeJobs(clock)
        self._messages = FakeMessageSender()
        inner = (self.seen, self._messages, FakeEventPublisher(), FakeLeases(), FakeCircuits())
        ports: Any = [FaultyProxy(port, crashes) for port in inner]
        self.jobs, self.messages, self.events, self.slots, self.circuits = ports

    def sent(self) -> list[SentMessage]:
        jobs = [
            SentMessage("job", json.dumps({"id": job_id, "attempt": attempt}), delay_s)
            for (_, job_id, delay_s), attempt in zip(self._messages.jobs, self._messages.attempts, strict=True)
        ]
        callbacks = [
            SentMessage("callback", json.dumps({"id": job_id, "due": due}), delay_s)
            for (job_id, delay_s), due in zip(self._messages.callbacks, self._messages.dues, strict=True)
        ]
        self._messages.jobs.clear()
        self._messages.attempts.clear()
        self._messages.callbacks.clear()
        self._messages.dues.clear()
        return jobs + callbacks

    def all_jobs(self) -> list[Job]:
        return [job for job_id in self.seen.items if (job := self.seen.get(job_id))]


class EmbeddedCloudBackend:
    """The real adapters over MiniStack, a fresh table each; a call to AWS is a place to die.

    Time is the test's own, and SQS goes by the wall clock: a delay travels as an attribute, to be kept by the world.
    """

    def __init__(self, endpoint_url: str, clock: FakeClock, crashes: FaultPoints) -> None:
        self._dynamodb, s3, self._sqs, events = _clients(endpoint_url)
        self._table = self._fresh_table()
        s3.create_bucket(Bucket=BUCKET)
        self._queues = {
            kind: self._sqs.create_queue(QueueName=f"crash-{kind}")["QueueUrl"] for kind in ("job", "callback")
        }
        self.sent()  # what an earlier world left
        self.seen = DynamoJobs(self._table, BUCKET, self._dynamodb, s3, clock.job_id)
        clients: list[Any] = [FaultyProxy(client, crashes) for client in (self._dynamodb, s3, self._sqs, events)]
        dynamodb, s3, sqs, events = clients
        job, callback = self._queues["job"], self._queues["callback"]
        self.jobs = DynamoJobs(self._table, BUCKET, dynamodb, s3, clock.job_id)
        self.messages = SqsMessageSender(sqs, hosted=job, gpu=job, callback=callback)
        self.events = EventBridgePublisher(BUS, events)
        self.slots = DynamoLeases(self._table, dynamodb)
        self.circuits = DynamoCircuits(self._table, dynamodb, clock)

    def _fresh_table(self) -> str:
        there = self._dynamodb.list_tables()["TableNames"]
        number = 1 + max((int(t.removeprefix("crash-")) for t in there if t.startswith("crash-")), default=0)
        for table in there:
            if table.startswith("crash-"):
                self._dynamodb.delete_table(TableName=table)
        self._dynamodb.create_table(**table_properties() | {"TableName": f"crash-{number}"})
        return f"crash-{number}"

    def sent(self) -> list[SentMessage]:
        return [SentMessage(kind, body, delay_s) for kind in self._queues for body, delay_s in self._received(kind)]

    def _received(self, kind: str) -> Iterator[tuple[str, int]]:
        url = self._queues[kind]
        while True:
            found = self._sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"])
            if "Messages" not in found:
                return
            for message in found["Messages"]:
                self._sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
                yield message["Body"], int(message["MessageAttributes"]["delay"]["StringValue"])

    def all_jobs(self) -> list[Job]:
        return self.seen.list_page(OWNER, tag=None, state=None, take=1000, cursor=None).jobs


@cache
def _clients(endpoint_url: str) -> list[Any]:
    made = [aws.client(name, endpoint_url) for name in ("dynamodb", "s3", "sqs", "events")]
    made[3].create_event_bus(Name=BUS)
    made[2].meta.events.register("before-parameter-build.sqs.SendMessage", _delay_as_attribute)
    return made


def _delay_as_attribute(params: dict[str, Any], **_: Any) -> None:
    delay = params.pop("DelaySeconds")
    params["MessageAttributes"] = {"delay": {"DataType": "Number", "StringValue": str(delay)}}

"""Where the simulation stores jobs and messages: in fakes, or in the AWS services of the embedded cloud."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

from aiserver.aws.artifacts import S3Artifacts
from aiserver.aws.circuits import DynamoCircuits
from aiserver.aws.jobs import DynamoJobs
from aiserver.aws.leases import DynamoConcurrencyLeases
from aiserver.aws.messages import EventBridgePublisher, SqsMessageSender
from aiserver.circuit_breaker.circuit import CircuitStore
from aiserver.concurrency import ConcurrencyLeaseStore
from aiserver.jobs.job import Job
from aiserver.jobs.ports import EventPublisher, JobStore, MessageSender
from aiserver.usecases.media_outputs import ArtifactStore
from local import aws
from tests.contract.conftest import table_properties
from tests.crash.fault_points import FaultPoints, FaultyProxy
from tests.fakes import (
    FakeArtifacts,
    FakeCircuits,
    FakeClock,
    FakeEventPublisher,
    FakeJobs,
    FakeLeases,
    FakeMessageSender,
)

OWNER = "example00000"  # its key is the one in the event files
BUCKET = "crash-bodies"
BUS = "crash-bus"


@dataclass(frozen=True)
class SentMessage:
    """A message in SQS: the kind of its queue, its body and its delay in seconds."""

    kind: str
    body: str
    delay_s: int


class Backend(Protocol):
    """`jobs` is the product's store, each call a fault point; `job_store` is the same store without fault points."""

    jobs: JobStore
    job_store: JobStore
    messages: MessageSender
    events: EventPublisher
    leases: ConcurrencyLeaseStore
    circuits: CircuitStore
    artifacts: ArtifactStore

    def take_sent_messages(self) -> list[SentMessage]:
        """Remove and return the messages sent since the previous call."""
        ...

    def all_jobs(self) -> list[Job]: ...

    def read_artifact(self, key: str) -> bytes | None:
        """The content of a stored file, without a fault point; None if it is missing."""
        ...


BackendFactory = Callable[[FakeClock, FaultPoints], Backend]


class FakeBackend:
    """In memory; each call of a port is a fault point."""

    def __init__(self, clock: FakeClock, fault_points: FaultPoints) -> None:
        self.job_store = FakeJobs(clock)
        self._messages = FakeMessageSender()
        wrapped = (self.job_store, self._messages, FakeEventPublisher(), FakeLeases(), FakeCircuits())
        ports: Any = [FaultyProxy(port, fault_points) for port in wrapped]
        self.jobs, self.messages, self.events, self.leases, self.circuits = ports
        self._artifacts = FakeArtifacts()
        self.artifacts: Any = FaultyProxy(self._artifacts, fault_points)

    def take_sent_messages(self) -> list[SentMessage]:
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
        return [job for job_id in self.job_store.items if (job := self.job_store.get(job_id))]

    def read_artifact(self, key: str) -> bytes | None:
        return self._artifacts.files.get(key)


class EmbeddedCloudBackend:
    """The real adapters over MiniStack, with a new table each; each call to AWS is a fault point.

    The test controls time, and SQS uses the wall clock: a delay travels as an attribute, which the simulation applies.
    """

    def __init__(self, endpoint_url: str, clock: FakeClock, fault_points: FaultPoints) -> None:
        self._dynamodb, s3, self._sqs, events = _clients(endpoint_url)
        self._s3 = s3
        self._table = self._create_table()
        s3.create_bucket(Bucket=BUCKET)
        self._queues = {
            kind: self._sqs.create_queue(QueueName=f"crash-{kind}")["QueueUrl"] for kind in ("job", "callback")
        }
        self.take_sent_messages()  # left over by an earlier simulation
        self.job_store = DynamoJobs(self._table, BUCKET, self._dynamodb, s3, clock.job_id)
        clients: list[Any] = [FaultyProxy(client, fault_points) for client in (self._dynamodb, s3, self._sqs, events)]
        dynamodb, s3, sqs, events = clients
        job, callback = self._queues["job"], self._queues["callback"]
        self.jobs = DynamoJobs(self._table, BUCKET, dynamodb, s3, clock.job_id)
        self.messages = SqsMessageSender(sqs, hosted=job, gpu=job, callback=callback)
        self.events = EventBridgePublisher(BUS, events)
        self.leases = DynamoConcurrencyLeases(self._table, dynamodb)
        self.circuits = DynamoCircuits(self._table, dynamodb, clock)
        self.artifacts = S3Artifacts(BUCKET, s3)

    def _create_table(self) -> str:
        tables = self._dynamodb.list_tables()["TableNames"]
        number = 1 + max(
            (int(table.removeprefix("crash-")) for table in tables if table.startswith("crash-")), default=0
        )
        for table in tables:
            if table.startswith("crash-"):
                self._dynamodb.delete_table(TableName=table)
        self._dynamodb.create_table(**table_properties() | {"TableName": f"crash-{number}"})
        return f"crash-{number}"

    def take_sent_messages(self) -> list[SentMessage]:
        return [SentMessage(kind, body, delay_s) for kind in self._queues for body, delay_s in self._receive(kind)]

    def _receive(self, kind: str) -> Iterator[tuple[str, int]]:
        url = self._queues[kind]
        while True:
            response = self._sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"])
            if "Messages" not in response:
                return
            for message in response["Messages"]:
                self._sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
                yield message["Body"], int(message["MessageAttributes"]["delay"]["StringValue"])

    def all_jobs(self) -> list[Job]:
        return self.job_store.list_page(OWNER, take=1000).jobs

    def read_artifact(self, key: str) -> bytes | None:
        try:
            return self._s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        except self._s3.exceptions.NoSuchKey:
            return None


@cache
def _clients(endpoint_url: str) -> list[Any]:
    clients = [aws.client(name, endpoint_url) for name in ("dynamodb", "s3", "sqs", "events")]
    clients[3].create_event_bus(Name=BUS)
    clients[2].meta.events.register("before-parameter-build.sqs.SendMessage", _delay_as_attribute)
    return clients


def _delay_as_attribute(params: dict[str, Any], **_: Any) -> None:
    delay = params.pop("DelaySeconds")
    params["MessageAttributes"] = {"delay": {"DataType": "Number", "StringValue": str(delay)}}

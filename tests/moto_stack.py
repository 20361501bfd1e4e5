"""The template's tables, queues, bucket and bus as moto plays them in this process, and its handlers run on them."""

import contextlib
import functools
import inspect
import json
import os
import threading
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import boto3
import httpx
import moto
from moto.core.botocore_stubber import BotocoreStubber

from aiserver import api_keys, bootstrap
from aiserver.api_keys import ApiKey, WebhookSecrets
from aiserver.aws.config import DynamoConfig
from aiserver.aws.jobs import DynamoJobs
from aiserver.providers.provider import Provider
from local.template import REGION, REPOSITORY, resolved
from tests import stack
from tests.iam import recorder
from tests.stack import FUNCTIONS, PARAMETERS

STACK_NAME = "ai-prod"  # not the name our package happens to have
API_ID = "a1b2c3d4e5"
NO_VALUE = "no value"
PSEUDO = {
    "AWS::StackName": STACK_NAME,
    "AWS::Region": REGION,
    "AWS::URLSuffix": "amazonaws.com",
    "AWS::NoValue": NO_VALUE,
}
WEBHOOK_SECRET = "whsec_bm90IGEgc2VjcmV0LCBvbmx5IGFuIGV4YW1wbGU="
# What a test's table does without: it must be deletable, and moto takes the others by calls of their own.
NOT_IN_MOTO = (
    "DeletionProtectionEnabled",
    "PointInTimeRecoverySpecification",
    "TimeToLiveSpecification",
    "StreamSpecification",
)
REMAINING_MS = 29_000


def whole(answer: Any) -> dict[str, Any]:
    """An answer, or one that streams, read to its end and told as if it had not."""
    if inspect.isgenerator(answer):
        head = next(answer)
        answer = {**head, "body": b"".join(answer).decode(), "isBase64Encoded": False}
    return {**answer, "headers": httpx.Headers(answer["headers"])} if "headers" in answer else answer


@contextlib.contextmanager
def mock_aws() -> Generator[None]:
    """moto, one call at a time. Its backends hold no locks: of two threads, both could pass one condition."""
    lock, process = threading.RLock(), BotocoreStubber.process_request

    def process_alone(stubber: BotocoreStubber, request: Any) -> Any:
        with lock:
            return process(stubber, request)

    with mock.patch.object(BotocoreStubber, "process_request", process_alone), moto.mock_aws():
        yield


@functools.cache
def client(service: str) -> Any:
    """A client moto answers in every test: it intercepts whatever client was made after its import."""
    session: Any = boto3.session.Session("testing", "testing", region_name=REGION)
    return session.client(service)


class Context:
    """What a handler asks of Lambda's context."""

    aws_request_id = "8f507cfc-xmpl-4697-b07a-ac58fc914c95"

    def get_remaining_time_in_millis(self) -> int:
        return REMAINING_MS


def event(name: str) -> dict[str, Any]:
    """The event of events/{name}.json."""
    return json.loads(_event_text(name))


@functools.cache
def _event_text(name: str) -> str:
    return (REPOSITORY / "events" / f"{name}.json").read_text()


def example_key() -> str:
    """The text of the key in the event files."""
    return event("chat")["headers"]["Authorization"].removeprefix("Bearer ")


class _Names(dict[str, str]):
    """What the resources are called. A queue is made when its name is first asked for: few tests need all of them."""

    def __init__(self, make_queue: Callable[[str], str], others: Mapping[str, str]) -> None:
        super().__init__(others)
        self._make_queue = make_queue

    def __missing__(self, name: str) -> str:
        if name not in stack.of_type("AWS::SQS::Queue"):
            raise KeyError(name)
        self[name] = self._make_queue(name)
        return self[name]


@dataclass
class MotoStack:
    """Use inside `mock_aws()`. `parameters` are the stack's; what is not given has its default."""

    parameters: dict[str, str] = field(default_factory=dict[str, str])
    names: dict[str, str] = field(default_factory=dict[str, str])

    def create(self) -> None:
        """Make what the template declares."""
        self.names["Api"] = API_ID
        for table, properties in stack.of_type("AWS::DynamoDB::Table").items():
            kept = {name: value for name, value in properties.items() if name not in NOT_IN_MOTO}
            client("dynamodb").create_table(TableName=table, **kept)
            self.names[table] = table
        for bucket in stack.of_type("AWS::S3::Bucket"):
            client("s3").create_bucket(Bucket=bucket.lower())
            self.names[bucket] = bucket.lower()
        for bus in stack.of_type("AWS::Events::EventBus"):
            client("events").create_event_bus(Name=STACK_NAME)
            self.names[bus] = STACK_NAME
        self.names = _Names(self._queue, self.names)

    def create_queues(self) -> None:
        """Make all queues now, so that a test which counts calls to AWS does not count these."""
        for queue in stack.of_type("AWS::SQS::Queue"):
            self.arn(queue)

    def _queue(self, name: str) -> str:
        properties = stack.properties(name)
        attributes = {
            key: str(stack.number(value)) for key, value in properties.items() if key in ("VisibilityTimeout",)
        }
        if redrive := properties.get("RedrivePolicy"):
            dead = self.arn(stack.the_one(redrive["deadLetterTargetArn"]))
            attributes["RedrivePolicy"] = json.dumps({**redrive, "deadLetterTargetArn": dead})
        return client("sqs").create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]

    def arn(self, queue: str) -> str:
        url = self.names[queue]
        sqs = client("sqs")
        return sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]

    def environment(self, function: str) -> dict[str, str]:
        """A function's variables as CloudFormation would resolve them."""
        told = {name: self._resolved(value) for name, value in stack.variables(function).items()}
        return {name: value for name, value in told.items() if value != NO_VALUE}

    def _resolved(self, value: Any) -> str:
        if not isinstance(value, dict):
            return str(value)
        ((function, given),) = value.items()
        if function == "Ref":
            return self._named(given)
        if function == "Fn::Sub":
            return stack.SUBSTITUTED.sub(lambda found: self._named(found[1]), given)
        if function == "Fn::If":
            return self._resolved(resolved(stack.TEMPLATE, value, self.parameters))
        raise NotImplementedError(function)

    def _named(self, name: str) -> str:
        if name in PARAMETERS:
            return self.parameters.get(name, str(PARAMETERS[name]["Default"]))
        return PSEUDO[name] if name in PSEUDO else self.names[name]

    def invoke(self, function: str, given: Mapping[str, Any], **changed: str) -> dict[str, Any]:
        """Run the handler of, say, `chat` in a fresh container of its environment, `changed` where told."""
        logical_id = f"{function.capitalize()}Function"
        bootstrap.reset()
        for name in {name for one in FUNCTIONS for name in stack.variables(one)}:
            os.environ.pop(name, None)
        os.environ.update({**self.environment(logical_id), **changed})
        return self.invoke_again(function, given)

    def invoke_again(self, function: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """Run a handler in the container that ran last: what was built stands, what was read is remembered."""
        logical_id = f"{function.capitalize()}Function"
        handler = stack.properties(logical_id)["Handler"].rpartition(".")[2]
        with recorder.running(logical_id):
            return whole(getattr(stack.module(logical_id), handler)(json.loads(json.dumps(given)), Context()))

    def config(self) -> DynamoConfig:
        return DynamoConfig(self.names["ConfigTable"], client("dynamodb"))

    def providers(self, *providers: Provider) -> None:
        """Make these the providers."""
        config = self.config()
        for name, text in config.provider_texts().items():
            config.replace_provider(name, text, None)
        for provider in providers:
            config.replace_provider(provider.name, None, provider)

    def put_key(self, text: str, name: str) -> ApiKey:
        """Store a key's record, so that it opens."""
        key = api_keys.key_record(text, name, now_ms=bootstrap.CLOCK.now_ms())
        self.config().put_key(key, WebhookSecrets(WEBHOOK_SECRET))
        return key

    def jobs(self) -> DynamoJobs:
        clients = (client("dynamodb"), client("s3"))
        return DynamoJobs(self.names["JobsTable"], self.names["BodiesBucket"], *clients, bootstrap.CLOCK.job_id)

    def messages(self, queue: str) -> list[dict[str, Any]]:
        """Take what is in a queue."""
        return [json.loads(message["Body"]) for message in self.taken(queue)]

    def taken(self, queue: str) -> list[dict[str, Any]]:
        """Take what is in a queue, each message whole."""
        all_of_it: Any = {"MaxNumberOfMessages": 10, "MessageAttributeNames": ["All"]}
        return client("sqs").receive_message(QueueUrl=self.names[queue], **all_of_it).get("Messages", [])

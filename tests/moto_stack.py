"""The template's tables, queues, bucket and bus on moto in this process, and its handlers run on them."""

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
from local.template import REGION, REPOSITORY, resolve
from tests import stack
from tests.iam import recorder
from tests.stack import FUNCTIONS, PARAMETERS

STACK_NAME = "ai-prod"  # differs from the package name on purpose
API_ID = "a1b2c3d4e5"
NO_VALUE = "no value"
PSEUDO = {
    "AWS::StackName": STACK_NAME,
    "AWS::Region": REGION,
    "AWS::URLSuffix": "amazonaws.com",
    "AWS::NoValue": NO_VALUE,
}
WEBHOOK_SECRET = "whsec_bm90IGEgc2VjcmV0LCBvbmx5IGFuIGV4YW1wbGU="
# Omitted in tests: the table must be deletable, and moto sets the other properties by separate calls.
UNSUPPORTED_PROPERTIES = (
    "DeletionProtectionEnabled",
    "PointInTimeRecoverySpecification",
    "TimeToLiveSpecification",
    "StreamSpecification",
)
REMAINING_MS = 29_000


def buffer_response(response: Any) -> dict[str, Any]:
    """Return a response; read a streaming one to its end and return it in the buffered form."""
    if inspect.isgenerator(response):
        head = next(response)
        response = {**head, "body": b"".join(response).decode(), "isBase64Encoded": False}
    return {**response, "headers": httpx.Headers(response["headers"])} if "headers" in response else response


@contextlib.contextmanager
def mock_aws() -> Generator[None]:
    """moto with serialized calls. Its backends have no locks: two threads could pass the same condition."""
    lock, process = threading.RLock(), BotocoreStubber.process_request

    def process_serially(stubber: BotocoreStubber, request: Any) -> Any:
        with lock:
            return process(stubber, request)

    with mock.patch.object(BotocoreStubber, "process_request", process_serially), moto.mock_aws():
        yield


@functools.cache
def client(service: str) -> Any:
    """Return a cached client; moto intercepts every client created after its import."""
    session: Any = boto3.session.Session("testing", "testing", region_name=REGION)
    return session.client(service)


class Context:
    """The part of Lambda's context that handlers read."""

    aws_request_id = "8f507cfc-xmpl-4697-b07a-ac58fc914c95"

    def get_remaining_time_in_millis(self) -> int:
        return REMAINING_MS


def event(name: str) -> dict[str, Any]:
    """Return the event of events/{name}.json."""
    return json.loads(_event_text(name))


@functools.cache
def _event_text(name: str) -> str:
    return (REPOSITORY / "events" / f"{name}.json").read_text()


def example_key() -> str:
    """Return the text of the API key in the event files."""
    return event("chat")["headers"]["Authorization"].removeprefix("Bearer ")


class _Names(dict[str, str]):
    """The physical names of the resources. A queue is created on first access: few tests need all queues."""

    def __init__(self, make_queue: Callable[[str], str], names: Mapping[str, str]) -> None:
        super().__init__(names)
        self._make_queue = make_queue

    def __missing__(self, name: str) -> str:
        if name not in stack.of_type("AWS::SQS::Queue"):
            raise KeyError(name)
        self[name] = self._make_queue(name)
        return self[name]


@dataclass
class MotoStack:
    """Use inside `mock_aws()`. `parameters` override the defaults of the template."""

    parameters: dict[str, str] = field(default_factory=dict[str, str])
    names: dict[str, str] = field(default_factory=dict[str, str])

    def create(self) -> None:
        """Create the resources of the template."""
        self.names["Api"] = API_ID
        for table, properties in stack.of_type("AWS::DynamoDB::Table").items():
            supported = {name: value for name, value in properties.items() if name not in UNSUPPORTED_PROPERTIES}
            client("dynamodb").create_table(TableName=table, **supported)
            self.names[table] = table
        for bucket in stack.of_type("AWS::S3::Bucket"):
            client("s3").create_bucket(Bucket=bucket.lower())
            self.names[bucket] = bucket.lower()
        for bus in stack.of_type("AWS::Events::EventBus"):
            client("events").create_event_bus(Name=STACK_NAME)
            self.names[bus] = STACK_NAME
        self.names = _Names(self._queue, self.names)

    def create_queues(self) -> None:
        """Create all queues now, so that tests that count AWS calls do not count their creation."""
        for queue in stack.of_type("AWS::SQS::Queue"):
            self.arn(queue)

    def _queue(self, name: str) -> str:
        properties = stack.properties(name)
        attributes = {
            key: str(stack.number(value)) for key, value in properties.items() if key in ("VisibilityTimeout",)
        }
        if redrive := properties.get("RedrivePolicy"):
            dead_letter_arn = self.arn(stack.single_resource(redrive["deadLetterTargetArn"]))
            attributes["RedrivePolicy"] = json.dumps({**redrive, "deadLetterTargetArn": dead_letter_arn})
        return client("sqs").create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]

    def arn(self, queue: str) -> str:
        url = self.names[queue]
        sqs = client("sqs")
        return sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]

    def environment(self, function: str) -> dict[str, str]:
        """Return a function's environment variables, resolved as CloudFormation does."""
        variables = {name: self._resolve(value) for name, value in stack.variables(function).items()}
        return {name: value for name, value in variables.items() if value != NO_VALUE}

    def _resolve(self, value: Any) -> str:
        if not isinstance(value, dict):
            return str(value)
        ((function, argument),) = value.items()
        if function == "Ref":
            return self._resolve_ref(argument)
        if function == "Fn::Sub":
            return stack.SUBSTITUTION.sub(lambda match: self._resolve_ref(match[1]), argument)
        if function == "Fn::If":
            return self._resolve(resolve(stack.TEMPLATE, value, self.parameters))
        raise NotImplementedError(function)

    def _resolve_ref(self, name: str) -> str:
        if name in PARAMETERS:
            return self.parameters.get(name, str(PARAMETERS[name]["Default"]))
        return PSEUDO[name] if name in PSEUDO else self.names[name]

    def invoke(self, function: str, payload: Mapping[str, Any], **overrides: str) -> dict[str, Any]:
        """Run a function's handler, such as `chat`, in a fresh container; `overrides` replace environment variables."""
        logical_id = f"{function.capitalize()}Function"
        bootstrap.reset_for_tests()
        for name in {name for function_id in FUNCTIONS for name in stack.variables(function_id)}:
            os.environ.pop(name, None)
        os.environ.update({**self.environment(logical_id), **overrides})
        return self.invoke_again(function, payload)

    def invoke_again(self, function: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Run a handler in the container of the previous call, with its objects and caches."""
        logical_id = f"{function.capitalize()}Function"
        handler = stack.properties(logical_id)["Handler"].rpartition(".")[2]
        with recorder.running(logical_id):
            return buffer_response(
                getattr(stack.module(logical_id), handler)(json.loads(json.dumps(payload)), Context())
            )

    def config(self) -> DynamoConfig:
        return DynamoConfig(self.names["ConfigTable"], client("dynamodb"))

    def set_providers(self, *providers: Provider) -> None:
        """Replace all configured providers."""
        config = self.config()
        for name, text in config.provider_texts().items():
            config.replace_provider(name, text, None)
        for provider in providers:
            config.replace_provider(provider.name, None, provider)

    def put_key(self, text: str, name: str) -> ApiKey:
        """Store the record of an API key, which makes it valid."""
        key = api_keys.key_record(text, name, now_ms=bootstrap.CLOCK.now_ms())
        self.config().put_key(key, WebhookSecrets(WEBHOOK_SECRET))
        return key

    def jobs(self) -> DynamoJobs:
        clients = (client("dynamodb"), client("s3"))
        return DynamoJobs(self.names["JobsTable"], self.names["BodiesBucket"], *clients, bootstrap.CLOCK.job_id)

    def messages(self, queue: str) -> list[dict[str, Any]]:
        """Receive the bodies of the messages in a queue."""
        return [json.loads(message["Body"]) for message in self.receive(queue)]

    def receive(self, queue: str) -> list[dict[str, Any]]:
        """Receive the messages in a queue, with attributes."""
        options: Any = {"MaxNumberOfMessages": 10, "MessageAttributeNames": ["All"]}
        return client("sqs").receive_message(QueueUrl=self.names[queue], **options).get("Messages", [])

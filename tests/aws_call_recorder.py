"""Records every AWS request of the handlers with moto, and classifies it by purpose.

A retry is recorded again: the counts are the requests that AWS would bill.
"""

import base64
import contextlib
import json
import os
import tempfile
from collections import Counter
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from moto.moto_api import recorder

from aiserver import bootstrap
from aiserver.aws.items import pack
from aiserver.providers.provider import Provider
from local.scripted import ScriptedProvider
from local.template import REGION
from tests.moto_stack import STACK_NAME, MotoStack, client, event, example_key, mock_aws

STATE, CONFIG = "job state", "keys and providers"
CIRCUITS, LOAD = "which providers are worth asking", "which of equal providers is least loaded"
HINTS, SECRET, BODIES, EVENTS = "hints", "provider secret", "bodies", "events"
SERVICES = {"AmazonSQS": HINTS, "AmazonSSM": SECRET, "AWSEvents": EVENTS}
TABLES = {"JobsTable": STATE, "ConfigTable": CONFIG}
PARAMETER = f"/{STACK_NAME}/providers/scripted"
# The usage of an OpenAI response; it is stored with the job.
USAGE = (
    '{"prompt_tokens":19,"completion_tokens":10,"total_tokens":29,"prompt_tokens_details":{"cached_tokens":0,'
    '"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,'
    '"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}'
)


@dataclass(frozen=True)
class Call:
    """One request: its purpose, its operation, and its parameters (for S3, the object's key)."""

    purpose: str
    operation: str
    params: Mapping[str, Any]


def count_calls(calls: list[Call]) -> dict[str, dict[str, int]]:
    """Count calls by purpose and operation."""
    purposes = sorted({call.purpose for call in calls})
    return {purpose: dict(Counter(call.operation for call in calls if call.purpose == purpose)) for purpose in purposes}


@dataclass
class RecordingStack:
    """A stack that records its handlers' AWS requests: `cold` in a fresh container, `warm` in the previous one."""

    stack: MotoStack
    upstream: ScriptedProvider

    def cold(self, function: str, payload: Mapping[str, Any]) -> tuple[Any, list[Call]]:
        """Return the function's response and its AWS requests."""
        with _record_calls() as calls:
            response = self.stack.invoke(function, payload)
        return response, calls

    def warm(self, function: str, payload: Mapping[str, Any]) -> tuple[Any, list[Call]]:
        with _record_calls() as calls:
            response = self.stack.invoke_again(function, payload)
        return response, calls

    def worker_event(self) -> dict[str, Any]:
        """Return the SQS event with the only message in the hosted queue."""
        (message,) = self.stack.messages("HostedQueue")
        batch = event("worker")
        batch["Records"][0]["body"] = json.dumps(message)
        return batch

    def finished_event(self, job_id: int) -> dict[str, Any]:
        """Return the DynamoDB stream event of a job that has just ended."""
        key = pack({"pk": f"JOB#{job_id}", "sk": "JOB"})
        item = client("dynamodb").get_item(TableName="JobsTable", Key=key)["Item"]
        stream_event = event("finished")
        stream_event["Records"][0]["dynamodb"] |= {"Keys": key, "NewImage": item}
        return stream_event


@contextlib.contextmanager
def recording_stack(upstream: ScriptedProvider) -> Generator[RecordingStack]:
    """Create the stack with one key and `upstream` as its only hosted provider, whose API key is a secret."""
    before = dict(os.environ)
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.chdir(folder),
        mock_aws(),
    ):  # moto writes its recording there
        os.environ["AWS_DEFAULT_REGION"] = REGION
        stack = MotoStack()
        stack.create()
        stack.create_queues()
        stack.put_key(example_key(), "example")
        client("ssm").put_parameter(Name=PARAMETER, Value="sk-upstream", Type="SecureString")
        hosted = {"name": "scripted", "base_url": upstream.base_url, "api_key_secret": PARAMETER}
        stack.set_providers(Provider.model_validate({**hosted, "models": {"llama3:8b": ""}}))
        yield RecordingStack(stack, upstream)
        bootstrap.reset_for_tests()
    os.environ.clear()
    os.environ.update(before)


def queue_event(request: bytes) -> dict[str, Any]:
    """Return the event of an ordinary job, without RefId, tag, deadline and ReplyTo."""
    request_event = event("queue.openai")
    for name in ("X-Ref-Id", "X-Tag", "X-Deadline"):
        del request_event["headers"][name]
    return request_event | {"body": request.decode()}


def chat_event(request: bytes) -> dict[str, Any]:
    """Return the event of a synchronous chat."""
    return event("chat") | {"body": request.decode()}


def status_event(**query: str) -> dict[str, Any]:
    """Return the event of a status request."""
    return event("status") | {"queryStringParameters": query}


def chat_request(size: int, **fields: str) -> bytes:
    """Return a chat request of exactly `size` bytes."""
    return _pad_to_size('{"model":"llama3:8b",%s"messages":[{"role":"user","content":"%s"}]}', _members(fields), size)


def completion_body(size: int) -> bytes:
    """Return a completion of exactly `size` bytes."""
    usage = f'"usage":{USAGE},'
    return _pad_to_size('{"object":"chat.completion",%s"choices":[{"message":{"content":"%s"}}]}', usage, size)


def _members(fields: Mapping[str, str]) -> str:
    return "".join(f'"{name}":"{value}",' for name, value in fields.items())


def _pad_to_size(form: str, members: str, size: int) -> bytes:
    return (form % (members, "x" * (size - len(form % (members, ""))))).encode()


@contextlib.contextmanager
def _record_calls() -> Generator[list[Call]]:
    calls: list[Call] = []
    recorder.reset_recording()
    recorder.start_recording()
    try:
        yield calls
    finally:
        recorder.stop_recording()
        calls += [_call(json.loads(line)) for line in Path("moto_recording").read_text().splitlines()]


def _call(request: Mapping[str, Any]) -> Call:
    service, _, operation = request["headers"].get("X-Amz-Target", "").partition(".")
    if not operation:
        return Call(BODIES, f"{request['method']} object", {"Key": unquote(urlparse(request["url"]).path).lstrip("/")})
    params = json.loads(base64.b64decode(request["body"]))
    if service in SERVICES:
        return Call(SERVICES[service], operation, params)
    if operation == "BatchGetItem":
        return Call(LOAD, operation, params)
    writes = [next(iter(write.values())) for write in params.get("TransactItems", [])]
    (table,) = {target["TableName"] for target in writes or [params]}
    if "CIRCUITS" in json.dumps(params):
        return Call(CIRCUITS, operation, params)
    return Call(TABLES[table], operation, params)

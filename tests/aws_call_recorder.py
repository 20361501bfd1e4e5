"""Every AWS request the handlers send, as moto records it, told apart by what it is for.

A request that is tried again is recorded again: what is counted here is what AWS would bill.
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
# What OpenAI says of an answer's usage; it is kept with the job.
USAGE = (
    '{"prompt_tokens":19,"completion_tokens":10,"total_tokens":29,"prompt_tokens_details":{"cached_tokens":0,'
    '"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,'
    '"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}'
)


@dataclass(frozen=True)
class Call:
    """One request as it was sent: what it is for, its operation, and its parameters (of S3, the object's key)."""

    purpose: str
    operation: str
    asked: Mapping[str, Any]


def counted(calls: list[Call]) -> dict[str, dict[str, int]]:
    """How many calls of each operation, for each purpose."""
    purposes = sorted({call.purpose for call in calls})
    return {one: dict(Counter(call.operation for call in calls if call.purpose == one)) for one in purposes}


@dataclass
class Observed:
    """A stack whose handlers' requests are seen: `cold` in a fresh container, `warm` in the one that ran last."""

    stack: MotoStack
    upstream: ScriptedProvider

    def cold(self, function: str, given: Mapping[str, Any]) -> tuple[Any, list[Call]]:
        """What the function answered, and what it sent."""
        with _recorded() as calls:
            answer = self.stack.invoke(function, given)
        return answer, calls

    def warm(self, function: str, given: Mapping[str, Any]) -> tuple[Any, list[Call]]:
        with _recorded() as calls:
            answer = self.stack.invoke_again(function, given)
        return answer, calls

    def message(self) -> dict[str, Any]:
        """The batch with the one message that lies in the hosted queue."""
        (hint,) = self.stack.messages("HostedQueue")
        batch = event("worker")
        batch["Records"][0]["body"] = json.dumps(hint)
        return batch

    def ending(self, job_id: int) -> dict[str, Any]:
        """What the table's stream tells of a job that has just ended."""
        key = pack({"pk": f"JOB#{job_id}", "sk": "JOB"})
        item = client("dynamodb").get_item(TableName="JobsTable", Key=key)["Item"]
        told = event("finished")
        told["Records"][0]["dynamodb"] |= {"Keys": key, "NewImage": item}
        return told


@contextlib.contextmanager
def observed(upstream: ScriptedProvider) -> Generator[Observed]:
    """The template's stack with one key, and `upstream` as its one hosted provider, whose own key is a secret."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), mock_aws():  # moto records there
        os.environ["AWS_DEFAULT_REGION"] = REGION
        stack = MotoStack()
        stack.create()
        stack.create_queues()
        stack.put_key(example_key(), "example")
        client("ssm").put_parameter(Name=PARAMETER, Value="sk-upstream", Type="SecureString")
        hosted = {"name": "scripted", "base_url": upstream.base_url, "api_key_secret": PARAMETER}
        stack.providers(Provider.model_validate({**hosted, "models": {"llama3:8b": ""}}))
        yield Observed(stack, upstream)
        bootstrap.reset()
    os.environ.clear()
    os.environ.update(before)


def queued(request: bytes) -> dict[str, Any]:
    """The event of an ordinary job: no RefId, tag, deadline or ReplyTo of its caller's."""
    posted = event("queue.openai")
    for name in ("X-Ref-Id", "X-Tag", "X-Deadline"):
        del posted["headers"][name]
    return posted | {"body": request.decode()}


def asked(request: bytes) -> dict[str, Any]:
    """The event of a sync chat."""
    return event("chat") | {"body": request.decode()}


def status_of(**query: str) -> dict[str, Any]:
    """The event of a status read."""
    return event("status") | {"queryStringParameters": query}


def request_of(size: int, **more: str) -> bytes:
    """A chat of exactly that many bytes."""
    return _sized('{"model":"llama3:8b",%s"messages":[{"role":"user","content":"%s"}]}', _members(more), size)


def result_of(size: int) -> bytes:
    """A completion of exactly that many bytes."""
    usage = f'"usage":{USAGE},'
    return _sized('{"object":"chat.completion",%s"choices":[{"message":{"content":"%s"}}]}', usage, size)


def _members(more: Mapping[str, str]) -> str:
    return "".join(f'"{name}":"{value}",' for name, value in more.items())


def _sized(form: str, members: str, size: int) -> bytes:
    return (form % (members, "x" * (size - len(form % (members, ""))))).encode()


@contextlib.contextmanager
def _recorded() -> Generator[list[Call]]:
    calls: list[Call] = []
    recorder.reset_recording()
    recorder.start_recording()
    try:
        yield calls
    finally:
        recorder.stop_recording()
        calls += [_call(json.loads(line)) for line in Path("moto_recording").read_text().splitlines()]


def _call(sent: Mapping[str, Any]) -> Call:
    service, _, operation = sent["headers"].get("X-Amz-Target", "").partition(".")
    if not operation:
        return Call(BODIES, f"{sent['method']} object", {"Key": unquote(urlparse(sent["url"]).path).lstrip("/")})
    told = json.loads(base64.b64decode(sent["body"]))
    if service in SERVICES:
        return Call(SERVICES[service], operation, told)
    if operation == "BatchGetItem":
        return Call(LOAD, operation, told)
    writes = [next(iter(write.values())) for write in told.get("TransactItems", [])]
    (table,) = {one["TableName"] for one in writes or [told]}
    if "CIRCUITS" in json.dumps(told):
        return Call(CIRCUITS, operation, told)
    return Call(TABLES[table], operation, told)

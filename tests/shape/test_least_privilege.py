"""What an attacker who controls a function can and cannot do with its role.

That a role allows everything its function does is checked in every test that runs a handler: tests/conftest.
"""

import os
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest

from local.template import REGION
from tests.iam import recorder
from tests.iam.policies import ACCOUNT, BEDROCK_MODEL, arn
from tests.iam.requests import IamRequest, over_tls, requests_of
from tests.iam.simulator import IS_INSTALLED, requests_denied
from tests.moto_stack import MotoStack, event, example_key, mock_aws
from tests.stack import FUNCTIONS

pytestmark = pytest.mark.skipif(not IS_INSTALLED, reason="the IAM simulation needs Node.js 18 or newer")

ANY_PROVIDER_KEY = f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/ai-prod/providers/openai/api.openai.com/api-key"
CALLS_PROVIDERS = ("ChatFunction", "MediaFunction", "WorkerFunction")
ARTIFACT = f"artifacts/2026/01/31/k/{'0' * 64}.mp3"


@pytest.fixture
def handlers_environment() -> Iterator[None]:
    with mock.patch.dict(os.environ, {"AWS_DEFAULT_REGION": REGION}):
        yield


def item(operation: str, table: str, partition: str, **params: Any) -> list[IamRequest]:
    key = {"pk": {"S": partition}, "sk": {"S": "x"}}
    if operation == "BatchGetItem":
        return requests_of("dynamodb", operation, {"RequestItems": {table: {"Keys": [key]}}})
    key_params = {"Item": key} if operation == "PutItem" else {"Key": key}
    return requests_of("dynamodb", operation, {"TableName": table, **key_params, **params})


def query(table: str, partition: str) -> list[IamRequest]:
    values = {":pk": {"S": partition}}
    params = {"TableName": table, "KeyConditionExpression": "pk = :pk", "ExpressionAttributeValues": values}
    return requests_of("dynamodb", "Query", params)


def objects(operation: str, key: str | None) -> list[IamRequest]:
    return requests_of("s3", operation, {"Bucket": "bodiesbucket"} | ({"Key": key} if key else {}))


def queue(operation: str, name: str) -> list[IamRequest]:
    return requests_of("sqs", operation, {"QueueUrl": f"https://sqs.us-east-1.amazonaws.com/{ACCOUNT}/{name}"})


def without_tls(action: str, key: str) -> list[IamRequest]:
    return [IamRequest(action, f"{arn('BodiesBucket')}/{key}", over_tls(is_tls=False))]


def of(action: str, resource: str) -> list[IamRequest]:
    return [IamRequest(action, resource)]


# What no function may do.
DENIED_TO_ALL: dict[str, list[IamRequest]] = {
    "read all jobs": of("dynamodb:Scan", arn("JobsTable")),
    "read all of the configuration": of("dynamodb:Scan", arn("ConfigTable")),
    "delete the jobs table": of("dynamodb:DeleteTable", arn("JobsTable")),
    "delete the configuration": of("dynamodb:DeleteTable", arn("ConfigTable")),
    "lift the deletion protection": of("dynamodb:UpdateTable", arn("JobsTable")),
    "switch off the backups": of("dynamodb:UpdateContinuousBackups", arn("JobsTable")),
    "export the jobs": of("dynamodb:ExportTableToPointInTime", arn("JobsTable")),
    "read jobs by PartiQL": of("dynamodb:PartiQLSelect", arn("JobsTable")),
    "read keys by PartiQL": of("dynamodb:PartiQLSelect", arn("ConfigTable")),
    "delete a body": objects("DeleteObject", "jobs/1/request-1"),
    "delete an artifact": objects("DeleteObject", ARTIFACT),
    "write an object that is no body and no artifact": objects("PutObject", "index.html"),
    "read an object that is no body and no artifact": objects("GetObject", "backup/1"),
    "open the bucket to the public": of("s3:PutBucketPolicy", arn("BodiesBucket")),
    "remove the public access block": of("s3:PutBucketPublicAccessBlock", arn("BodiesBucket")),
    "delete the bucket": of("s3:DeleteBucket", arn("BodiesBucket")),
    "write a body without TLS": without_tls("s3:PutObject", "jobs/1/result-1"),
    "read a body without TLS": without_tls("s3:GetObject", "jobs/1/result-1"),
    "write an artifact without TLS": without_tls("s3:PutObject", ARTIFACT),
    "read an artifact without TLS": without_tls("s3:GetObject", ARTIFACT),
    "empty a queue": queue("PurgeQueue", "HostedQueue"),
    "delete a queue": queue("DeleteQueue", "CallbackQueue"),
    "open a queue to others": queue("AddPermission", "IntakeQueue"),
    "send to the intake queue for another owner": queue("SendMessage", "IntakeQueue"),
    "read dead letters": queue("ReceiveMessage", "HostedDeadLetterQueue"),
    "replace a provider's key": of("ssm:PutParameter", ANY_PROVIDER_KEY),
    "list parameters by path": of("ssm:GetParametersByPath", ANY_PROVIDER_KEY),
    "read another stack's parameter": of("ssm:GetParameters", ANY_PROVIDER_KEY.replace("/ai-prod/", "/billing/")),
    "read a parameter of a stack with the same name prefix": of(
        "ssm:GetParameters", ANY_PROVIDER_KEY.replace("/ai-prod/", "/ai-prod-2/")
    ),
    "read secrets": of("secretsmanager:GetSecretValue", f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:any-AbCdEf"),
    "decrypt": of("kms:Decrypt", f"arn:aws:kms:{REGION}:{ACCOUNT}:key/11111111-2222-3333-4444-555555555555"),
    "invoke a function": of("lambda:InvokeFunction", f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:ai-prod-worker"),
    "change a function's code": of(
        "lambda:UpdateFunctionCode", f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:ai-prod-worker"
    ),
    "read a function's environment": of(
        "lambda:GetFunctionConfiguration", f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:ai-prod-worker"
    ),
    "attach a policy to its role": of("iam:PutRolePolicy", f"arn:aws:iam::{ACCOUNT}:role/ChatFunction"),
    "assume another role": of("sts:AssumeRole", f"arn:aws:iam::{ACCOUNT}:role/admin"),
    "pass a role": of("iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/admin"),
    "change the stack": of("cloudformation:UpdateStack", f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/ai-prod/1"),
    "publish to another event bus": of("events:PutEvents", f"arn:aws:events:{REGION}:{ACCOUNT}:event-bus/default"),
    "delete its log": of("logs:DeleteLogGroup", f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:ChatLogGroup:*"),
    "read a log": of("logs:GetLogEvents", f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:ChatLogGroup:log-stream:1"),
    "call a model that is not listed": of("bedrock:InvokeModel", f"arn:aws:bedrock:{REGION}::foundation-model/other"),
}
# What only these functions may do.
ALLOWED_ONLY_FOR: dict[str, tuple[tuple[str, ...], list[IamRequest]]] = {
    "read a provider's key": (CALLS_PROVIDERS, of("ssm:GetParameters", ANY_PROVIDER_KEY)),
    "call a listed model": (
        ("ChatFunction", "WorkerFunction"),
        of("bedrock:InvokeModel", f"arn:aws:bedrock:{REGION}::foundation-model/{BEDROCK_MODEL}"),
    ),
    "change a job's state": (
        (*CALLS_PROVIDERS, "QueueFunction", "SweepFunction"),
        item("UpdateItem", "JobsTable", "JOB#1", UpdateExpression="SET deadline = :x"),
    ),
    "change a callback's state": (
        (*CALLS_PROVIDERS, "QueueFunction", "ReplyFunction", "SweepFunction"),
        item("UpdateItem", "JobsTable", "JOB#1", UpdateExpression="SET cb = :x"),
    ),
    "list an owner's jobs": (
        ("StatusFunction",),
        of("dynamodb:Query", f"{arn('JobsTable')}/index/by_owner"),
    ),
    "read a request's body": (
        (*CALLS_PROVIDERS, "StatusFunction"),
        objects("GetObject", "jobs/1/request-1"),
    ),
    "read a result's body": (
        ("ChatFunction", "MediaFunction", "ReplyFunction", "StatusFunction"),
        objects("GetObject", "jobs/1/result-1"),
    ),
    "list the bucket": (
        (*CALLS_PROVIDERS, "ReplyFunction", "StatusFunction"),
        of("s3:ListBucket", arn("BodiesBucket")),
    ),
    "read a request's body by a service on behalf of the role": (
        ("StatusFunction",),
        [IamRequest("s3:GetObject", f"{arn('BodiesBucket')}/jobs/1/request-1", over_tls(via_service=True))],
    ),
    "read a result's body by a service on behalf of the role": (
        ("ReplyFunction", "StatusFunction"),
        [IamRequest("s3:GetObject", f"{arn('BodiesBucket')}/jobs/1/result-1", over_tls(via_service=True))],
    ),
    "replace a request's body": (
        ("ChatFunction", "IntakeFunction", "MediaFunction", "QueueFunction"),
        objects("PutObject", "jobs/1/request-1"),
    ),
    "replace a result's body": (CALLS_PROVIDERS, objects("PutObject", "jobs/1/result-1")),
    "read an artifact": (("MediaFunction", "ReplyFunction", "StatusFunction"), objects("GetObject", ARTIFACT)),
    "write an artifact": (("MediaFunction", "WorkerFunction"), objects("PutObject", ARTIFACT)),
    "send a job message": (
        ("IntakeFunction", "QueueFunction", "SweepFunction", "WorkerFunction"),
        queue("SendMessage", "GpuQueue"),
    ),
    "receive a job message": (("WorkerFunction",), queue("ReceiveMessage", "HostedQueue")),
    "send a callback message": (
        ("FinishedFunction", "QueueFunction", "ReplyFunction", "SweepFunction"),
        queue("SendMessage", "CallbackQueue"),
    ),
    "delete a callback message": (("ReplyFunction",), queue("DeleteMessage", "CallbackQueue")),
    "publish a job event": (("FinishedFunction",), of("events:PutEvents", arn("EventBus"))),
}
# The only partitions of each table that a function may access, by action.
PARTITIONS = {
    "JobsTable": ("JOB#1", "REF#owner#1", "CIRCUITS", "SLOTS#provider#p", "SLOTS#callbacks#k"),
    "ConfigTable": ("KEY", "WEBHOOK_SECRET", "ARTIFACT_SECRET", "PROVIDER", "LISTING"),
}
JOB, REF, CIRCUITS, CALLS, DELIVERIES = PARTITIONS["JobsTable"]
KEY, WEBHOOK_SECRET, ARTIFACT_SECRET, PROVIDER, LISTING = PARTITIONS["ConfigTable"]
ALLOWED_PARTITIONS: dict[str, dict[str, set[str]]] = {
    "ChatFunction": {
        "GetItem": {JOB, REF, KEY},
        "BatchGetItem": {CALLS},
        "Query": {CIRCUITS, PROVIDER},
        "PutItem": {JOB, REF, CIRCUITS},
        "UpdateItem": {JOB, CALLS},
    },
    "MediaFunction": {
        "GetItem": {JOB, REF, KEY, ARTIFACT_SECRET},
        "BatchGetItem": {CALLS},
        "Query": {CIRCUITS, PROVIDER},
        "PutItem": {JOB, REF, CIRCUITS, ARTIFACT_SECRET},
        "UpdateItem": {JOB, CALLS},
    },
    "QueueFunction": {
        "GetItem": {JOB, REF, KEY, WEBHOOK_SECRET},
        "Query": {PROVIDER},
        "PutItem": {JOB, REF},
        "UpdateItem": {JOB, DELIVERIES},
    },
    "IntakeFunction": {"GetItem": {JOB, REF, KEY}, "Query": {PROVIDER}, "PutItem": {JOB, REF}},
    "WorkerFunction": {
        "GetItem": {JOB},
        "BatchGetItem": {CALLS},
        "Query": {CIRCUITS, PROVIDER},
        "PutItem": {JOB, CIRCUITS},
        "UpdateItem": {JOB, CALLS},
    },
    "StatusFunction": {
        "GetItem": {JOB, REF, KEY, ARTIFACT_SECRET},
        "BatchGetItem": {JOB, REF},
        "Query": {PROVIDER, LISTING},
        "PutItem": {ARTIFACT_SECRET},
    },
    "EventsFunction": {"GetItem": {JOB, KEY}},
    "FinishedFunction": {},
    "ReplyFunction": {
        "GetItem": {JOB, KEY, WEBHOOK_SECRET, ARTIFACT_SECRET},
        "PutItem": {ARTIFACT_SECRET},
        "UpdateItem": {JOB, DELIVERIES},
    },
    "SweepFunction": {"GetItem": {JOB}, "Query": {CIRCUITS}, "UpdateItem": {JOB}},
}
ACTIONS = ("GetItem", "BatchGetItem", "Query", "PutItem", "UpdateItem", "DeleteItem", "ConditionCheckItem")
ATTACKS = [(description, frozenset[str](), requests) for description, requests in DENIED_TO_ALL.items()]
ATTACKS += [
    (description, frozenset(functions), requests) for description, (functions, requests) in ALLOWED_ONLY_FOR.items()
]


@pytest.mark.parametrize(("allowed", "requests"), [row[1:] for row in ATTACKS], ids=[row[0] for row in ATTACKS])
def test_only_the_functions_that_need_a_permission_have_it(allowed: frozenset[str], requests: list[IamRequest]) -> None:
    assert {function for function in FUNCTIONS if not requests_denied(function, requests)} == allowed


@pytest.mark.parametrize("function", FUNCTIONS)
def test_function_may_access_only_its_partitions(function: str) -> None:
    attempts = {
        (action, partition): query(table, partition) if action == "Query" else item(action, table, partition)
        for table, partitions in PARTITIONS.items()
        for partition in partitions
        for action in ACTIONS
    }
    allowed = {attempt for attempt, requests in attempts.items() if not requests_denied(function, requests)}
    assert allowed == {(action, name) for action, names in ALLOWED_PARTITIONS[function].items() for name in names}


@pytest.mark.usefixtures("handlers_environment")
def test_calls_of_a_handler_are_recorded_and_denied_to_other_roles() -> None:
    with mock_aws():
        stack = MotoStack()
        stack.create()
        stack.put_key(example_key(), "example")
        stack.invoke("queue", event("queue"))
    recorded = {request for function, request in recorder.recorded if function == "QueueFunction"}
    assert {request.action for request in recorded} >= {"dynamodb:GetItem", "dynamodb:Query"}
    assert not requests_denied("QueueFunction", recorded)
    assert set(requests_denied("FinishedFunction", recorded)) == recorded


def test_request_unknown_to_iam_is_an_error_and_not_a_denial() -> None:
    with pytest.raises(ValueError, match="ChatFunction"):
        requests_denied("ChatFunction", of("dynamodb:ReadEverything", arn("JobsTable")))

"""What somebody would like who has taken a function over, and its role must not allow.

The other half, that a role allows all its function does, is checked in every test that runs a handler: tests/conftest.
"""

from typing import Any

import pytest

from local.template import REGION
from tests.iam.policies import ACCOUNT, BEDROCK_MODEL, arn
from tests.iam.requests import IamRequest, over_tls, requests_of
from tests.iam.simulator import IS_INSTALLED, denied
from tests.stack import FUNCTIONS

pytestmark = pytest.mark.skipif(not IS_INSTALLED, reason="IAM is simulated by Node.js 18 or newer, which is missing")

ANY_PROVIDER_KEY = f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/ai-prod/providers/openai/api.openai.com/api-key"
CALLS_PROVIDERS = ("ChatFunction", "WorkerFunction")
SIGNS = ("QueueFunction", "ReplyFunction")


def item(operation: str, table: str, partition: str, **params: Any) -> list[IamRequest]:
    key = {"pk": {"S": partition}, "sk": {"S": "x"}}
    where = {"Item": key} if operation == "PutItem" else {"Key": key}
    return requests_of("dynamodb", operation, {"TableName": table, **where, **params})


def query(table: str, partition: str) -> list[IamRequest]:
    values = {":pk": {"S": partition}}
    given = {"TableName": table, "KeyConditionExpression": "pk = :pk", "ExpressionAttributeValues": values}
    return requests_of("dynamodb", "Query", given)


def objects(operation: str, key: str | None) -> list[IamRequest]:
    return requests_of("s3", operation, {"Bucket": "bodiesbucket"} | ({"Key": key} if key else {}))


def queue(operation: str, name: str) -> list[IamRequest]:
    return requests_of("sqs", operation, {"QueueUrl": f"https://sqs.us-east-1.amazonaws.com/{ACCOUNT}/{name}"})


def without_tls(action: str, key: str) -> list[IamRequest]:
    return [IamRequest(action, f"{arn('BodiesBucket')}/{key}", over_tls(is_tls=False))]


def of(action: str, resource: str) -> list[IamRequest]:
    return [IamRequest(action, resource)]


# What no function may do at all.
FOR_NOBODY: dict[str, list[IamRequest]] = {
    "read all jobs": of("dynamodb:Scan", arn("JobsTable")),
    "read all of the configuration": of("dynamodb:Scan", arn("ConfigTable")),
    "list all keys": query("ConfigTable", "KEY"),
    "list all webhook secrets": query("ConfigTable", "WEBHOOK_SECRET"),
    "list the jobs of a partition": query("JobsTable", "JOB#1"),
    "create a key": item("PutItem", "ConfigTable", "KEY"),
    "extend a key": item("UpdateItem", "ConfigTable", "KEY"),
    "delete a key": item("DeleteItem", "ConfigTable", "KEY"),
    "replace a webhook secret": item("PutItem", "ConfigTable", "WEBHOOK_SECRET"),
    "redirect a provider": item("PutItem", "ConfigTable", "PROVIDER"),
    "change what a provider's models are": item("UpdateItem", "ConfigTable", "LISTING"),
    "delete a job": item("DeleteItem", "JobsTable", "JOB#1"),
    "delete the jobs table": of("dynamodb:DeleteTable", arn("JobsTable")),
    "delete the configuration": of("dynamodb:DeleteTable", arn("ConfigTable")),
    "lift the deletion protection": of("dynamodb:UpdateTable", arn("JobsTable")),
    "switch off the backups": of("dynamodb:UpdateContinuousBackups", arn("JobsTable")),
    "export the jobs": of("dynamodb:ExportTableToPointInTime", arn("JobsTable")),
    "read jobs by PartiQL": of("dynamodb:PartiQLSelect", arn("JobsTable")),
    "read keys by PartiQL": of("dynamodb:PartiQLSelect", arn("ConfigTable")),
    "delete an object": objects("DeleteObject", "jobs/1/request-1"),
    "write an object outside of jobs": objects("PutObject", "index.html"),
    "read an object outside of jobs": objects("GetObject", "backup/1"),
    "open the bucket to the public": of("s3:PutBucketPolicy", arn("BodiesBucket")),
    "take the public access block away": of("s3:PutBucketPublicAccessBlock", arn("BodiesBucket")),
    "delete the bucket": of("s3:DeleteBucket", arn("BodiesBucket")),
    "write a body without TLS": without_tls("s3:PutObject", "jobs/1/result-1"),
    "read a body without TLS": without_tls("s3:GetObject", "jobs/1/result-1"),
    "empty a queue": queue("PurgeQueue", "HostedQueue"),
    "delete a queue": queue("DeleteQueue", "CallbackQueue"),
    "open a queue to others": queue("AddPermission", "IntakeQueue"),
    "send to the intake in another's name": queue("SendMessage", "IntakeQueue"),
    "read dead letters": queue("ReceiveMessage", "HostedDeadLetterQueue"),
    "replace a provider's key": of("ssm:PutParameter", ANY_PROVIDER_KEY),
    "list parameters by path": of("ssm:GetParametersByPath", ANY_PROVIDER_KEY),
    "read another stack's parameter": of("ssm:GetParameters", ANY_PROVIDER_KEY.replace("/ai-prod/", "/billing/")),
    "read a parameter of a stack whose name begins alike": of(
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
    "give itself a policy": of("iam:PutRolePolicy", f"arn:aws:iam::{ACCOUNT}:role/ChatFunction"),
    "take another role": of("sts:AssumeRole", f"arn:aws:iam::{ACCOUNT}:role/admin"),
    "pass a role on": of("iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/admin"),
    "change the stack": of("cloudformation:UpdateStack", f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/ai-prod/1"),
    "publish to another event bus": of("events:PutEvents", f"arn:aws:events:{REGION}:{ACCOUNT}:event-bus/default"),
    "delete its log": of("logs:DeleteLogGroup", f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:ChatLogGroup:*"),
    "read a log": of("logs:GetLogEvents", f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:ChatLogGroup:log-stream:1"),
    "ask a model that is not listed": of("bedrock:InvokeModel", f"arn:aws:bedrock:{REGION}::foundation-model/other"),
}
# What only these functions may do.
ONLY_FOR: dict[str, tuple[tuple[str, ...], list[IamRequest]]] = {
    "read a webhook secret": (SIGNS, item("GetItem", "ConfigTable", "WEBHOOK_SECRET")),
    "read a key": (
        ("ChatFunction", "EventsFunction", "IntakeFunction", "QueueFunction", "ReplyFunction", "StatusFunction"),
        item("GetItem", "ConfigTable", "KEY"),
    ),
    "read where providers are": (
        (*CALLS_PROVIDERS, "IntakeFunction", "QueueFunction", "StatusFunction"),
        query("ConfigTable", "PROVIDER"),
    ),
    "read what models providers have": (("StatusFunction",), query("ConfigTable", "LISTING")),
    "read a provider's key": (CALLS_PROVIDERS, of("ssm:GetParameters", ANY_PROVIDER_KEY)),
    "ask a listed model": (
        CALLS_PROVIDERS,
        of("bedrock:InvokeModel", f"arn:aws:bedrock:{REGION}::foundation-model/{BEDROCK_MODEL}"),
    ),
    "open a circuit": (CALLS_PROVIDERS, item("PutItem", "JobsTable", "CIRCUITS")),
    "read circuits": ((*CALLS_PROVIDERS, "SweepFunction"), query("JobsTable", "CIRCUITS")),
    "take a provider's concurrency": (CALLS_PROVIDERS, item("UpdateItem", "JobsTable", "SLOTS#provider#p")),
    "take a receiver's concurrency": (SIGNS, item("UpdateItem", "JobsTable", "SLOTS#callbacks#k")),
    "write a job": (
        (*CALLS_PROVIDERS, "IntakeFunction", "QueueFunction"),
        item("PutItem", "JobsTable", "JOB#1"),
    ),
    "claim a RefId": (
        ("ChatFunction", "IntakeFunction", "QueueFunction"),
        item("PutItem", "JobsTable", "REF#owner#1"),
    ),
    "change a job's state": (
        ("QueueFunction", "SweepFunction", "WorkerFunction"),
        item("UpdateItem", "JobsTable", "JOB#1", UpdateExpression="SET deadline = :x"),
    ),
    "change a callback's state": (
        ("QueueFunction", "ReplyFunction", "SweepFunction", "WorkerFunction"),
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
        ("ChatFunction", "ReplyFunction", "StatusFunction"),
        objects("GetObject", "jobs/1/result-1"),
    ),
    "read a body by a service in the role's name": (
        ("ReplyFunction", "StatusFunction"),
        [IamRequest("s3:GetObject", f"{arn('BodiesBucket')}/jobs/1/result-1", over_tls(via_service=True))],
    ),
    "replace a request's body": (
        ("ChatFunction", "IntakeFunction", "QueueFunction"),
        objects("PutObject", "jobs/1/request-1"),
    ),
    "replace a result's body": (CALLS_PROVIDERS, objects("PutObject", "jobs/1/result-1")),
    "have a job worked on": (
        ("IntakeFunction", "QueueFunction", "SweepFunction", "WorkerFunction"),
        queue("SendMessage", "GpuQueue"),
    ),
    "take a job's message": (("WorkerFunction",), queue("ReceiveMessage", "HostedQueue")),
    "have a callback sent": (
        ("FinishedFunction", "QueueFunction", "ReplyFunction", "SweepFunction"),
        queue("SendMessage", "CallbackQueue"),
    ),
    "take a callback's message": (("ReplyFunction",), queue("DeleteMessage", "CallbackQueue")),
    "publish the end of a job": (("FinishedFunction",), of("events:PutEvents", arn("EventBus"))),
}
ATTACKS = [(words, frozenset[str](), requests) for words, requests in FOR_NOBODY.items()]
ATTACKS += [(words, frozenset(functions), requests) for words, (functions, requests) in ONLY_FOR.items()]


@pytest.mark.parametrize(("allowed", "requests"), [row[1:] for row in ATTACKS], ids=[row[0] for row in ATTACKS])
def test_only_the_functions_that_need_a_permission_have_it(allowed: frozenset[str], requests: list[IamRequest]) -> None:
    assert {function for function in FUNCTIONS if not denied(function, requests)} == allowed


def test_a_request_that_iam_does_not_know_is_not_taken_for_a_denied_one() -> None:
    with pytest.raises(ValueError, match="ChatFunction"):
        denied("ChatFunction", of("dynamodb:ReadEverything", arn("JobsTable")))

"""The IAM requests of an AWS call: actions, resources, and the values of condition keys.

Source: the Service Authorization Reference's pages on DynamoDB, S3, SQS, SSM and EventBridge, and DynamoDB's on
"specifying conditions" (LeadingKeys are partition keys, Attributes all top-level attributes in a request) and
"transactions" (each part needs the permission of its action).
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from local.template import REGION
from tests import stack
from tests.iam.policies import ACCOUNT, arn

TRANSACTION_ACTIONS = {
    "Put": "PutItem",
    "Update": "UpdateItem",
    "Delete": "DeleteItem",
    "ConditionCheck": "ConditionCheckItem",
}
INDEX_KEYS = {
    index["IndexName"]: index["KeySchema"][0]["AttributeName"]
    for index in stack.properties("JobsTable")["GlobalSecondaryIndexes"]
}
# Words of an expression that are not attribute names.
RESERVED = {"AND", "OR", "NOT", "IN", "BETWEEN", "SET", "REMOVE", "ADD", "DELETE"}
_IDENTIFIER = re.compile(r"(?<![:#\w])[A-Za-z_]\w*\b(?!\s*\()")
_PLACEHOLDER = re.compile(r"#\w+")
_EXPRESSIONS = (
    "KeyConditionExpression",
    "FilterExpression",
    "ConditionExpression",
    "UpdateExpression",
    "ProjectionExpression",
)
# Names of the template's resources in tests.
_TEST_NAMES = {
    "crash-job": "HostedQueue",
    "crash-callback": "CallbackQueue",
    "crash-bodies": "BodiesBucket",
    "bodiesbucket": "BodiesBucket",
    "crash-bus": "EventBus",
    "ai-prod": "EventBus",
}
_CRASH_TABLE = re.compile(r"crash-\d+")


@dataclass(frozen=True)
class IamRequest:
    """One IAM request. `context` contains condition keys with their values."""

    action: str
    resource: str
    context: tuple[tuple[str, tuple[str, ...]], ...] = ()


def requests_of(service: str, operation: str, params: Mapping[str, Any]) -> list[IamRequest]:
    """Return the IAM requests of a boto3 call. Raises: KeyError, for a service or operation that no function uses."""
    return list(_SERVICES[service](operation, params))


def _dynamodb(operation: str, params: Mapping[str, Any]) -> Iterator[IamRequest]:
    match operation:
        case "TransactWriteItems":
            for write in params["TransactItems"]:
                ((kind, part),) = write.items()
                yield from _dynamodb(TRANSACTION_ACTIONS[kind], part)
        case "BatchGetItem":
            for table, table_request in params["RequestItems"].items():
                yield _item_request(operation, table, table_request["Keys"], table_request)
        case "Query":
            yield _query(params)
        case "PutItem" | "GetItem" | "UpdateItem" | "DeleteItem" | "ConditionCheckItem":
            key = params.get("Key") or params["Item"]
            yield _item_request(operation, params["TableName"], [key], params)
        case _:  # Scan, DescribeTable, …: the request has no keys
            yield IamRequest(f"dynamodb:{operation}", arn(_logical(params["TableName"])))


def _query(params: Mapping[str, Any]) -> IamRequest:
    index = params.get("IndexName")
    name = INDEX_KEYS[index] if index else "pk"
    names = params.get("ExpressionAttributeNames", {})
    values = re.findall(r"(#?\w+)\s*=\s*(:\w+)", params["KeyConditionExpression"])
    (leading,) = (params["ExpressionAttributeValues"][v]["S"] for n, v in values if names.get(n, n) == name)
    resource = arn(_logical(params["TableName"])) + (f"/index/{index}" if index else "")
    return IamRequest("dynamodb:Query", resource, _context([leading], _attributes(params)))


def _item_request(operation: str, table: str, keys: list[Mapping[str, Any]], params: Mapping[str, Any]) -> IamRequest:
    attributes = {name for key in keys for name in key} | _attributes(params)
    context = _context([key["pk"]["S"] for key in keys], attributes)
    return IamRequest(f"dynamodb:{operation}", arn(_logical(table)), context)


def _attributes(params: Mapping[str, Any]) -> set[str]:
    """Return the top-level attributes in the expressions of a request."""
    names = params.get("ExpressionAttributeNames", {})
    attributes: set[str] = set()
    for expression in (params.get(name, "") for name in _EXPRESSIONS):
        attributes |= {names[placeholder] for placeholder in _PLACEHOLDER.findall(expression)}
        attributes |= set(_IDENTIFIER.findall(expression)) - RESERVED
    return attributes


def _context(leading: list[str], attributes: set[str]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    keys = sorted({_without_numbers(key) for key in leading})
    return ("dynamodb:LeadingKeys", tuple(keys)), ("dynamodb:Attributes", tuple(sorted(attributes)))


def _s3(operation: str, params: Mapping[str, Any]) -> Iterator[IamRequest]:
    action = {"HeadObject": "GetObject", "ListObjectsV2": "ListBucket"}.get(operation, operation)
    bucket = arn(_logical(params["Bucket"]))
    resource = f"{bucket}/{_without_numbers(params['Key'])}" if "Key" in params else bucket
    yield IamRequest(f"s3:{action}", resource, over_tls())
    if action == "GetObject" and "ResponseContentType" not in params:  # otherwise S3 returns 403 for a missing object
        yield IamRequest("s3:ListBucket", bucket, over_tls())


def over_tls(*, is_tls: bool = True, via_service: bool = False) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return the context of a request, over TLS or not, and by an AWS service on behalf of the role or not."""
    values = {"aws:SecureTransport": is_tls, "aws:ViaAWSService": via_service}
    return tuple((name, (str(value).lower(),)) for name, value in values.items())


def _sqs(operation: str, params: Mapping[str, Any]) -> Iterator[IamRequest]:
    yield IamRequest(f"sqs:{operation}", arn(_logical(params["QueueUrl"].rpartition("/")[2])))


def _ssm(operation: str, params: Mapping[str, Any]) -> Iterator[IamRequest]:
    for name in params.get("Names") or [params["Name"]]:
        yield IamRequest(f"ssm:{operation}", f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter{name}")


def _events(operation: str, params: Mapping[str, Any]) -> Iterator[IamRequest]:
    for entry in params["Entries"]:
        yield IamRequest(f"events:{operation}", arn(_logical(entry["EventBusName"])))


_SERVICES: dict[str, Callable[[str, Mapping[str, Any]], Iterator[IamRequest]]] = {
    "dynamodb": _dynamodb,
    "s3": _s3,
    "sqs": _sqs,
    "ssm": _ssm,
    "events": _events,
}


def _logical(name: str) -> str:
    """Return the logical id of a resource with this name in a test."""
    if _CRASH_TABLE.fullmatch(name):
        return "JobsTable"
    return _TEST_NAMES.get(name, name)


def _without_numbers(text: str) -> str:
    """Return a key with normalized job ids and tokens, so that it is evaluated once."""
    return re.sub(r"(?<=[#/-])[0-9a-f]+\b", "1", text)

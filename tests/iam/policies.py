"""The policies of template.yaml as they are in IAM after a deployment: every intrinsic function is resolved."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from local.template import REGION
from tests import stack

ACCOUNT = "123456789012"
BEDROCK_MODEL = "anthropic.claude-sonnet-4-5-20250929-v1:0"
PSEUDO = {
    "AWS::AccountId": ACCOUNT,
    "AWS::Partition": "aws",
    "AWS::Region": REGION,
    "AWS::StackName": "ai-prod",
}
_ARNS = {
    "AWS::DynamoDB::Table": f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/%s",
    "AWS::SQS::Queue": f"arn:aws:sqs:{REGION}:{ACCOUNT}:%s",
    "AWS::S3::Bucket": "arn:aws:s3:::%s",
    "AWS::Events::EventBus": f"arn:aws:events:{REGION}:{ACCOUNT}:event-bus/%s",
    "AWS::Logs::LogGroup": f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:%s:*",
}


def arn(logical_id: str) -> str:
    """Return the ARN of a resource; its name is its logical id (buckets and objects: in lower case)."""
    kind = stack.RESOURCES[logical_id]["Type"]
    return _ARNS[kind] % (logical_id.lower() if kind == "AWS::S3::Bucket" else logical_id)


@cache
def policies_of(function: str) -> tuple[dict[str, Any], ...]:
    """Return the policy documents of a function's role; conditional ones allow `BEDROCK_MODEL`."""
    role = stack.single_resource(stack.properties(function)["Role"])
    documents = [policy["PolicyDocument"] for policy in stack.properties(role)["Policies"]]
    attached = [
        policy["PolicyDocument"]
        for policy in stack.of_type("AWS::IAM::Policy").values()
        if role in stack.resources_in(policy["Roles"])
    ]
    return tuple(_resolve(document) for document in documents + attached)


def bucket_policy() -> dict[str, Any]:
    (policy,) = stack.of_type("AWS::S3::BucketPolicy").values()
    return _resolve(policy["PolicyDocument"])


def _resolve(value: Any) -> Any:
    if isinstance(value, list):
        return [_resolve(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    match list(value.items()):
        case [("Fn::GetAtt", argument)]:
            name, attribute = argument.split(".", 1) if isinstance(argument, str) else argument
            return _attribute(name, attribute)
        case [("Fn::Sub", text)]:
            return stack.SUBSTITUTION.sub(lambda match: _substitute(match[1]), text)
        case [("Ref", "BedrockModels")]:
            return [f"arn:aws:bedrock:{REGION}::foundation-model/{BEDROCK_MODEL}"]
        case _:
            return {key: _resolve(inner) for key, inner in value.items()}


def _substitute(name: str) -> str:
    logical_id, _, attribute = name.partition(".")
    return PSEUDO[name] if name in PSEUDO else _attribute(logical_id, attribute)


def _attribute(logical_id: str, attribute: str) -> str:
    if attribute == "StreamArn":
        return f"{arn(logical_id)}/stream/2026-01-01T00:00:00.000"
    if attribute != "Arn":
        raise NotImplementedError(f"{logical_id}.{attribute}")
    return arn(logical_id)

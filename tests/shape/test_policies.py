"""The form of policies: each wildcard has a reason, each role one function, and no permission is unused.

test_least_privilege simulates what they allow and deny.
"""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from types import SimpleNamespace
from typing import Any

import pytest

from aiserver.aws.bodies import MAX_ITEM_BODY_BYTES, BodyStore
from aiserver.jobs.job import attribute_name
from aiserver.jobs.transitions import TRANSITIONS
from tests import stack
from tests.contract.test_job_store import job
from tests.fakes import FakeClock
from tests.stack import FUNCTIONS

ROLES = stack.of_type("AWS::IAM::Role")
PARAMETERS_OF_THE_STACK = "arn:${AWS::Partition}:ssm:${AWS::Region}:${AWS::AccountId}:parameter/${AWS::StackName}/*"
ARTIFACTS = "${BodiesBucket.Arn}/artifacts/*"
# Every `*` in a policy and its reason. A Fn::Sub is represented by its text.
ALLOWED = {
    ("ChatRole", PARAMETERS_OF_THE_STACK): "providers' keys: the stack's own parameters, named at runtime",
    ("MediaRole", PARAMETERS_OF_THE_STACK): "providers' keys: the stack's own parameters, named at runtime",
    ("WorkerRole", PARAMETERS_OF_THE_STACK): "providers' keys: the stack's own parameters, named at runtime",
    ("ChatRole", "${BodiesBucket.Arn}/jobs/*"): "bodies, named by job",
    ("MediaRole", "${BodiesBucket.Arn}/jobs/*"): "bodies, named by job",
    ("MediaRole", ARTIFACTS): "files, named by their content",
    ("QueueRole", "${BodiesBucket.Arn}/jobs/*/request-*"): "requests, named by job",
    ("IntakeRole", "${BodiesBucket.Arn}/jobs/*/request-*"): "requests, named by job",
    ("WorkerRole", "${BodiesBucket.Arn}/jobs/*/request-*"): "requests, named by job",
    ("WorkerRole", "${BodiesBucket.Arn}/jobs/*/result-*"): "results, named by job",
    ("WorkerRole", ARTIFACTS): "files, named by their content",
    ("StatusRole", "${BodiesBucket.Arn}/jobs/*"): "bodies, named by job",
    ("StatusRole", ARTIFACTS): "files, named by their content",
    ("ReplyRole", "${BodiesBucket.Arn}/jobs/*/result-*"): "results, named by job; no requests",
    ("ReplyRole", ARTIFACTS): "files, named by their content",
    ("TracingPolicy", "*"): "X-Ray's write actions have no resources",
    ("BodiesBucketPolicy", "s3:*"): "a Deny: nothing without TLS",
    ("BodiesBucketPolicy", "${BodiesBucket.Arn}/*"): "a Deny: nothing without TLS",
}
SQS_ACTIONS = {"sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"}
STREAM_ACTIONS = {"dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator", "dynamodb:ListStreams"}


def statements() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every policy statement with its role or policy name."""
    for role, properties in ROLES.items():
        for policy in properties.get("Policies", []):
            yield from ((role, statement) for statement in policy["PolicyDocument"]["Statement"])
    for kind in ("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy", "AWS::S3::BucketPolicy", "AWS::SQS::QueuePolicy"):
        for name, properties in stack.of_type(kind).items():
            yield from ((name, statement) for statement in properties["PolicyDocument"]["Statement"])


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def text(value: Any) -> str:
    """Return an action or a resource as text; of the intrinsic functions only Fn::Sub can contain a `*`."""
    substituted = value.get("Fn::Sub", "") if isinstance(value, dict) else value
    return substituted[0] if isinstance(substituted, list) else substituted


def role_of(function: str) -> str:
    return stack.single_resource(stack.properties(function)["Role"])


def grants_of(role: str) -> Iterator[tuple[set[str], set[str]]]:
    """Yield the actions and resources of each statement of a role."""
    for owner, statement in statements():
        if owner == role:
            yield set(statement["Action"]), stack.resources_in(statement["Resource"])


def actions_on(role: str, resource: str) -> set[str]:
    return {action for actions, resources in grants_of(role) if resource in resources for action in actions}


def sources_of(function: str) -> list[dict[str, Any]]:
    sources = stack.of_type("AWS::Lambda::EventSourceMapping").values()
    return [source for source in sources if stack.single_resource(source["FunctionName"]) == function]


def test_every_wildcard_in_a_policy_has_a_reason() -> None:
    wild = {
        (owner, text(value))
        for owner, statement in statements()
        for value in as_list(statement["Action"]) + as_list(statement["Resource"])
        if "*" in text(value)
    }
    assert wild == set(ALLOWED)


def test_only_provider_functions_may_invoke_the_listed_bedrock_models() -> None:
    invoking = {"bedrock:InvokeModel", "bedrock:InvokeModelWithResponseStream"}
    bedrock_statements = [
        (owner, s) for owner, s in statements() if any(a.startswith("bedrock:") for a in as_list(s["Action"]))
    ]
    ((owner, statement),) = bedrock_statements
    assert set(statement["Action"]) == invoking
    assert stack.parameter(statement["Resource"]) == "BedrockModels"
    assert stack.resources_in(stack.properties(owner)["Roles"]) == {"ChatRole", "WorkerRole"}
    assert stack.RESOURCES[owner]["Condition"] == "AsksBedrock"
    assert stack.PARAMETERS["BedrockModels"]["Default"] == ""


def test_no_policy_uses_negated_elements() -> None:
    for _, statement in statements():
        assert not {"NotAction", "NotResource", "NotPrincipal"} & set(statement)


def test_every_role_belongs_to_one_function() -> None:
    assert sorted(role_of(function) for function in FUNCTIONS) == sorted(ROLES)


@pytest.mark.parametrize("role", ROLES)
def test_role_is_assumed_by_lambda_only_and_has_no_managed_policy(role: str) -> None:
    (trust_statement,) = ROLES[role]["AssumeRolePolicyDocument"]["Statement"]
    assert trust_statement["Principal"] == {"Service": ["lambda.amazonaws.com"]}
    assert not ROLES[role].get("ManagedPolicyArns")


@pytest.mark.parametrize("function", FUNCTIONS)
def test_function_may_access_only_its_configured_resources(function: str) -> None:
    configured = stack.resources_in(stack.variables(function)) | stack.resources_in(sources_of(function))
    configured |= stack.resources_in(stack.properties(function)["LoggingConfig"])
    accessible = {name for _, resources in grants_of(role_of(function)) for name in resources}
    apis = set(stack.of_type("AWS::ApiGateway::RestApi"))  # referenced only for its URL
    assert accessible == configured - {function} - apis


@pytest.mark.parametrize("function", FUNCTIONS)
def test_function_may_write_to_its_log_group(function: str) -> None:
    group = stack.single_resource(stack.properties(function)["LoggingConfig"]["LogGroup"])
    assert actions_on(role_of(function), group) == {"logs:CreateLogStream", "logs:PutLogEvents"}


@pytest.mark.parametrize("function", [f for f in FUNCTIONS if sources_of(f)])
def test_function_may_read_its_event_sources(function: str) -> None:
    for source in sources_of(function):
        needed = STREAM_ACTIONS if "StartingPosition" in source else SQS_ACTIONS
        assert actions_on(role_of(function), stack.single_resource(source["EventSourceArn"])) >= needed
        for destination in stack.resources_in(source.get("DestinationConfig", {})):
            assert actions_on(role_of(function), destination) == {"sqs:SendMessage"}


def test_reply_function_may_write_only_callback_fields_and_its_leases() -> None:
    """IAM allows exactly the attributes of its transitions and the partitions of its leases."""
    rows = [row for row in TRANSITIONS if row.writer == "reply"]
    fields = {condition.attribute for row in rows for condition in row.conditions}
    fields |= {name for row in rows for name in (*row.effects, *row.adds, *row.removes)}
    attributes = {"pk", "sk"} | {attribute_name(field) for field in fields}
    job_condition, lease_condition = (statement["Condition"] for statement in writes_of("ReplyRole"))
    assert job_condition["ForAllValues:StringLike"] == {"dynamodb:LeadingKeys": ["JOB#*"]}
    assert sorted(job_condition["ForAllValues:StringEquals"]["dynamodb:Attributes"]) == sorted(attributes)
    assert lease_condition == {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": ["SLOTS#callbacks#*"]}}


def test_reply_function_may_read_results_but_not_requests() -> None:
    puts: list[str] = []
    s3: Any = SimpleNamespace(put_object=lambda **params: puts.append(params["Key"]))  # pyright: ignore
    bodies = BodyStore("jobs", "bodies", None, s3)  # pyright: ignore
    for kind, content_type in (("request", None), ("result", None), ("result", "audio/mpeg")):
        bodies.put(job(FakeClock()), kind, "token", b"x" * (MAX_ITEM_BODY_BYTES + 1), content_type)
    patterns = [text.removeprefix("${BodiesBucket.Arn}/") for owner, text in ALLOWED if owner == "ReplyRole"]
    assert [any(fnmatchcase(key, pattern) for pattern in patterns) for key in puts] == [False, True, True]


def writes_of(role: str) -> list[dict[str, Any]]:
    return [
        statement for owner, statement in statements() if owner == role and "dynamodb:UpdateItem" in statement["Action"]
    ]


def test_roles_that_read_bodies_may_list_the_bucket() -> None:
    """Without that permission S3 returns 403 for a missing object."""
    bucket = {role: actions_on(role, "BodiesBucket") for role in ROLES}
    readers = {role for role, actions in bucket.items() if "s3:GetObject" in actions}
    assert readers == {role for role, actions in bucket.items() if "s3:ListBucket" in actions}


def test_functions_may_delete_only_their_messages() -> None:
    actions = {
        action
        for _, statement in statements()
        if statement["Effect"] == "Allow"
        for action in as_list(statement["Action"])
    }
    assert {action for action in actions if "Delete" in action} == {"sqs:DeleteMessage"}


def test_only_api_and_schedule_may_invoke_functions_by_their_source_arn() -> None:
    for permission in stack.of_type("AWS::Lambda::Permission").values():
        assert permission["Principal"] in ("apigateway.amazonaws.com", "events.amazonaws.com")
        assert permission["SourceArn"]

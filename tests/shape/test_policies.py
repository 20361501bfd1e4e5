"""The form of policies: no wildcard without a reason, no role for two, nothing a function has no use for.

What they allow and deny is simulated: test_least_privilege.
"""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from types import SimpleNamespace
from typing import Any

import pytest

from aiserver.aws.bodies import INLINE_BYTES, BodyStore
from aiserver.jobs.job import attribute_name
from aiserver.jobs.transitions import TRANSITIONS
from tests import stack
from tests.contract.test_job_store import job
from tests.fakes import FakeClock
from tests.stack import FUNCTIONS

ROLES = stack.of_type("AWS::IAM::Role")
PARAMETERS_OF_THE_STACK = "arn:${AWS::Partition}:ssm:${AWS::Region}:${AWS::AccountId}:parameter/${AWS::StackName}/*"
# Every `*` in a policy, and why it may stay. A Fn::Sub is told by its text.
ALLOWED = {
    ("ChatRole", PARAMETERS_OF_THE_STACK): "providers' keys: the stack's own parameters, named at runtime",
    ("WorkerRole", PARAMETERS_OF_THE_STACK): "providers' keys: the stack's own parameters, named at runtime",
    ("ChatRole", "${BodiesBucket.Arn}/jobs/*"): "bodies, named by job",
    ("QueueRole", "${BodiesBucket.Arn}/jobs/*/request-*"): "requests, named by job",
    ("IntakeRole", "${BodiesBucket.Arn}/jobs/*/request-*"): "requests, named by job",
    ("WorkerRole", "${BodiesBucket.Arn}/jobs/*/request-*"): "requests, named by job",
    ("WorkerRole", "${BodiesBucket.Arn}/jobs/*/result-*"): "results, named by job",
    ("StatusRole", "${BodiesBucket.Arn}/jobs/*"): "bodies, named by job",
    ("ReplyRole", "${BodiesBucket.Arn}/jobs/*/result-*"): "results, named by job; no requests",
    ("TracingPolicy", "*"): "X-Ray's write actions know no resources",
    ("BodiesBucketPolicy", "s3:*"): "a Deny: nothing without TLS",
    ("BodiesBucketPolicy", "${BodiesBucket.Arn}/*"): "a Deny: nothing without TLS",
}
BATCHES = {"sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"}
STREAMS = {"dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator", "dynamodb:ListStreams"}


def statements() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every statement of every policy, and whose it is."""
    for role, properties in ROLES.items():
        for policy in properties.get("Policies", []):
            yield from ((role, statement) for statement in policy["PolicyDocument"]["Statement"])
    for kind in ("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy", "AWS::S3::BucketPolicy", "AWS::SQS::QueuePolicy"):
        for name, properties in stack.of_type(kind).items():
            yield from ((name, statement) for statement in properties["PolicyDocument"]["Statement"])


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def text(value: Any) -> str:
    """An action or a resource as the template writes it; only a Fn::Sub, of what is not a string, can hold a `*`."""
    substituted = value.get("Fn::Sub", "") if isinstance(value, dict) else value
    return substituted[0] if isinstance(substituted, list) else substituted


def role_of(function: str) -> str:
    return stack.the_one(stack.properties(function)["Role"])


def granted(role: str) -> Iterator[tuple[set[str], set[str]]]:
    """The actions and resources of each of a role's statements."""
    for owner, statement in statements():
        if owner == role:
            yield set(statement["Action"]), stack.resources_in(statement["Resource"])


def actions_on(role: str, resource: str) -> set[str]:
    return {action for actions, resources in granted(role) if resource in resources for action in actions}


def sources_of(function: str) -> list[dict[str, Any]]:
    sources = stack.of_type("AWS::Lambda::EventSourceMapping").values()
    return [source for source in sources if stack.the_one(source["FunctionName"]) == function]


def test_every_wildcard_in_a_policy_has_a_reason_and_every_reason_a_wildcard() -> None:
    wild = {
        (owner, text(value))
        for owner, statement in statements()
        for value in listed(statement["Action"]) + listed(statement["Resource"])
        if "*" in text(value)
    }
    assert wild == set(ALLOWED)


def test_who_calls_providers_may_invoke_the_models_of_bedrock_that_are_named_and_nobody_else_any() -> None:
    invoking = {"bedrock:InvokeModel", "bedrock:InvokeModelWithResponseStream"}
    asked = [(owner, s) for owner, s in statements() if any(a.startswith("bedrock:") for a in listed(s["Action"]))]
    ((owner, statement),) = asked
    assert set(statement["Action"]) == invoking
    assert stack.parameter(statement["Resource"]) == "BedrockModels"
    assert stack.resources_in(stack.properties(owner)["Roles"]) == {"ChatRole", "WorkerRole"}
    assert stack.RESOURCES[owner]["Condition"] == "AsksBedrock"
    assert stack.PARAMETERS["BedrockModels"]["Default"] == ""


def test_no_policy_is_written_by_exception() -> None:
    for _, statement in statements():
        assert not {"NotAction", "NotResource", "NotPrincipal"} & set(statement)


def test_every_role_is_one_function_s_own() -> None:
    assert sorted(role_of(function) for function in FUNCTIONS) == sorted(ROLES)


@pytest.mark.parametrize("role", ROLES)
def test_a_role_is_lambda_s_to_take_and_has_no_policy_from_elsewhere(role: str) -> None:
    (trusted,) = ROLES[role]["AssumeRolePolicyDocument"]["Statement"]
    assert trusted["Principal"] == {"Service": ["lambda.amazonaws.com"]}
    assert not ROLES[role].get("ManagedPolicyArns")


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_may_touch_what_it_is_told_of_and_nothing_else(function: str) -> None:
    told = stack.resources_in(stack.variables(function)) | stack.resources_in(sources_of(function))
    told |= stack.resources_in(stack.properties(function)["LoggingConfig"])
    touched = {name for _, resources in granted(role_of(function)) for name in resources}
    apis = set(stack.of_type("AWS::ApiGateway::RestApi"))  # named for its address only
    assert touched == told - {function} - apis


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_may_write_its_own_log(function: str) -> None:
    group = stack.the_one(stack.properties(function)["LoggingConfig"]["LogGroup"])
    assert actions_on(role_of(function), group) == {"logs:CreateLogStream", "logs:PutLogEvents"}


@pytest.mark.parametrize("function", [f for f in FUNCTIONS if sources_of(f)])
def test_a_function_may_read_what_its_event_sources_poll(function: str) -> None:
    for source in sources_of(function):
        needed = STREAMS if "StartingPosition" in source else BATCHES
        assert actions_on(role_of(function), stack.the_one(source["EventSourceArn"])) >= needed
        for destination in stack.resources_in(source.get("DestinationConfig", {})):
            assert actions_on(role_of(function), destination) == {"sqs:SendMessage"}


def test_the_deliverer_of_callbacks_may_write_their_fields_its_slots_and_nothing_else() -> None:
    """What IAM allows is what its transitions and its slots name, so that neither can grow without the other."""
    mine = [row for row in TRANSITIONS if row.writer == "reply"]
    fields = {one.attribute for row in mine for one in row.conditions}
    fields |= {name for row in mine for name in (*row.effects, *row.adds, *row.removes)}
    touched = {"pk", "sk"} | {attribute_name(field) for field in fields}
    job, slots = (one["Condition"] for one in writes_of("ReplyRole"))
    assert job["ForAllValues:StringLike"] == {"dynamodb:LeadingKeys": ["JOB#*"]}
    assert sorted(job["ForAllValues:StringEquals"]["dynamodb:Attributes"]) == sorted(touched)
    assert slots == {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": ["SLOTS#callbacks#*"]}}


def test_what_the_deliverer_may_read_of_the_bucket_is_where_results_are_and_requests_are_not() -> None:
    puts: list[str] = []
    s3: Any = SimpleNamespace(put_object=lambda **told: puts.append(told["Key"]))  # pyright: ignore
    bodies = BodyStore("jobs", "bodies", None, s3)  # pyright: ignore
    for kind in ("request", "result"):
        bodies.put(job(FakeClock()), kind, "token", b"x" * (INLINE_BYTES + 1))
    (allowed,) = [text for owner, text in ALLOWED if owner == "ReplyRole"]
    pattern = allowed.removeprefix("${BodiesBucket.Arn}/")
    assert [fnmatchcase(key, pattern) for key in puts] == [False, True]


def writes_of(role: str) -> list[dict[str, Any]]:
    return [one for owner, one in statements() if owner == role and "dynamodb:UpdateItem" in one["Action"]]


def test_who_reads_bodies_may_list_them_or_else_s3_calls_what_is_gone_forbidden() -> None:
    bucket = {role: actions_on(role, "BodiesBucket") for role in ROLES}
    readers = {role for role, actions in bucket.items() if "s3:GetObject" in actions}
    assert readers == {role for role, actions in bucket.items() if "s3:ListBucket" in actions}


def test_no_function_may_delete_anything_but_its_own_messages() -> None:
    actions = {action for owner, one in statements() if one["Effect"] == "Allow" for action in listed(one["Action"])}
    assert {action for action in actions if "Delete" in action} == {"sqs:DeleteMessage"}


def test_only_api_and_schedule_may_invoke_functions_and_each_only_by_its_own_route() -> None:
    for permission in stack.of_type("AWS::Lambda::Permission").values():
        assert permission["Principal"] in ("apigateway.amazonaws.com", "events.amazonaws.com")
        assert permission["SourceArn"]

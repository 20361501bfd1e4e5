"""What no linter sees in template.yaml: functions, tables, bucket, and that everything named exists."""

import json
import re
import sys

import pytest
import yaml

import aiserver
from aiserver import http_api, settings
from local.template import REPOSITORY, resolved
from tests import stack
from tests.stack import FUNCTIONS, PARAMETERS, RESOURCES, TEMPLATE

MODELS = {
    "ChatFunction": settings.ChatSettings,
    "QueueFunction": settings.QueueSettings,
    "IntakeFunction": settings.IntakeSettings,
    "WorkerFunction": settings.WorkerSettings,
    "StatusFunction": settings.StatusSettings,
    "EventsFunction": settings.EventsSettings,
    "FinishedFunction": settings.FinishedSettings,
    "ReplyFunction": settings.ReplySettings,
    "SweepFunction": settings.SweepSettings,
}
# What Fn::GetAtt can ask of the types we ask it of: the return values in each type's CloudFormation page.
ATTRIBUTES = {
    "AWS::DynamoDB::Table": {"Arn", "StreamArn"},
    "AWS::Events::EventBus": {"Arn", "Name"},
    "AWS::Events::Rule": {"Arn"},
    "AWS::IAM::Role": {"Arn", "RoleId"},
    "AWS::Lambda::Function": {"Arn"},
    "AWS::Logs::LogGroup": {"Arn"},
    "AWS::S3::Bucket": {"Arn", "DomainName", "RegionalDomainName"},
    "AWS::SQS::Queue": {"Arn", "QueueName", "QueueUrl"},
}
TABLES = sorted(stack.of_type("AWS::DynamoDB::Table"))
BODIES = {"body", "request", "result", "error", "usage"}  # no index may copy what callers wrote or were answered
SECRET_LOOKING = re.compile(r"\b(sk-|ak-|gsk_|AKIA|ASIA|AIza|ghp_|whsec_|xox[abp]-)[A-Za-z0-9_-]{6,}")
SECRET_NAME = re.compile(r"secret|password|token|credential|api_?key", re.IGNORECASE)
TEXT = (REPOSITORY / "template.yaml").read_text()


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_handler_named_can_be_called(function: str) -> None:
    handler = stack.properties(function)["Handler"].rpartition(".")[2]
    assert callable(getattr(stack.module(function), handler))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_no_file_of_a_function_hides_a_standard_module_or_our_package(function: str) -> None:
    own = {path.stem for path in stack.folder(function).iterdir() if path.name != "__pycache__"}
    assert not own & (sys.stdlib_module_names | {"aiserver"})


@pytest.mark.parametrize("table", TABLES)
def test_a_table_is_protected_from_deletion_and_kept_with_its_backups(table: str) -> None:
    assert stack.properties(table)["DeletionProtectionEnabled"] is True
    assert stack.properties(table)["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert (RESOURCES[table]["DeletionPolicy"], RESOURCES[table]["UpdateReplacePolicy"]) == ("Retain", "Retain")


def test_the_stage_throttles_all_methods_as_its_parameters_say() -> None:
    (stage,) = stack.of_type("AWS::ApiGateway::Stage").values()
    assert stage["MethodSettings"] == [
        {
            "ResourcePath": "/*",
            "HttpMethod": "*",
            "ThrottlingRateLimit": {"Ref": "ApiRequestsPerSecond"},
            "ThrottlingBurstLimit": {"Ref": "ApiBurst"},
        }
    ]


@pytest.mark.parametrize(("access_log", "is_written"), [("false", False), ("true", True)])
def test_the_access_log_is_off_unless_asked_for_and_names_no_query(access_log: str, is_written: bool) -> None:
    (stage,) = stack.of_type("AWS::ApiGateway::Stage").values()
    setting = resolved(TEMPLATE, stage["AccessLogSetting"], {"AccessLog": access_log})
    assert (setting != {"Ref": "AWS::NoValue"}) is is_written
    assert RESOURCES["AccessLogGroup"]["Condition"] == "LogsAccess"
    if is_written:
        line = json.loads(setting["Format"])
        assert line["request_id"] == "$context.requestId"
        assert not [value for value in line.values() if "query" in value.lower() or "header" in value.lower()]


def test_the_template_never_changes_the_account_s_own_api_gateway_settings() -> None:
    assert not stack.of_type("AWS::ApiGateway::Account")


@pytest.mark.parametrize("function", FUNCTIONS)
def test_concurrency_is_reserved_only_where_a_parameter_says_so(function: str) -> None:
    name = function.removesuffix("Function")
    reserved = stack.properties(function).get("ReservedConcurrentExecutions")
    assert (reserved is None) is (f"{name}ReservedConcurrency" not in PARAMETERS)
    if reserved is None:
        return
    assert resolved(TEMPLATE, reserved, {}) == {"Ref": "AWS::NoValue"}
    for number in (0, 7):
        assert resolved(TEMPLATE, reserved, {f"{name}ReservedConcurrency": number}) == number


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_function_runs_on_python_3_13_and_arm64(function: str) -> None:
    properties = stack.properties(function)
    assert (properties["Runtime"], properties["Architectures"]) == ("python3.13", ["arm64"])


def test_every_layer_is_for_python_3_13_and_arm64() -> None:
    layers = stack.of_type("AWS::Lambda::LayerVersion")
    assert len(layers) == 2
    for layer in layers.values():
        assert (layer["CompatibleRuntimes"], layer["CompatibleArchitectures"]) == (["python3.13"], ["arm64"])


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_is_given_the_variables_it_reads_and_no_others(function: str) -> None:
    read = {name.upper() for name in MODELS[function].model_fields}
    assert {name for name in stack.variables(function) if not name.startswith(("POWERTOOLS_", "AWS_"))} == read


def test_what_lower_floors_log_comes_out_as_json_whatever_the_stack_is_called() -> None:
    assert http_api.logger.name == aiserver.__name__


def test_links_of_jobs_that_came_by_message_lead_to_the_address_the_stack_tells() -> None:
    told = TEMPLATE.transformed["Outputs"]["BaseUrl"]["Value"]
    assert stack.variables("IntakeFunction")["PUBLIC_BASE_URL"] == told


def test_every_function_logs_to_a_group_of_its_own_that_forgets() -> None:
    groups = {
        function: stack.the_one(stack.properties(function)["LoggingConfig"]["LogGroup"]) for function in FUNCTIONS
    }
    assert len(set(groups.values())) == len(FUNCTIONS)
    for group in groups.values():
        assert RESOURCES[group]["Type"] == "AWS::Logs::LogGroup"
        assert stack.number(stack.properties(group)["RetentionInDays"]) > 0


@pytest.mark.parametrize("table", TABLES)
def test_a_table_is_paid_by_the_request_can_be_restored_and_survives_the_stack(table: str) -> None:
    properties = stack.properties(table)
    assert properties["BillingMode"] == "PAY_PER_REQUEST"
    assert properties["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert RESOURCES[table]["DeletionPolicy"] == RESOURCES[table]["UpdateReplacePolicy"] == "Retain"


def test_the_jobs_table_streams_both_images_and_forgets_by_ttl() -> None:
    jobs = stack.properties("JobsTable")
    assert jobs["StreamSpecification"] == {"StreamViewType": "NEW_AND_OLD_IMAGES"}
    assert jobs["TimeToLiveSpecification"] == {"AttributeName": "ttl", "Enabled": True}


@pytest.mark.parametrize("table", TABLES)
def test_no_index_copies_a_body(table: str) -> None:
    for index in stack.properties(table).get("GlobalSecondaryIndexes", []):
        projection = index["Projection"]
        assert projection["ProjectionType"] in ("KEYS_ONLY", "INCLUDE")
        copied = set(projection.get("NonKeyAttributes", []))
        assert len(copied) <= 3
        assert not copied & BODIES


@pytest.mark.parametrize("table", TABLES)
def test_a_table_declares_just_the_attributes_its_keys_use(table: str) -> None:
    properties = stack.properties(table)
    schemas = [properties["KeySchema"], *(i["KeySchema"] for i in properties.get("GlobalSecondaryIndexes", []))]
    used = {key["AttributeName"] for schema in schemas for key in schema}
    assert {one["AttributeName"] for one in properties["AttributeDefinitions"]} == used


def test_the_bucket_is_private_encrypted_forgets_and_survives_the_stack() -> None:
    ((name, bucket),) = stack.of_type("AWS::S3::Bucket").items()
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert len(bucket["PublicAccessBlockConfiguration"]) == 4
    assert bucket["OwnershipControls"] == {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    assert bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    rules = [rule for rule in bucket["LifecycleConfiguration"]["Rules"] if rule["Status"] == "Enabled"]
    assert any(rule.get("ExpirationInDays") for rule in rules)
    assert any(rule.get("AbortIncompleteMultipartUpload") for rule in rules)
    assert RESOURCES[name]["DeletionPolicy"] == RESOURCES[name]["UpdateReplacePolicy"] == "Retain"


def test_the_bucket_forgets_no_body_before_its_job_may_end() -> None:
    from aiserver.usecases.enqueue import MAX_DEADLINE_S

    (bucket,) = stack.of_type("AWS::S3::Bucket").values()
    (days,) = [r["ExpirationInDays"] for r in bucket["LifecycleConfiguration"]["Rules"]]
    assert days * 86_400 > MAX_DEADLINE_S
    assert days > int(PARAMETERS["SettledJobDays"]["MaxValue"])


def test_everything_referred_to_exists() -> None:
    conditions = TEMPLATE.transformed["Conditions"]
    for name, attribute in stack.references([RESOURCES, TEMPLATE.transformed["Outputs"], conditions]):
        if attribute is None:
            assert name in RESOURCES or name in PARAMETERS or name.startswith("AWS::"), name
        else:
            assert attribute in ATTRIBUTES[RESOURCES[name]["Type"]], f"{name}.{attribute}"
            assert attribute != "StreamArn" or "StreamSpecification" in stack.properties(name)


def test_every_condition_named_exists() -> None:
    named = {resource["Condition"] for resource in RESOURCES.values() if "Condition" in resource}
    named |= {chosen[0] for chosen in _values_of("Fn::If", TEMPLATE.transformed)}
    assert named == set(TEMPLATE.transformed["Conditions"])


def test_every_parameter_is_used() -> None:
    source = {key: part for key, part in TEMPLATE.source.items() if key != "Parameters"}
    assert {name for name, _ in stack.references(source)} >= set(PARAMETERS)


def test_every_parameter_has_a_default_so_that_deploying_asks_nothing() -> None:
    assert [name for name, one in PARAMETERS.items() if "Default" not in one] == []


def test_the_template_holds_no_yaml_alias_which_cloudformation_refuses() -> None:
    tokens = yaml.scan(TEXT)
    assert not [token for token in tokens if isinstance(token, yaml.AliasToken | yaml.AnchorToken)]


def test_the_template_holds_nothing_that_looks_like_a_secret() -> None:
    assert not SECRET_LOOKING.search(TEXT)
    named = set(PARAMETERS) | {name for function in FUNCTIONS for name in stack.variables(function)}
    assert not [name for name in named if SECRET_NAME.search(name)]


def test_only_a_parameter_that_says_it_is_unsafe_turns_the_rules_of_reply_to_off() -> None:
    """Whatever reads the rules reads them from the one variable, and that is the parameter's alone."""
    told = {name: stack.variables(name).get("UNSAFE_CALLBACKS") for name in FUNCTIONS}
    assert {name for name, value in told.items() if value is not None} == {
        "QueueFunction",
        "IntakeFunction",
        "ReplyFunction",
    }
    assert {stack.parameter(value) for value in told.values() if value} == {"UnsafeAllowAnyCallbackAddress"}
    unsafe = PARAMETERS["UnsafeAllowAnyCallbackAddress"]
    assert (unsafe["Default"], unsafe["AllowedValues"]) == ("false", ["false", "true"])
    assert unsafe["Description"].startswith("UNSAFE")


def test_a_receiver_that_hangs_leaves_most_deliveries_to_others() -> None:
    (source,) = [one for one in stack.of_type("AWS::Lambda::EventSourceMapping").values() if "Callback" in str(one)]
    places = stack.number(source["ScalingConfig"]["MaximumConcurrency"]) * source["BatchSize"]
    assert stack.number(stack.variables("ReplyFunction")["CALLBACKS_PER_RECEIVER"]) <= places / 4


def _values_of(key: str, value: object) -> list[list[str]]:
    if isinstance(value, dict):
        return [*([value[key]] if key in value else []), *(f for v in value.values() for f in _values_of(key, v))]
    return [found for item in value for found in _values_of(key, item)] if isinstance(value, list) else []

"""template.yaml, beyond linters: functions, tables, bucket, and every referenced name exists."""

import json
import re
import sys

import pytest
import yaml

import aiserver
from aiserver import http_api, settings
from aiserver.jobs.job import FILE_PREFIX
from local.template import REPOSITORY, resolve
from tests import stack
from tests.stack import FUNCTIONS, PARAMETERS, RESOURCES, TEMPLATE

MODELS = {
    "ChatFunction": settings.ChatSettings,
    "MediaFunction": settings.MediaSettings,
    "QueueFunction": settings.QueueSettings,
    "IntakeFunction": settings.IntakeSettings,
    "WorkerFunction": settings.WorkerSettings,
    "StatusFunction": settings.StatusSettings,
    "EventsFunction": settings.EventsSettings,
    "FinishedFunction": settings.FinishedSettings,
    "ReplyFunction": settings.ReplySettings,
    "SweepFunction": settings.SweepSettings,
}
# The attributes for Fn::GetAtt of the types used here, from the return values in each type's CloudFormation page.
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
BODIES = {"body", "request", "result", "error", "usage"}  # no index may copy request or response content
SECRET_LOOKING = re.compile(r"\b(sk-|ak-|gsk_|AKIA|ASIA|AIza|ghp_|whsec_|xox[abp]-)[A-Za-z0-9_-]{6,}")
SECRET_NAME = re.compile(r"secret|password|token|credential|api_?key", re.IGNORECASE)
TEXT = (REPOSITORY / "template.yaml").read_text()


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_configured_handler_is_callable(function: str) -> None:
    handler = stack.properties(function)["Handler"].rpartition(".")[2]
    assert callable(getattr(stack.module(function), handler))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_no_function_file_shadows_a_standard_module_or_the_package(function: str) -> None:
    modules = {path.stem for path in stack.folder(function).iterdir() if path.name != "__pycache__"}
    assert not modules & (sys.stdlib_module_names | {"aiserver"})


@pytest.mark.parametrize("table", TABLES)
def test_table_is_protected_from_deletion_and_has_backups(table: str) -> None:
    assert stack.properties(table)["DeletionProtectionEnabled"] is True
    assert stack.properties(table)["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert (RESOURCES[table]["DeletionPolicy"], RESOURCES[table]["UpdateReplacePolicy"]) == ("Retain", "Retain")


def test_stage_throttles_all_methods_by_its_parameters() -> None:
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
def test_access_log_is_off_by_default_and_contains_no_query(access_log: str, is_written: bool) -> None:
    (stage,) = stack.of_type("AWS::ApiGateway::Stage").values()
    setting = resolve(TEMPLATE, stage["AccessLogSetting"], {"AccessLog": access_log})
    assert (setting != {"Ref": "AWS::NoValue"}) is is_written
    assert RESOURCES["AccessLogGroup"]["Condition"] == "LogsAccess"
    if is_written:
        line = json.loads(setting["Format"])
        assert line["request_id"] == "$context.requestId"
        assert not [value for value in line.values() if "query" in value.lower() or "header" in value.lower()]


def test_template_does_not_change_the_account_s_api_gateway_settings() -> None:
    assert not stack.of_type("AWS::ApiGateway::Account")


@pytest.mark.parametrize("function", FUNCTIONS)
def test_concurrency_is_reserved_only_by_a_parameter(function: str) -> None:
    name = function.removesuffix("Function")
    reserved = stack.properties(function).get("ReservedConcurrentExecutions")
    assert (reserved is None) is (f"{name}ReservedConcurrency" not in PARAMETERS)
    if reserved is None:
        return
    assert resolve(TEMPLATE, reserved, {}) == {"Ref": "AWS::NoValue"}
    for number in (0, 7):
        assert resolve(TEMPLATE, reserved, {f"{name}ReservedConcurrency": number}) == number


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
def test_function_has_exactly_the_variables_it_reads(function: str) -> None:
    variables_read = {name.upper() for name in MODELS[function].model_fields}
    assert {
        name for name in stack.variables(function) if not name.startswith(("POWERTOOLS_", "AWS_"))
    } == variables_read


def test_lower_layers_log_json_under_any_stack_name() -> None:
    assert http_api.logger.name == aiserver.__name__


def test_links_of_intake_jobs_use_the_base_url_of_the_stack() -> None:
    base_url = TEMPLATE.transformed["Outputs"]["BaseUrl"]["Value"]
    assert stack.variables("IntakeFunction")["PUBLIC_BASE_URL"] == base_url


def test_every_function_has_a_log_group_with_a_retention_time() -> None:
    groups = {
        function: stack.single_resource(stack.properties(function)["LoggingConfig"]["LogGroup"])
        for function in FUNCTIONS
    }
    assert len(set(groups.values())) == len(FUNCTIONS)
    for group in groups.values():
        assert RESOURCES[group]["Type"] == "AWS::Logs::LogGroup"
        assert stack.number(stack.properties(group)["RetentionInDays"]) > 0


@pytest.mark.parametrize("table", TABLES)
def test_table_is_on_demand_restorable_and_survives_the_stack(table: str) -> None:
    properties = stack.properties(table)
    assert properties["BillingMode"] == "PAY_PER_REQUEST"
    assert properties["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert RESOURCES[table]["DeletionPolicy"] == RESOURCES[table]["UpdateReplacePolicy"] == "Retain"


def test_jobs_table_streams_both_images_and_has_a_ttl() -> None:
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
def test_table_declares_exactly_the_attributes_of_its_keys(table: str) -> None:
    properties = stack.properties(table)
    schemas = [properties["KeySchema"], *(i["KeySchema"] for i in properties.get("GlobalSecondaryIndexes", []))]
    key_attributes = {key["AttributeName"] for schema in schemas for key in schema}
    assert {definition["AttributeName"] for definition in properties["AttributeDefinitions"]} == key_attributes


def test_bucket_is_private_encrypted_expires_and_survives_the_stack() -> None:
    ((name, bucket),) = stack.of_type("AWS::S3::Bucket").items()
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert len(bucket["PublicAccessBlockConfiguration"]) == 4
    assert bucket["OwnershipControls"] == {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    assert bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    rules = [rule for rule in bucket["LifecycleConfiguration"]["Rules"] if rule["Status"] == "Enabled"]
    assert any(rule.get("ExpirationInDays") for rule in rules)
    assert any(rule.get("AbortIncompleteMultipartUpload") for rule in rules)
    assert RESOURCES[name]["DeletionPolicy"] == RESOURCES[name]["UpdateReplacePolicy"] == "Retain"


def test_bucket_expires_no_body_before_its_job_may_end() -> None:
    from aiserver.usecases.enqueue import MAX_DEADLINE_S

    (bucket,) = stack.of_type("AWS::S3::Bucket").values()
    rules = {rule.get("Prefix"): rule["ExpirationInDays"] for rule in bucket["LifecycleConfiguration"]["Rules"]}
    assert rules.keys() == {None, FILE_PREFIX}
    assert rules[None] * 86_400 > MAX_DEADLINE_S
    assert rules[None] > int(PARAMETERS["SettledJobDays"]["MaxValue"])
    assert stack.parameter(rules[FILE_PREFIX]) == "ArtifactDays"
    assert int(PARAMETERS["ArtifactDays"]["MaxValue"]) <= rules[None]  # the rule for all objects also applies to files


def test_every_reference_exists() -> None:
    conditions = TEMPLATE.transformed["Conditions"]
    for name, attribute in stack.references([RESOURCES, TEMPLATE.transformed["Outputs"], conditions]):
        if attribute is None:
            assert name in RESOURCES or name in PARAMETERS or name.startswith("AWS::"), name
        else:
            assert attribute in ATTRIBUTES[RESOURCES[name]["Type"]], f"{name}.{attribute}"
            assert attribute != "StreamArn" or "StreamSpecification" in stack.properties(name)


def test_every_condition_exists_and_is_used() -> None:
    conditions = {resource["Condition"] for resource in RESOURCES.values() if "Condition" in resource}
    conditions |= {arguments[0] for arguments in _values_of("Fn::If", TEMPLATE.transformed)}
    assert conditions == set(TEMPLATE.transformed["Conditions"])


def test_every_parameter_is_used() -> None:
    source = {key: part for key, part in TEMPLATE.source.items() if key != "Parameters"}
    assert {name for name, _ in stack.references(source)} >= set(PARAMETERS)


def test_every_parameter_has_a_default() -> None:
    assert [name for name, parameter in PARAMETERS.items() if "Default" not in parameter] == []


def test_template_has_no_yaml_alias() -> None:
    """CloudFormation rejects aliases."""
    tokens = yaml.scan(TEXT)
    assert not [token for token in tokens if isinstance(token, yaml.AliasToken | yaml.AnchorToken)]


def test_template_contains_nothing_that_looks_like_a_secret() -> None:
    assert not SECRET_LOOKING.search(TEXT)
    names = set(PARAMETERS) | {name for function in FUNCTIONS for name in stack.variables(function)}
    assert not [name for name in names if SECRET_NAME.search(name)]


def test_only_the_unsafe_parameter_disables_the_callback_url_rules() -> None:
    """All readers of the rules use one variable, and only that parameter sets it."""
    variables = {name: stack.variables(name).get("UNSAFE_CALLBACKS") for name in FUNCTIONS}
    assert {name for name, value in variables.items() if value is not None} == {
        "QueueFunction",
        "IntakeFunction",
        "ReplyFunction",
    }
    assert {stack.parameter(value) for value in variables.values() if value} == {"UnsafeAllowAnyCallbackAddress"}
    unsafe = PARAMETERS["UnsafeAllowAnyCallbackAddress"]
    assert (unsafe["Default"], unsafe["AllowedValues"]) == ("false", ["false", "true"])
    assert unsafe["Description"].startswith("UNSAFE")


def test_hanging_receiver_leaves_most_deliveries_to_others() -> None:
    (source,) = [s for s in stack.of_type("AWS::Lambda::EventSourceMapping").values() if "Callback" in str(s)]
    deliveries = stack.number(source["ScalingConfig"]["MaximumConcurrency"]) * source["BatchSize"]
    assert stack.number(stack.variables("ReplyFunction")["CALLBACKS_PER_RECEIVER"]) <= deliveries / 4


def _values_of(key: str, value: object) -> list[list[str]]:
    if isinstance(value, dict):
        return [*([value[key]] if key in value else []), *(f for v in value.values() for f in _values_of(key, v))]
    return [argument for item in value for argument in _values_of(key, item)] if isinstance(value, list) else []

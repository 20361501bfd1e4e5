"""The API, beyond linters: its routes are those of the code, and API Gateway's own responses have our error format."""

import json
import re
from collections import Counter
from fnmatch import fnmatchcase
from typing import Any

import pytest

from aiserver import errors
from aiserver.http_api import canonical_name
from local import template
from local.template import REPOSITORY
from tests import stack
from tests.stack import FUNCTIONS, TEMPLATE

ROUTES = template.routes(TEMPLATE)
RESPONSES = template.gateway_responses(TEMPLATE)
API_FUNCTIONS = sorted({route.function for route in ROUTES})
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
# The characters of a path part:
# https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-basic-concept.html
PART = re.compile(r"[A-Za-z0-9._:-]+|\{[a-z]+\+?\}")
API_LIMIT_S = 29
STREAM_LIMIT_S = 900
STREAMING = {"ChatFunction", "MediaFunction", "EventsFunction"}
BUFFERED = {"ResponseMode": "BUFFERED"}
PERMISSION_BYTES = 400  # of one statement in a function's resource policy, estimated
# Below the quota of 20,480 bytes: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
MAX_POLICY_BYTES = 16 * 1024
(API,) = (api["Body"] for api in stack.of_type("AWS::ApiGateway::RestApi").values())
PERMISSIONS = list(stack.of_type("AWS::Lambda::Permission").values())
# The gateway error of each of API Gateway's own responses.
ERRORS = {
    "UNAUTHORIZED": errors.Unauthorized,
    "ACCESS_DENIED": errors.Forbidden,
    "MISSING_AUTHENTICATION_TOKEN": errors.NotFound,
    "REQUEST_TOO_LARGE": errors.PayloadTooLarge,
    "THROTTLED": errors.TooManyRequests,
    "INTEGRATION_TIMEOUT": errors.ProviderTimeout,
    "DEFAULT_4XX": errors.InvalidRequest,
    "DEFAULT_5XX": errors.AiServerError,
}
CONTEXT = {"$context.error.messageString": '"Say \\"please\\""', "$context.requestId": "5c1e-42"}


@pytest.mark.parametrize("function", API_FUNCTIONS)
def test_routes_of_a_function_in_the_api_are_those_of_its_code(function: str) -> None:
    api_routes = {
        (route.method, route.path) for route in ROUTES if route.function == function and route.method != "OPTIONS"
    }
    assert api_routes == set(stack.module(function).ROUTES)


def test_every_path_has_an_options_route_for_browsers() -> None:
    paths = {route.path for route in ROUTES}
    assert {route.path for route in ROUTES if route.method == "OPTIONS"} == paths


def test_methods_are_listed_one_by_one() -> None:
    assert {route.method for route in ROUTES} <= METHODS


@pytest.mark.parametrize("path", sorted({route.path for route in ROUTES}))
def test_path_contains_only_what_api_gateway_accepts(path: str) -> None:
    parts = path.removeprefix("/").split("/")
    assert all(PART.fullmatch(part) for part in parts)
    assert not any("+" in part for part in parts[:-1])


def test_path_position_has_at_most_one_variable_name() -> None:
    variables: dict[str, set[str]] = {}
    for route in ROUTES:
        parts = route.path.split("/")
        for index, part in enumerate(parts):
            if part.startswith("{"):
                variables.setdefault("/".join(parts[:index]), set()).add(part)
    assert {prefix: names for prefix, names in variables.items() if len(names) > 1} == {}


def test_stage_is_not_named_like_an_api_version() -> None:
    assert template.stage(TEMPLATE) != "v1"


def test_routes_of_a_function_all_stream_or_none_except_preflights() -> None:
    assert {route.function for route in ROUTES if route.is_streamed} == STREAMING
    for route in ROUTES:
        assert route.is_streamed == (route.function in STREAMING), route
        assert route.timeout_s == (STREAM_LIMIT_S if route.is_streamed else API_LIMIT_S), route
    assert not any(route.is_streamed for route in ROUTES if route.method == "OPTIONS")


def test_buffered_api_has_the_same_routes_without_streaming() -> None:
    buffered = template.routes(TEMPLATE, BUFFERED)
    assert not any(route.is_streamed for route in buffered)
    assert {route.timeout_s for route in buffered} == {API_LIMIT_S}
    assert [(r.method, r.path, r.function) for r in buffered] == [(r.method, r.path, r.function) for r in ROUTES]


def test_streaming_route_sets_both_streaming_properties() -> None:
    """One alone deploys and fails at the first call."""
    for methods in API["paths"].values():
        for operation in methods.values():
            integration = operation["x-amazon-apigateway-integration"]
            for parameters in ({}, BUFFERED):
                uri = template.resolve(TEMPLATE, integration["uri"], parameters)["Fn::Sub"]
                mode = template.resolve(TEMPLATE, integration.get("responseTransferMode", "BUFFERED"), parameters)
                assert (mode == "STREAM") == uri.endswith("/response-streaming-invocations")
                assert uri.endswith(("/response-streaming-invocations", "/invocations"))


@pytest.mark.parametrize("function", sorted(STREAMING))
def test_streaming_function_uses_the_gateway_s_runtime_client(function: str) -> None:
    properties = stack.properties(function)
    wrapper = properties["Environment"]["Variables"]["AWS_LAMBDA_EXEC_WRAPPER"]
    file = REPOSITORY / "layers/aiserver" / template.resolve(TEMPLATE, wrapper, {}).removeprefix("/opt/")
    assert file.read_bytes().startswith(b"#!/bin/bash\n")
    assert b"\r" not in file.read_bytes()
    assert file.stat().st_mode & 0o777 == 0o755
    assert template.resolve(TEMPLATE, wrapper, BUFFERED) == {"Ref": "AWS::NoValue"}
    streams = properties["Environment"]["Variables"]["STREAMS"]
    assert [template.resolve(TEMPLATE, streams, parameters) for parameters in ({}, BUFFERED)] == ["true", "false"]


@pytest.mark.parametrize("function", sorted(STREAMING))
def test_api_may_invoke_a_streaming_function(function: str) -> None:
    (permission,) = [p for p in PERMISSIONS if stack.resources_in(p["FunctionName"]) == {function}]
    assert (permission["Action"], permission["Principal"]) == ("lambda:InvokeFunction", "apigateway.amazonaws.com")
    assert "Api" in stack.resources_in(permission["SourceArn"])


def method_and_path(permission: Any) -> str | None:
    """The method and path of the API that may invoke the function, with `*`; None for another source."""
    if "Api" not in stack.resources_in(permission["SourceArn"]):
        return None
    source = permission["SourceArn"]["Fn::Sub"]
    arn = source if isinstance(source, str) else source[0]
    return arn.partition(":${AWS::AccountId}:")[2].split("/", 2)[2]


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_api_may_invoke_the_function_of_every_route(route: template.Route) -> None:
    patterns = [method_and_path(p) for p in PERMISSIONS if stack.resources_in(p["FunctionName"]) == {route.function}]
    request = f"{route.method}{re.sub('{[^}]+}', 'x', route.path)}"
    assert any(fnmatchcase(request, pattern) for pattern in patterns if pattern)


def test_options_routes_of_a_function_share_one_permission() -> None:
    functions = Counter(stack.single_resource(p["FunctionName"]) for p in PERMISSIONS if is_preflight(p))
    assert functions == {route.function: 1 for route in ROUTES if route.method == "OPTIONS"}


def is_preflight(permission: Any) -> bool:
    return (method_and_path(permission) or "").startswith("OPTIONS/")


@pytest.mark.parametrize("function", FUNCTIONS)
def test_resource_policy_of_a_function_is_below_the_quota(function: str) -> None:
    count = sum(stack.resources_in(permission["FunctionName"]) == {function} for permission in PERMISSIONS)
    assert count * PERMISSION_BYTES <= MAX_POLICY_BYTES


def test_only_forms_are_a_binary_media_type() -> None:
    """The property has CloudFormation's spelling, with `~1` for `/`."""
    assert TEMPLATE.source["Resources"]["Api"]["Properties"]["BinaryMediaTypes"] == ["multipart~1form-data"]
    assert API["x-amazon-apigateway-binary-media-types"] == ["multipart/form-data"]
    assert {route.binary_media_types for route in ROUTES} == {("multipart/form-data",)}


def test_changed_parameter_redeploys_the_stage() -> None:
    """SAM creates a deployment only if the literal body changes, and a parameter does not change it."""
    assert TEMPLATE.source["Resources"]["Api"]["Properties"]["AlwaysDeploy"] is True


@pytest.mark.parametrize("parameters", [{}, BUFFERED])
@pytest.mark.parametrize("function", API_FUNCTIONS)
def test_function_timeout_does_not_exceed_the_api_timeout(function: str, parameters: dict[str, str]) -> None:
    limit_s = STREAM_LIMIT_S if function in STREAMING and not parameters else API_LIMIT_S
    assert template.resolve(TEMPLATE, stack.properties(function)["Timeout"], parameters) <= limit_s


def test_api_gateway_responses_cover_all_cases_outside_the_code() -> None:
    assert set(RESPONSES) == set(ERRORS)


@pytest.mark.parametrize("kind", ERRORS)
def test_api_gateway_response_has_the_error_body_of_the_code(kind: str) -> None:
    (body,) = RESPONSES[kind].templates.values()
    for name, value in CONTEXT.items():
        body = body.replace(name, value)
    assert "$" not in body
    document, error = json.loads(body), ERRORS[kind]
    assert set(document) == {"responseStatus", "error"}
    assert document["responseStatus"]["errorCode"] == error.error_code
    assert (document["responseStatus"]["errors"], document["responseStatus"]["meta"]) == ([], {})
    assert (document["error"]["type"], document["error"]["code"]) == (error.type, error.code)
    assert document["responseStatus"]["message"] == document["error"]["message"]


@pytest.mark.parametrize("kind", ERRORS)
def test_api_gateway_response_has_the_status_of_the_code(kind: str) -> None:
    assert RESPONSES[kind].status == (None if kind.startswith("DEFAULT") else ERRORS[kind].status)


@pytest.mark.parametrize("kind", ERRORS)
def test_browser_may_read_the_api_gateway_response(kind: str) -> None:
    headers = RESPONSES[kind].headers
    assert headers["Access-Control-Allow-Origin"] == "method.request.header.origin"
    assert headers["Vary"] == "'Origin'"
    assert headers["X-Content-Type-Options"] == "'nosniff'"


@pytest.mark.parametrize("kind", ERRORS)
def test_header_names_of_api_gateway_responses_are_canonical(kind: str) -> None:
    names = list(RESPONSES[kind].headers)
    assert names == [canonical_name(name) for name in names]


def test_official_clients_do_not_retry_an_integration_timeout() -> None:
    assert RESPONSES["INTEGRATION_TIMEOUT"].headers["X-Should-Retry"] == "'false'"
    assert RESPONSES["THROTTLED"].headers["Retry-After"] == "'1'"

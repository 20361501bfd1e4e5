"""What no linter sees of the API: that its routes are the code's, and that its own answers speak our error shape."""

import json
import re

import pytest

from aiserver import errors
from aiserver.http_api import canonical_name
from local import template
from local.template import REPOSITORY
from tests import stack
from tests.stack import TEMPLATE

ROUTES = template.routes(TEMPLATE)
RESPONSES = template.gateway_responses(TEMPLATE)
API_FUNCTIONS = sorted({route.function for route in ROUTES})
METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
# https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-basic-concept.html names what a part may hold
PART = re.compile(r"[A-Za-z0-9._:-]+|\{[a-z]+\+?\}")
API_LIMIT_S = 29
STREAM_LIMIT_S = 900
STREAMING = {"ChatFunction", "EventsFunction"}
BUFFERED = {"ResponseMode": "BUFFERED"}
(API,) = (api["Body"] for api in stack.of_type("AWS::ApiGateway::RestApi").values())
# Which error of ours each of API Gateway's own answers is.
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
def test_the_api_sends_a_function_just_the_routes_its_code_has(function: str) -> None:
    sent = {(route.method, route.path) for route in ROUTES if route.function == function and route.method != "OPTIONS"}
    assert sent == set(stack.module(function).ROUTES)


def test_every_path_answers_options_so_that_browsers_may_ask() -> None:
    paths = {route.path for route in ROUTES}
    assert {route.path for route in ROUTES if route.method == "OPTIONS"} == paths


def test_methods_are_listed_one_by_one() -> None:
    assert {route.method for route in ROUTES} <= METHODS


@pytest.mark.parametrize("path", sorted({route.path for route in ROUTES}))
def test_a_path_holds_only_what_api_gateway_accepts(path: str) -> None:
    parts = path.removeprefix("/").split("/")
    assert all(PART.fullmatch(part) for part in parts)
    assert not any("+" in part for part in parts[:-1])


def test_no_two_path_variables_stand_at_one_place() -> None:
    variables: dict[str, set[str]] = {}
    for route in ROUTES:
        parts = route.path.split("/")
        for at, part in enumerate(parts):
            if part.startswith("{"):
                variables.setdefault("/".join(parts[:at]), set()).add(part)
    assert {place: names for place, names in variables.items() if len(names) > 1} == {}


def test_the_stage_is_not_taken_for_a_version() -> None:
    assert template.stage(TEMPLATE) != "v1"


def test_all_routes_of_a_function_stream_or_none_but_a_preflight_never_does() -> None:
    assert {route.function for route in ROUTES if route.streamed} == STREAMING
    for route in ROUTES:
        assert route.streamed == (route.function in STREAMING), route
        assert route.timeout_s == (STREAM_LIMIT_S if route.streamed else API_LIMIT_S), route
    assert not any(route.streamed for route in ROUTES if route.method == "OPTIONS")


def test_an_api_that_buffers_has_the_same_routes_and_streams_none() -> None:
    buffered = template.routes(TEMPLATE, BUFFERED)
    assert not any(route.streamed for route in buffered)
    assert {route.timeout_s for route in buffered} == {API_LIMIT_S}
    assert [(r.method, r.path, r.function) for r in buffered] == [(r.method, r.path, r.function) for r in ROUTES]


def test_a_route_streams_by_both_words_that_say_so() -> None:
    """Either alone deploys, and fails at the first call."""
    for methods in API["paths"].values():
        for operation in methods.values():
            written = operation["x-amazon-apigateway-integration"]
            for parameters in ({}, BUFFERED):
                uri = template.resolved(TEMPLATE, written["uri"], parameters)["Fn::Sub"]
                mode = template.resolved(TEMPLATE, written.get("responseTransferMode", "BUFFERED"), parameters)
                assert (mode == "STREAM") == uri.endswith("/response-streaming-invocations")
                assert uri.endswith(("/response-streaming-invocations", "/invocations"))


@pytest.mark.parametrize("function", sorted(STREAMING))
def test_a_function_that_streams_brings_its_own_runtime_client_which_can(function: str) -> None:
    properties = stack.properties(function)
    wrapper = properties["Environment"]["Variables"]["AWS_LAMBDA_EXEC_WRAPPER"]
    file = REPOSITORY / "layers/aiserver" / template.resolved(TEMPLATE, wrapper, {}).removeprefix("/opt/")
    assert file.read_bytes().startswith(b"#!/bin/bash\n")
    assert b"\r" not in file.read_bytes()
    assert file.stat().st_mode & 0o777 == 0o755
    assert template.resolved(TEMPLATE, wrapper, BUFFERED) == {"Ref": "AWS::NoValue"}
    streams = properties["Environment"]["Variables"]["STREAMS"]
    assert [template.resolved(TEMPLATE, streams, given) for given in ({}, BUFFERED)] == ["true", "false"]


@pytest.mark.parametrize("function", sorted(STREAMING))
def test_the_api_may_invoke_a_function_whose_routes_are_no_events(function: str) -> None:
    permissions = stack.of_type("AWS::Lambda::Permission").values()
    (allowed,) = [one for one in permissions if stack.resources_in(one["FunctionName"]) == {function}]
    assert (allowed["Action"], allowed["Principal"]) == ("lambda:InvokeFunction", "apigateway.amazonaws.com")
    assert "Api" in stack.resources_in(allowed["SourceArn"])


def test_a_changed_parameter_deploys_the_stage_anew() -> None:
    """SAM makes a new deployment where the written body has changed, which a parameter does not."""
    assert TEMPLATE.source["Resources"]["Api"]["Properties"]["AlwaysDeploy"] is True


@pytest.mark.parametrize("parameters", [{}, BUFFERED])
@pytest.mark.parametrize("function", API_FUNCTIONS)
def test_a_function_behind_the_api_gives_up_no_later_than_the_api_does(
    function: str, parameters: dict[str, str]
) -> None:
    limit_s = STREAM_LIMIT_S if function in STREAMING and not parameters else API_LIMIT_S
    assert template.resolved(TEMPLATE, stack.properties(function)["Timeout"], parameters) <= limit_s


def test_the_api_itself_answers_in_all_the_cases_our_code_never_sees() -> None:
    assert set(RESPONSES) == set(ERRORS)


@pytest.mark.parametrize("kind", ERRORS)
def test_the_api_s_own_answer_is_the_error_body_of_our_code(kind: str) -> None:
    (body,) = RESPONSES[kind].templates.values()
    for name, value in CONTEXT.items():
        body = body.replace(name, value)
    assert "$" not in body
    told, error = json.loads(body), ERRORS[kind]
    assert set(told) == {"responseStatus", "error"}
    assert told["responseStatus"]["errorCode"] == error.error_code
    assert (told["responseStatus"]["errors"], told["responseStatus"]["meta"]) == ([], {})
    assert (told["error"]["type"], told["error"]["code"]) == (error.type, error.code)
    assert told["responseStatus"]["message"] == told["error"]["message"]


@pytest.mark.parametrize("kind", ERRORS)
def test_the_api_s_own_answer_has_our_status(kind: str) -> None:
    assert RESPONSES[kind].status == (None if kind.startswith("DEFAULT") else ERRORS[kind].status)


@pytest.mark.parametrize("kind", ERRORS)
def test_a_browser_may_read_the_api_s_own_answer(kind: str) -> None:
    headers = RESPONSES[kind].headers
    assert headers["Access-Control-Allow-Origin"] == "method.request.header.origin"
    assert headers["Vary"] == "'Origin'"
    assert headers["X-Content-Type-Options"] == "'nosniff'"


@pytest.mark.parametrize("kind", ERRORS)
def test_the_api_s_own_header_names_are_spelled_canonically(kind: str) -> None:
    names = list(RESPONSES[kind].headers)
    assert names == [canonical_name(name) for name in names]


def test_a_call_that_ran_out_of_time_is_not_repeated_by_the_official_clients() -> None:
    assert RESPONSES["INTEGRATION_TIMEOUT"].headers["X-Should-Retry"] == "'false'"
    assert RESPONSES["THROTTLED"].headers["Retry-After"] == "'1'"

"""The files in events/ match what AWS sends to this template: functions, routes, account and API key."""

import json
from typing import Any

import pytest

from aiserver import api_keys
from aiserver.aws.messages import EVENT_SOURCE
from local import template
from local.template import REPOSITORY
from tests.stack import FUNCTIONS, TEMPLATE

FILES = sorted((REPOSITORY / "events").glob("*.json"))
OUT = sorted((REPOSITORY / "events" / "out").glob("*.json"))  # published events: no function receives these
CALLS = [path for path in FILES if "httpMethod" in path.read_text()]
ACCOUNT, REGION = "123456789012", "us-east-1"


def event(path: Any) -> dict[str, Any]:
    return json.loads(path.read_text())


def function(path: Any) -> str:
    """Return the function of an event: its file name up to the first dot."""
    return f"{path.name.partition('.')[0].capitalize()}Function"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_event_file_is_named_after_its_function(path: Any) -> None:
    assert function(path) in FUNCTIONS


def test_every_function_has_an_event() -> None:
    assert {function(path) for path in FILES} == set(FUNCTIONS)


@pytest.mark.parametrize("path", CALLS, ids=lambda path: path.name)
def test_http_event_matches_a_route_of_its_function(path: Any) -> None:
    call = event(path)
    routes = {(route.method, route.path, route.function) for route in template.routes(TEMPLATE)}
    assert (call["httpMethod"], call["resource"], function(path)) in routes
    path_of_call = call["resource"]
    for name, value in (call["pathParameters"] or {}).items():
        path_of_call = path_of_call.replace(f"{{{name}+}}", value).replace(f"{{{name}}}", value)
    assert call["path"] == path_of_call
    assert call["requestContext"]["path"] == f"/{template.stage(TEMPLATE)}{path_of_call}"
    assert call["requestContext"]["resourcePath"] == call["resource"]
    assert call["multiValueHeaders"] == {name: [value] for name, value in call["headers"].items()}


@pytest.mark.parametrize("path", CALLS, ids=lambda path: path.name)
def test_api_key_of_an_http_event_is_well_formed_and_an_example(path: Any) -> None:
    if authorization := event(path)["headers"].get("Authorization"):
        assert api_keys.is_well_formed(authorization.removeprefix("Bearer "))
        assert authorization.startswith("Bearer ak-example")


@pytest.mark.parametrize("path", OUT, ids=lambda path: path.name)
def test_published_event_file_is_named_after_its_detail_type(path: Any) -> None:
    document = event(path)
    assert document["detail-type"] == path.stem == f"Job{document['detail']['state']}"
    assert document["source"] == EVENT_SOURCE


@pytest.mark.parametrize("path", FILES + OUT, ids=lambda path: path.name)
def test_event_contains_the_example_account(path: Any) -> None:
    text = path.read_text()
    assert ACCOUNT in text
    assert REGION in text

"""The events in events/ are such as AWS sends to this template: right functions, routes, accounts, and a key."""

import json
from typing import Any

import pytest

from aiserver import api_keys
from aiserver.aws.messages import EVENT_SOURCE
from local import template
from local.template import REPOSITORY
from tests.stack import FUNCTIONS, TEMPLATE

FILES = sorted((REPOSITORY / "events").glob("*.json"))
OUT = sorted((REPOSITORY / "events" / "out").glob("*.json"))  # what leaves: no function takes these
CALLS = [path for path in FILES if "httpMethod" in path.read_text()]
ACCOUNT, REGION = "123456789012", "us-east-1"


def event(path: Any) -> dict[str, Any]:
    return json.loads(path.read_text())


def function(path: Any) -> str:
    """The function an event is for: its file's name up to the first dot."""
    return f"{path.name.partition('.')[0].capitalize()}Function"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_an_event_is_named_after_its_function(path: Any) -> None:
    assert function(path) in FUNCTIONS


def test_every_function_has_an_event() -> None:
    assert {function(path) for path in FILES} == set(FUNCTIONS)


@pytest.mark.parametrize("path", CALLS, ids=lambda path: path.name)
def test_a_call_is_one_the_api_would_send_to_that_function(path: Any) -> None:
    call = event(path)
    routes = {(route.method, route.path, route.function) for route in template.routes(TEMPLATE)}
    assert (call["httpMethod"], call["resource"], function(path)) in routes
    matched = call["resource"]
    for name, value in (call["pathParameters"] or {}).items():
        matched = matched.replace(f"{{{name}+}}", value).replace(f"{{{name}}}", value)
    assert call["path"] == matched
    assert call["requestContext"]["path"] == f"/{template.stage(TEMPLATE)}{matched}"
    assert call["requestContext"]["resourcePath"] == call["resource"]
    assert call["multiValueHeaders"] == {name: [value] for name, value in call["headers"].items()}


@pytest.mark.parametrize("path", CALLS, ids=lambda path: path.name)
def test_a_call_s_key_is_well_formed_and_obviously_an_example(path: Any) -> None:
    if authorization := event(path)["headers"].get("Authorization"):
        assert api_keys.is_well_formed(authorization.removeprefix("Bearer "))
        assert authorization.startswith("Bearer ak-example")


@pytest.mark.parametrize("path", OUT, ids=lambda path: path.name)
def test_an_event_that_leaves_is_named_after_what_a_rule_matches(path: Any) -> None:
    told = event(path)
    assert told["detail-type"] == path.stem == f"Job{told['detail']['state']}"
    assert told["source"] == EVENT_SOURCE


@pytest.mark.parametrize("path", FILES + OUT, ids=lambda path: path.name)
def test_an_event_names_the_example_account(path: Any) -> None:
    text = path.read_text()
    assert ACCOUNT in text
    assert REGION in text

"""The rows of routes, errors and events agree with the template, the code and the metadata of /types."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from aiserver import errors
from aiserver.dtos.metadata import types_metadata
from aiserver.dtos.routes import ERRORS, EVENTS, ROUTES
from aiserver.dtos.schema import ErrorRow
from aiserver.dtos.table import TABLE
from aiserver.jobs.states import TERMINAL_STATES
from functions.chat import handler as chat_handler
from functions.media import handler as media_handler
from functions.queue import handler as queue_handler
from functions.status import events as events_handler
from functions.status import handler as status_handler

HANDLERS = (chat_handler, media_handler, queue_handler, status_handler, events_handler)
# Routes of any name, which are described one by one.
NAMES = {"/v1/models/{proxy+}": "/v1/models/{id}", "/artifacts/{proxy+}": "/artifacts/{path}"}
TYPES = {("GET", path) for path in ("/types", "/types/metadata", "/types/{language}")}
METADATA = types_metadata(TABLE, "https://x.example/Prod")


def subclasses(root: type[errors.AiServerError]) -> Iterator[type[errors.AiServerError]]:
    yield root
    for child in root.__subclasses__():
        yield from subclasses(child)


def test_routes_are_those_of_the_functions() -> None:
    routed = {(method, NAMES.get(path, path)) for handler in HANDLERS for method, path in handler.ROUTES}
    own = {route for route in routed if "{proxy+}" not in route[1] and not route[1].startswith("/api/")}
    assert {(route.method, route.path) for route in ROUTES} == own | TYPES


def test_requests_at_once_are_those_of_the_functions() -> None:
    routed = {path.removeprefix("/api/") for handler in HANDLERS for _, path in handler.ROUTES if "/api/" in path}
    routed -= {"{proxy+}"}
    assert routed <= {request.name for request in TABLE.requests}


def test_types_of_routes_and_events_are_in_the_table() -> None:
    names = {name for route in ROUTES for name in (route.request, route.response)} | {row.type for row in EVENTS}
    assert all(TABLE.find(name) for name in names - {""})


@pytest.mark.parametrize("error", sorted(set(subclasses(errors.AiServerError)), key=lambda kind: kind.__name__))
def test_every_error_of_the_code_has_a_row(error: type[errors.AiServerError]) -> None:
    status = "4xx" if error is errors.ProviderRejected else str(error.status)
    rows = [row for row in ERRORS if (row.status, row.error_code, row.type) == (status, error.error_code, error.type)]
    assert any(error.code in row.codes for row in rows)


@pytest.mark.parametrize("row", ERRORS, ids=lambda row: f"{row.status} {row.codes[0]}")
def test_every_row_is_an_error_of_the_code(row: ErrorRow) -> None:
    kinds = {(kind.error_code, kind.type, kind.code) for kind in subclasses(errors.AiServerError)}
    assert (row.error_code, row.type, row.codes[0]) in kinds


def test_events_contain_one_for_each_end_of_a_job() -> None:
    names = {row.name for row in EVENTS if row.type == "JobEvent"}
    assert names == {f"Job{state}" for state in TERMINAL_STATES}


def test_metadata_describes_every_type_and_request() -> None:
    operations = METADATA["operations"]
    described = {entry["name"] for entry in METADATA["types"]}
    described |= {operation[part]["name"] for operation in operations for part in ("request", "response")}
    assert described == {dto.name for dto in TABLE.dtos} | TABLE.enumeration_names
    assert [operation["request"]["name"] for operation in operations] == [request.name for request in TABLE.requests]


def test_metadata_of_a_member_has_its_dotnet_type_and_wire_name() -> None:
    chat = next(entry for entry in METADATA["types"] if entry["name"] == "OpenAiChat")
    properties = {entry["name"]: entry for entry in chat["properties"]}
    expected = {
        "MaxTokens": ("Nullable`1", ["Int32"]),
        "Messages": ("List`1", ["OpenAiMessage"]),
        "LogitBias": ("Dictionary`2", ["String", "Int32"]),
        "Model": ("String", None),
    }
    assert {name: (properties[name]["type"], properties[name].get("genericArgs")) for name in expected} == expected
    assert properties["MaxTokens"]["dataMember"] == {"name": "max_tokens"}
    assert (properties["Model"]["isRequired"], properties["MaxTokens"]["isRequired"]) == (True, False)


def test_metadata_contains_no_other_host() -> None:
    assert set(re.findall(r"https?://[^\s\"/]+", json.dumps(METADATA))) == {"https://x.example"}


def test_operation_names_its_routes_and_response() -> None:
    operation: Any = next(row for row in METADATA["operations"] if row["request"]["name"] == "OpenAiChatCompletion")
    assert operation["request"]["inherits"] == {"name": "OpenAiChat", "namespace": "AiServer"}
    assert [route["path"] for route in operation["routes"]] == ["/api/OpenAiChatCompletion", "/v1/chat/completions"]
    assert (operation["method"], operation["returnType"]["name"]) == ("POST", "OpenAiChatResponse")

"""Arbitrary vendor data in any order is a response or a ProviderError, never an internal error."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiserver.errors import InvalidRequest, ProviderError
from aiserver.providers.adapters.base.adapter import ResponseContext
from aiserver.providers.adapters.base.translation import MappedEvents, ResponseMapper
from aiserver.providers.adapters.base.validate import parse_chat
from aiserver.providers.call import Upstream
from aiserver.providers.provider import Provider
from aiserver.providers.response import ProviderResponse
from aiserver.wire import sse
from tests.examples import examples
from tests.fakes import FakeClock
from tests.vendors import calls
from tests.vendors.dialect import Dialect
from tests.vendors.dialects import DIALECTS, dialect_type

PROPERTY_SETTINGS = settings(max_examples=examples(60))
CONTEXT = ResponseContext(1_700_000_000, lambda: "call_born")
ODD_VALUES = st.sampled_from(
    [None, True, 0, -1, 1e300, "", "odd", [], [None], {}, {"type": "odd"}, [[]], {"message": 7}]
)
every_vendor = pytest.mark.parametrize("dialect", DIALECTS, ids=dialect_type)


def response_mapper(dialect: Dialect) -> ResponseMapper:
    provider = Provider.model_validate({"name": "p", "base_url": "http://127.0.0.1:1", "models": {"*": ""}})
    return ResponseMapper(dialect.translator, Upstream(provider, "m", model_is_configured=False), FakeClock())


@st.composite
def mutations(draw: st.DrawFn, value: Any) -> Any:
    """A JSON value with some members removed or replaced."""
    if draw(st.integers(0, 9)) == 0:
        return draw(ODD_VALUES)
    if isinstance(value, dict):
        keys = [key for key in value if draw(st.integers(0, 9))]
        return {key: draw(mutations(value[key])) for key in keys}
    return [draw(mutations(element)) for element in value] if isinstance(value, list) else value


@every_vendor
@PROPERTY_SETTINGS
@given(data=st.data())
def test_mutated_response_is_mapped_or_a_provider_error(dialect: Dialect, data: st.DataObject) -> None:
    body = data.draw(mutations(json.loads(dialect.encode_response(data.draw(calls.responses())))))
    try:
        response = response_mapper(dialect).map_response(ProviderResponse(200, {}, json.dumps(body).encode()), CONTEXT)
    except ProviderError:
        return
    assert json.loads(response.body)["object"] == "chat.completion"


@every_vendor
@PROPERTY_SETTINGS
@given(data=st.data())
def test_response_with_null_optional_members_is_accepted(dialect: Dialect, data: st.DataObject) -> None:
    body = json.loads(dialect.encode_response(data.draw(calls.responses())))
    for member in body.keys() & {"usage", "usageMetadata", "stop_sequence", "promptFeedback", "metrics", "error"}:
        body[member] = None
    response = response_mapper(dialect).map_response(ProviderResponse(200, {}, json.dumps(body).encode()), CONTEXT)
    assert json.loads(response.body)["choices"][0]["finish_reason"]


@every_vendor
@PROPERTY_SETTINGS
@given(data=st.data())
def test_mutated_error_is_mapped_to_an_error_status(dialect: Dialect, data: st.DataObject) -> None:
    status = data.draw(st.sampled_from([200, 400, 401, 404, 429, 500, 503, 529]))
    body = data.draw(mutations(json.loads(dialect.error_response(status, "words").body)))
    error = response_mapper(dialect).map_error(ProviderResponse(status, {}, json.dumps(body).encode()))
    assert error.status >= 400


@every_vendor
@PROPERTY_SETTINGS
@given(data=st.data())
def test_stream_of_mutated_and_shuffled_events_never_crashes(dialect: Dialect, data: st.DataObject) -> None:
    mapper = MappedEvents(dialect.translator.create_event_mapper(CONTEXT), response_mapper(dialect))
    original_events = dialect.encode_events(data.draw(calls.responses()))
    order = data.draw(st.permutations(original_events) | st.just(original_events))
    try:
        output = [mapper.on_event(data.draw(st.just(event) | event_mutations(event))) for event in order]
        for output_event in sse.EventSplitter().split(b"".join([*output, mapper.on_end()])):
            assert sse.event_data(output_event) == sse.DONE or json.loads(sse.event_data(output_event))
    except ProviderError:
        pass


def event_mutations(event: bytes) -> st.SearchStrategy[bytes]:
    head, _, data = event.partition(b"data: ")
    return mutations(json.loads(data)).map(lambda payload: head + b"data: " + json.dumps(payload).encode() + b"\n\n")


@every_vendor
@PROPERTY_SETTINGS
@given(data=st.data())
def test_mutated_request_is_translated_or_rejected(dialect: Dialect, data: st.DataObject) -> None:
    request = data.draw(calls.requests(dialect))
    with_mutated_messages = request | {"messages": data.draw(mutations(request["messages"]))}
    body = data.draw(mutations(request) | st.just(with_mutated_messages))
    request_object = body if isinstance(body, dict) else {"model": "m", "messages": [body]}
    with contextlib.suppress(InvalidRequest):
        dialect.translator.build_request(
            parse_chat(json.dumps(request_object).encode(), dialect.translator.capabilities)
        )

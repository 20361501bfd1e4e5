"""Whatever a vendor says, in whatever order, it is an answer or an error of the provider's: never a fault of ours."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiserver.errors import InvalidRequest, ProviderError, ProviderResponse
from aiserver.providers.provider import Provider
from aiserver.providers.translation.adapter import ResponseContext
from aiserver.providers.translation.chat import Chat
from aiserver.providers.translation.client import MappedEvents, ResponseMapper
from aiserver.wire import sse
from tests.examples import examples
from tests.fakes import FakeClock
from tests.vendors import calls
from tests.vendors.dialect import Dialect
from tests.vendors.dialects import DIALECTS, name

UNTIMED = settings(max_examples=examples(60))
BORN = ResponseContext(1_700_000_000, lambda: "call_born")
ODD = st.sampled_from([None, True, 0, -1, 1e300, "", "odd", [], [None], {}, {"type": "odd"}, [[]], {"message": 7}])
every_vendor = pytest.mark.parametrize("dialect", DIALECTS, ids=name)


def judge(dialect: Dialect) -> ResponseMapper:
    provider = Provider.model_validate({"name": "p", "base_url": "http://127.0.0.1:1", "models": {"*": ""}})
    return ResponseMapper(dialect.vendor, provider, FakeClock(), model_is_configured=False)


@st.composite
def bent(draw: st.DrawFn, value: Any) -> Any:
    """A JSON value with some of what is in it gone, or become something else."""
    if draw(st.integers(0, 9)) == 0:
        return draw(ODD)
    if isinstance(value, dict):
        kept = [key for key in value if draw(st.integers(0, 9))]
        return {key: draw(bent(value[key])) for key in kept}
    return [draw(bent(item)) for item in value] if isinstance(value, list) else value


@every_vendor
@UNTIMED
@given(data=st.data())
def test_an_answer_that_is_bent(dialect: Dialect, data: st.DataObject) -> None:
    said = data.draw(bent(json.loads(dialect.message(data.draw(calls.answers())))))
    try:
        answer = judge(dialect).map_response(ProviderResponse(200, {}, json.dumps(said).encode()), BORN)
    except ProviderError:
        return
    assert json.loads(answer.body)["object"] == "chat.completion"


@every_vendor
@UNTIMED
@given(data=st.data())
def test_an_answer_whose_members_are_null_where_they_are_not_said(dialect: Dialect, data: st.DataObject) -> None:
    said = json.loads(dialect.message(data.draw(calls.answers())))
    for unsaid in said.keys() & {"usage", "usageMetadata", "stop_sequence", "promptFeedback", "metrics", "error"}:
        said[unsaid] = None
    answer = judge(dialect).map_response(ProviderResponse(200, {}, json.dumps(said).encode()), BORN)
    assert json.loads(answer.body)["choices"][0]["finish_reason"]


@every_vendor
@UNTIMED
@given(data=st.data())
def test_an_error_that_is_bent(dialect: Dialect, data: st.DataObject) -> None:
    status = data.draw(st.sampled_from([200, 400, 401, 404, 429, 500, 503, 529]))
    said = data.draw(bent(json.loads(dialect.error(status, "words").body)))
    error = judge(dialect).map_error(ProviderResponse(status, {}, json.dumps(said).encode()))
    assert error.status >= 400


@every_vendor
@UNTIMED
@given(data=st.data())
def test_a_stream_whose_events_are_bent_and_in_disorder(dialect: Dialect, data: st.DataObject) -> None:
    chat = Chat(b'{"model":"m","messages":[],"stream":true}', dialect.vendor.capabilities)
    events = MappedEvents(dialect.vendor.create_event_mapper(chat, BORN), judge(dialect))
    given_events = dialect.events(data.draw(calls.answers()))
    order = data.draw(st.permutations(given_events) | st.just(given_events))
    try:
        told = [events.on_event(data.draw(st.just(event) | bent_event(event))) for event in order]
        for one in sse.EventSplitter().split(b"".join([*told, events.on_end()])):
            assert sse.event_data(one) == sse.DONE or json.loads(sse.event_data(one))
    except ProviderError:
        pass


def bent_event(event: bytes) -> st.SearchStrategy[bytes]:
    head, _, data = event.partition(b"data: ")
    return bent(json.loads(data)).map(lambda value: head + b"data: " + json.dumps(value).encode() + b"\n\n")


@every_vendor
@UNTIMED
@given(data=st.data())
def test_a_request_that_is_bent_is_asked_or_refused(dialect: Dialect, data: st.DataObject) -> None:
    asked = data.draw(calls.requests(dialect))
    deeper = asked | {"messages": data.draw(bent(asked["messages"]))}
    body = data.draw(bent(asked) | st.just(deeper))
    given_body = body if isinstance(body, dict) else {"model": "m", "messages": [body]}
    with contextlib.suppress(InvalidRequest):
        dialect.vendor.build_request(Chat(json.dumps(given_body).encode(), dialect.vendor.capabilities))

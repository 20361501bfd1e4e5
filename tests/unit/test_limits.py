"""Each way in accepts what its limits allow and refuses the first step beyond. The limits are made small for it."""

import itertools
import json
from collections.abc import Callable
from typing import Any

import httpcore
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aiserver.errors import InvalidRequest, ProviderError
from aiserver.providers import stream as stream_module
from aiserver.providers.http import ProviderRequest, send
from aiserver.providers.openai_stream import OpenAiEvents
from aiserver.providers.stream import ProviderStream
from aiserver.providers.transport import total_deadline
from aiserver.webhooks import client
from aiserver.wire import json_text, requests
from aiserver.wire.requests import Options
from tests import json_reference
from tests.providers.calls import provider
from tests.providers.streaming import DONE, chunk, heard
from tests.unit.test_scan import VALUES

VALUES_LIMIT, DEPTH_LIMIT, BYTES_LIMIT = 30, 12, 200
CHAT = '{"model":"m","messages":[{"role":"user","content":"hi"}],"more":%s}'
INPUT = '{"model":"m","input":"hi","more":%s}'


def batch(body: str) -> None:
    for element in requests.split_batch(f"[{body}]"):
        requests.bind_queue_chat(element)


WAYS: dict[str, tuple[Callable[[str], object], str, int]] = {  # with the levels that are around the value
    "chat": (requests.bind_chat, CHAT, 1),
    "embeddings": (requests.bind_embeddings, INPUT, 1),
    "responses": (requests.bind_responses, INPUT, 1),
    "queue in OpenAI's form": (lambda body: requests.bind_openai_queue_chat(body, Options()), CHAT, 1),
    "queue": (requests.bind_queue_chat, f'{{"request":{CHAT}}}', 2),
    "batch": (batch, f'{{"request":{CHAT}}}', 3),
    "intake": (lambda body: requests.bind_intake_message(body, "key"), f'{{"request":{CHAT}}}', 2),
}


@pytest.mark.parametrize("way", WAYS)
@given(value=VALUES, more=st.integers(-2, 2), levels=st.integers(0, DEPTH_LIMIT + 2))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_request_may_hold_so_many_values_and_levels(
    way: str, value: Any, more: int, levels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_text, "MAX_VALUES", VALUES_LIMIT)
    monkeypatch.setattr(json_text, "MAX_DEPTH", DEPTH_LIMIT)
    bind, around, outer_levels = WAYS[way]
    is_batch = way == "batch"
    shortest = around % ("[" * levels + json.dumps([value]) + "]" * levels)
    zeros = max(VALUES_LIMIT + more - json_reference.count(json.loads(shortest)) - is_batch, 0)
    body = around % ("[" * levels + json.dumps([value, *[0] * zeros]) + "]" * levels)
    count = json_reference.count(json.loads(body)) + is_batch
    depth = max(depth_of(json.loads(body)) + is_batch, outer_levels + 2)
    refused = None
    try:
        bind(body)
    except InvalidRequest as error:
        refused = error.message
    assert (refused is not None) == (count > VALUES_LIMIT or depth > DEPTH_LIMIT)
    assert refused is None or "JSON values" in refused or "levels deep" in refused


def depth_of(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    return 1 + max(map(depth_of, value), default=0) if isinstance(value, list) else 0


@st.composite
def cut(draw: st.DrawFn) -> list[bytes]:
    """A text of about BYTES_LIMIT in pieces."""
    content = b"x" * draw(st.integers(BYTES_LIMIT - 10, BYTES_LIMIT + 10))
    at = sorted({0, len(content), *draw(st.lists(st.integers(0, len(content)), max_size=5))})
    return [content[start:end] for start, end in itertools.pairwise(at)]


@given(cut())
def test_a_whole_response_may_have_so_many_bytes(pieces: list[bytes]) -> None:
    content = b"".join(pieces)
    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=iter(pieces)))
    asked = ProviderRequest("POST", "/v1/chat", None, b"", max_response_bytes=BYTES_LIMIT)
    with httpx.Client(transport=transport) as http:
        response, error = None, None
        try:
            response = send(http, provider("http://provider.example"), asked, timeout_s=5)
        except ProviderError as raised:
            error = raised
    if len(content) > BYTES_LIMIT:
        assert error is not None
        assert "too large" in error.message
    else:
        assert response is not None
        assert response.body == content


@given(pieces=cut(), before=st.integers(0, 3))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_events_of_a_stream_may_have_so_many_bytes_each(
    pieces: list[bytes], before: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "MAX_EVENT_BYTES", BYTES_LIMIT)
    start, event = [chunk("a")] * before, [b"data: ", *pieces]
    events = OpenAiEvents(provider("http://x/v1"), "chat.completions", hides_usage=False, model_is_configured=True)
    arriving = ([piece] for piece in [*start, *event, b"\n\n", chunk(finish="stop"), DONE])
    relayed, error = heard(ProviderStream("p", {}, arriving, events))
    if len(b"".join(event)) > BYTES_LIMIT:
        assert error is not None
        assert "too large" in error.message
        assert relayed == b"".join(start)
    else:
        assert "too large" not in (error.message if error else "")


class Flood(httpcore.NetworkStream):
    """A receiver that never stops sending."""

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return b"x" * max_bytes


@given(sizes=st.lists(st.integers(1, 2 * BYTES_LIMIT), min_size=1))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_of_a_receiver_s_response_so_many_bytes_are_read(sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MAX_RECEIVER_BYTES", BYTES_LIMIT)
    stream = client._LimitedStream(Flood())
    with total_deadline(5):
        read = sum(len(stream.read(size)) for size in sizes)
    assert read == min(sum(sizes), BYTES_LIMIT)

"""Each entry point accepts requests up to its limits and rejects anything beyond. The tests use small limits."""

import itertools
import json
from collections.abc import Callable
from typing import Any

import httpcore
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aiserver import operations
from aiserver.errors import InvalidRequest, ProviderError
from aiserver.http_client.transport import total_deadline
from aiserver.providers import stream as stream_module
from aiserver.providers.adapters.openai.stream import OpenAiEventMapper
from aiserver.providers.call import Upstream
from aiserver.providers.http import send
from aiserver.providers.request import ProviderRequest
from aiserver.providers.stream import map_events, split_events
from aiserver.webhooks import client
from aiserver.wire import json_text, requests
from aiserver.wire.requests import Options
from tests import json_reference
from tests.providers.calls import provider
from tests.providers.streaming import DONE, chunk, read_stream
from tests.unit.test_json_scan import VALUES

VALUES_LIMIT, DEPTH_LIMIT, BYTES_LIMIT = 30, 12, 200
CHAT = '{"model":"m","messages":[{"role":"user","content":"hi"}],"more":%s}'
INPUT = '{"model":"m","input":"hi","more":%s}'


def batch(body: str) -> None:
    for element in requests.split_batch(f"[{body}]"):
        requests.bind_queue_chat(element)


ENTRY_POINTS: dict[
    str, tuple[Callable[[str], object], str, int]
] = {  # binder, template of the body, nesting levels around the value
    "chat": (requests.bind_chat, CHAT, 1),
    "embeddings": (requests.bind_embeddings, INPUT, 1),
    "responses": (requests.bind_responses, INPUT, 1),
    "queue in OpenAI's form": (lambda body: requests.bind_openai_queue_chat(body, Options()), CHAT, 1),
    "queue": (requests.bind_queue_chat, f'{{"request":{CHAT}}}', 2),
    "batch": (batch, f'{{"request":{CHAT}}}', 3),
    "intake": (lambda body: requests.bind_intake_message(body, "key"), f'{{"request":{CHAT}}}', 2),
}


@pytest.mark.parametrize("entry_point", ENTRY_POINTS)
@given(value=VALUES, excess=st.integers(-2, 2), levels=st.integers(0, DEPTH_LIMIT + 2))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_request_is_limited_in_values_and_depth(
    entry_point: str, value: Any, excess: int, levels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_text, "MAX_VALUES", VALUES_LIMIT)
    monkeypatch.setattr(json_text, "MAX_DEPTH", DEPTH_LIMIT)
    bind, template, outer_levels = ENTRY_POINTS[entry_point]
    is_batch = entry_point == "batch"
    shortest = template % ("[" * levels + json.dumps([value]) + "]" * levels)
    zeros = max(VALUES_LIMIT + excess - json_reference.count_values(json.loads(shortest)) - is_batch, 0)
    body = template % ("[" * levels + json.dumps([value, *[0] * zeros]) + "]" * levels)
    count = json_reference.count_values(json.loads(body)) + is_batch
    depth = max(depth_of(json.loads(body)) + is_batch, outer_levels + 2)
    message = None
    try:
        bind(body)
    except InvalidRequest as error:
        message = error.message
    assert (message is not None) == (count > VALUES_LIMIT or depth > DEPTH_LIMIT)
    assert message is None or "JSON values" in message or "levels deep" in message


def depth_of(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    return 1 + max(map(depth_of, value), default=0) if isinstance(value, list) else 0


@st.composite
def content_chunks(draw: st.DrawFn) -> list[bytes]:
    """Content of about BYTES_LIMIT bytes in chunks."""
    content = b"x" * draw(st.integers(BYTES_LIMIT - 10, BYTES_LIMIT + 10))
    offsets = sorted({0, len(content), *draw(st.lists(st.integers(0, len(content)), max_size=5))})
    return [content[start:end] for start, end in itertools.pairwise(offsets)]


@given(content_chunks())
def test_response_is_limited_in_bytes(chunks: list[bytes]) -> None:
    content = b"".join(chunks)
    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=iter(chunks)))
    request = ProviderRequest("POST", "/v1/chat", None, b"", max_response_bytes=BYTES_LIMIT)
    with httpx.Client(transport=transport) as http:
        response, error = None, None
        try:
            response = send(http, provider("http://provider.example"), request, timeout_s=5)
        except ProviderError as raised:
            error = raised
    if len(content) > BYTES_LIMIT:
        assert error is not None
        assert "too large" in error.message
    else:
        assert response is not None
        assert response.body == content


@given(chunks=content_chunks(), preceding_events=st.integers(0, 3))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_stream_events_are_limited_in_bytes(
    chunks: list[bytes], preceding_events: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "MAX_EVENT_BYTES", BYTES_LIMIT)
    start, event = [chunk("a")] * preceding_events, [b"data: ", *chunks]
    upstream = Upstream(provider("http://x/v1"), "m", model_is_configured=True)
    mapper = OpenAiEventMapper(upstream, operations.CHAT, hides_usage=False)
    arriving = ([chunk_bytes] for chunk_bytes in [*start, *event, b"\n\n", chunk(finish="stop"), DONE])
    relayed, error = read_stream(map_events(split_events(arriving, "p"), mapper, "p"))
    if len(b"".join(event)) > BYTES_LIMIT:
        assert error is not None
        assert "too large" in error.message
        assert relayed == b"".join(start)
    else:
        assert "too large" not in (error.message if error else "")


class Flood(httpcore.NetworkStream):
    """A receiver that sends without end."""

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return b"x" * max_bytes


@given(sizes=st.lists(st.integers(1, 2 * BYTES_LIMIT), min_size=1))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_read_of_a_receiver_response_is_limited_in_bytes(sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MAX_RECEIVER_BYTES", BYTES_LIMIT)
    stream = client._LimitedStream(Flood())
    with total_deadline(5):
        read = sum(len(stream.read(size)) for size in sizes)
    assert read == min(sum(sizes), BYTES_LIMIT)

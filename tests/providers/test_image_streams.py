"""Streamed images: partial and completed events, as each server ends them, and streams answered as a whole."""

import itertools
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiserver.errors import ProviderError, ProviderRateLimited, ProviderRejected, ProviderTimeout
from aiserver.providers.call import ProviderCall
from aiserver.providers.http import create_client
from aiserver.providers.provider import Provider
from local.scripted import ScriptedProvider
from tests import hostile_servers
from tests.examples import examples
from tests.hostile_servers import Behaviour
from tests.providers.audio_calls import fail_over_audio, open_audio_stream, read_audio, usage_of
from tests.providers.image_calls import PNG, TOKENS, edit_call, generation_call, image_file, image_provider
from tests.providers.streaming import DONE, read_stream, serve_stream

GENERATION, EDIT = "image_generation", "image_edit"
JSON = "application/json"
FILE = image_file("image", b"an image")  # as text, which hostile_servers can record
CALLS = {
    GENERATION: generation_call(stream=True, partial_images=2),
    EDIT: edit_call(FILE, stream=True, partial_images=2),
}
each_type = pytest.mark.parametrize("event_type", CALLS)


def event(event_type: str = "", **members: object) -> bytes:
    """An event with its name and its type, or with neither."""
    data = ({"type": event_type} if event_type else {}) | members
    return (f"event: {event_type}\n" if event_type else "").encode() + f"data: {json.dumps(data)}\n\n".encode()


def partial(event_type: str, index: int = 0, base64: str = "iVBORw0KGgo=") -> bytes:
    return event(f"{event_type}.partial_image", b64_json=base64, partial_image_index=index, size="1024x1024")


def completed(event_type: str, base64: str = "iVBORw0KGgo=", **members: object) -> bytes:
    return event(f"{event_type}.completed", b64_json=base64, **members)


def error_event(**members: object) -> bytes:
    return event("error", error={"message": "out of memory", **members})


def chunk(chunk_type: str, **members: object) -> bytes:
    """An event of vLLM-Omni."""
    return f"data: {json.dumps({'object': 'image.edit.chunk', 'type': chunk_type, **members})}\n\n".encode()


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    with create_client() as client:
        yield client


@pytest.fixture
def target(upstream: ScriptedProvider) -> Provider:
    """The scripted provider, without a preset."""
    return image_provider(base_url=upstream.base_url)


def receive_from(http: httpx.Client, behaviour: Behaviour, call: ProviderCall) -> tuple[bytes, ProviderError | None]:
    with hostile_servers.receiver(behaviour) as server:
        return read_audio(http, image_provider(base_url=f"http://127.0.0.1:{server.port}/v1"), call)[:2]


# --- complete streams ---


def complete_streams(event_type: str) -> dict[str, tuple[list[bytes], dict[str, Any] | None]]:
    """Streams with their usage."""
    partials = [partial(event_type, index) for index in range(2)]
    end, end_without_usage = completed(event_type, usage=TOKENS), completed(event_type)
    unnamed = [sent.partition(b"\n")[2] for sent in (*partials, end)]
    return {
        "OpenAI": ([*partials, end], {"images": 1} | TOKENS),
        "without partial images": ([end], {"images": 1} | TOKENS),
        "without usage": ([*partials, end_without_usage], {"images": 1}),
        "usage of null": ([*partials, completed(event_type, usage=None)], {"images": 1}),
        "without names": (unnamed, {"images": 1} | TOKENS),
        "two images": ([partials[0], end_without_usage, partials[0], end], {"images": 2} | TOKENS),
        "usage of the first image": ([end, end_without_usage], {"images": 2} | TOKENS),
        "[DONE]": ([*partials, end, DONE], {"images": 1} | TOKENS),
        "comments": ([b": wait\n\n", partials[0], b": wait\n\n", end], {"images": 1} | TOKENS),
        "error of null": ([partials[0], completed(event_type, error=None)], {"images": 1}),
        "line ends of Windows": ([sent.replace(b"\n", b"\r\n") for sent in (*partials, end)], {"images": 1} | TOKENS),
        "vLLM-Omni": ([chunk("ar_delta", text="a"), chunk("image", b64_json="AA=="), DONE], None),
        "without types, [DONE]": ([event(b64_json="AA=="), DONE], None),
        "without types, closed": ([event(b64_json="AA=="), event(b64_json="AA==", usage=TOKENS)], TOKENS),
    }


COMPLETE_STREAMS = {event_type: complete_streams(event_type) for event_type in CALLS}


@each_type
@pytest.mark.parametrize("name", COMPLETE_STREAMS[EDIT])
def test_complete_image_stream_is_relayed_byte_for_byte(
    event_type: str, name: str, upstream: ScriptedProvider, target: Provider, http: httpx.Client
) -> None:
    events, usage = COMPLETE_STREAMS[event_type][name]
    upstream.stream_with(events, {"content-type": "text/event-stream; charset=utf-8"})
    assert read_audio(http, target, CALLS[event_type]) == (b"".join(events), None, usage)
    request = upstream.requests[-1]
    assert request.headers["accept"] == "text/event-stream"
    assert b"partial_images" in request.body


@given(st.sampled_from(sorted(COMPLETE_STREAMS[EDIT])), st.lists(st.integers(1, 60), max_size=12))
@settings(max_examples=examples(100))
def test_image_stream_is_relayed_wherever_it_is_split(
    scripted_provider: ScriptedProvider, http: httpx.Client, name: str, sizes: list[int]
) -> None:
    events, usage = COMPLETE_STREAMS[EDIT][name]
    body = b"".join(events)
    cuts = [0, *(cut for cut in itertools.accumulate(sizes) if cut < len(body)), len(body)]
    scripted_provider.stream_with([body[start:end] for start, end in itertools.pairwise(cuts)])
    target = image_provider(base_url=scripted_provider.base_url)
    assert read_audio(http, target, CALLS[EDIT]) == (body, None, usage)


@each_type
def test_event_with_an_image_of_12_mb_is_relayed(
    event_type: str, upstream: ScriptedProvider, target: Provider, http: httpx.Client
) -> None:
    """One line of data each; the usage is the last member."""
    base64 = "A" * 12_000_000
    body = partial(event_type, base64=base64) + completed(event_type, base64, usage=TOKENS)
    upstream.stream_with([body[start : start + 65_536] for start in range(0, len(body), 65_536)])
    received, error, usage = read_audio(http, target, CALLS[event_type])
    assert (received == body, error, usage) == (True, None, {"images": 1} | TOKENS)


def test_partial_images_are_counted_as_content(
    upstream: ScriptedProvider, target: Provider, http: httpx.Client
) -> None:
    upstream.stream_with(COMPLETE_STREAMS[GENERATION]["OpenAI"][0])
    with open_audio_stream(http, target, CALLS[GENERATION]) as stream:
        assert read_stream(stream.events)[1] is None
        assert (stream.has_events, stream.mapper.content_events, stream.mapper.is_complete) == (True, 2, True)


# --- streams that break off ---


def broken_streams(event_type: str) -> dict[str, tuple[list[bytes], bytes, bytes, type[ProviderError], bool, str]]:
    """What is sent, its end, what the caller gets, and the error: its class, whether it may be billed, its message."""
    start, end = partial(event_type), completed(event_type)
    proper_end, cut = b"0\r\n\r\n", b""
    other_end = completed(GENERATION if event_type == EDIT else EDIT)
    moderation = error_event(type="image_generation_user_error", code="moderation_blocked")
    bare_error = b'{"error":{"message":"out of memory"}}'
    named = b"event: error\ndata: out of memory\n\n"
    return {
        "closed without an end": ([start], proper_end, start, ProviderTimeout, True, "ended before"),
        "end of another operation": ([other_end], proper_end, other_end, ProviderTimeout, True, "ended before"),
        "cut between events": ([start], cut, start, ProviderTimeout, True, "incomplete"),
        "cut within an event": ([start, start[:-9]], cut, start, ProviderTimeout, True, "incomplete"),
        "cut within the end": ([start, end[:-9]], cut, start, ProviderTimeout, True, "incomplete"),
        "closed within the end": ([start, end[:-9]], proper_end, start, ProviderTimeout, True, "ended before"),
        "cut without types": ([event(url="x")], cut, event(url="x"), ProviderTimeout, True, "incomplete"),
        "error": ([start, error_event(), end], proper_end, start, ProviderError, True, "out of memory"),
        "error and [DONE]": ([start, error_event(), DONE], proper_end, start, ProviderError, True, "out of memory"),
        "bare error": ([start, bare_error], proper_end, start, ProviderError, True, "out of memory"),
        "named error": ([start, named], proper_end, start, ProviderError, True, "out of memory"),
        "moderation": ([start, moderation], proper_end, start, ProviderError, True, "out of memory"),
        "only an error": ([error_event(), DONE], proper_end, b"", ProviderError, False, "out of memory"),
        "only a rate limit": ([error_event(code=429)], proper_end, b"", ProviderRateLimited, False, "out of memory"),
        "only a rejection": (
            *([error_event(type="invalid_request_error")], proper_end, b""),
            *(ProviderRejected, False, "out of memory"),
        ),
        "no event": ([], proper_end, b"", ProviderTimeout, True, "ended before"),
        "only [DONE]": ([DONE], proper_end, b"", ProviderError, True, "without a result"),
        "FastAPI": ([b'{"detail":"out of memory"}'], proper_end, b"", ProviderError, True, "out of memory"),
    }


BROKEN_STREAMS = {event_type: broken_streams(event_type) for event_type in CALLS}


@each_type
@pytest.mark.parametrize("name", BROKEN_STREAMS[EDIT])
def test_broken_image_stream_is_an_error_after_its_complete_events(
    event_type: str, name: str, http: httpx.Client
) -> None:
    parts, end, expected, error_class, may_be_billed, message = BROKEN_STREAMS[event_type][name]
    received, error = receive_from(http, serve_stream(*parts, end=end), CALLS[event_type])
    assert error is not None
    assert (received, type(error), error.may_be_billed) == (expected, error_class, may_be_billed)
    assert message in error.message


def test_image_labelled_as_events_is_an_error_with_an_explanation(http: httpx.Client) -> None:
    received, error = receive_from(http, serve_stream(PNG), CALLS[GENERATION])
    assert error is not None
    assert (received, type(error), error.may_be_billed) == (b"", ProviderError, True)
    assert error.message == "Provider p: the response is not a stream"


@each_type
@pytest.mark.parametrize("name", ["OpenAI", "[DONE]", "without usage"])
def test_connection_cut_after_the_completed_image_is_a_success(event_type: str, name: str, http: httpx.Client) -> None:
    events, _ = COMPLETE_STREAMS[event_type][name]
    assert receive_from(http, serve_stream(*events, end=b""), CALLS[event_type]) == (b"".join(events), None)


STREAM = b"".join(COMPLETE_STREAMS[GENERATION]["OpenAI"][0])


@given(st.integers(0, len(STREAM) - 3))
@settings(max_examples=examples(50))
def test_truncated_image_stream_is_never_complete(
    scripted_provider: ScriptedProvider, http: httpx.Client, end: int
) -> None:
    body = STREAM[:end]
    scripted_provider.stream_with([body] if body else [])
    target = image_provider(base_url=scripted_provider.base_url)
    received, error, _ = read_audio(http, target, CALLS[GENERATION])
    assert (received, type(error)) == (body[: body.rfind(b"\n\n") + 2] if b"\n\n" in body else b"", ProviderTimeout)


def test_broken_image_stream_counts_only_completed_images(
    upstream: ScriptedProvider, target: Provider, http: httpx.Client
) -> None:
    start, end = partial(EDIT), completed(EDIT, usage=TOKENS)
    for events, usage in (([start], None), ([end, start, error_event()], {"images": 1} | TOKENS)):
        upstream.stream_with(events)
        with open_audio_stream(http, target, CALLS[EDIT]) as stream:
            assert read_stream(stream.events)[1] is not None
            assert usage_of(stream.mapper.usage) == usage


# --- a stream that the provider answers as a whole ---


@each_type
@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("usage", [TOKENS, {}], ids=["usage", "without usage"])
def test_image_stream_answered_as_a_whole_is_a_complete_response(
    event_type: str,
    is_chunked: bool,
    usage: dict[str, Any],
    upstream: ScriptedProvider,
    target: Provider,
    http: httpx.Client,
) -> None:
    body = json.dumps({"created": 1, "data": [{"b64_json": "AA=="}] * 2} | ({"usage": usage} if usage else {})).encode()
    if is_chunked:
        upstream.stream_with([body[:1], body[1:]], {"content-type": JSON})
    else:
        upstream.respond_with(200, body, {"content-type": JSON})
    result = fail_over_audio(http, CALLS[event_type], [target])
    assert (result.stream, result.error, result.attempts) == (None, None, 1)
    assert result.response is not None
    assert (result.response.body, result.response.content_type) == (body, JSON)
    assert usage_of(result.response.usage) == {"images": 2} | usage


def test_stream_of_several_images_is_the_providers_rejection(
    upstream: ScriptedProvider, target: Provider, http: httpx.Client
) -> None:
    message = "Streaming is only supported with n=1."
    upstream.respond_with(400, json.dumps({"error": {"message": message, "code": "invalid_value"}}).encode())
    result = fail_over_audio(http, generation_call(stream=True, n=2), [target])
    assert isinstance(result.error, ProviderRejected)
    assert (result.error.status, result.error.message, result.error.code) == (400, message, "invalid_value")
    assert json.loads(upstream.requests[-1].body) == {"model": "m", "prompt": "A fox", "n": 2, "stream": True}

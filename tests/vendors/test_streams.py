"""Streams of every vendor over a socket: split, truncated, failing and hanging."""

import json
from collections.abc import Generator
from contextlib import contextmanager

import pytest

from aiserver.clock import Clock, SystemClock
from aiserver.errors import ProviderError, ProviderTimeout
from aiserver.providers.call import Upstream
from aiserver.providers.provider import Provider
from aiserver.providers.stream import ProviderStream
from aiserver.wire import errors as wire_errors
from aiserver.wire import sse
from tests import hostile_servers
from tests.fakes import FakeClock
from tests.providers.streaming import LAST_CHUNK, http_chunks, read_stream
from tests.vendors import dispatch
from tests.vendors.conversations import user
from tests.vendors.dialect import Dialect
from tests.vendors.dialects import DIALECTS, dialect_type
from tests.vendors.semantics import Response, ToolCall

every_vendor = pytest.mark.parametrize("dialect", DIALECTS, ids=dialect_type)
RESPONSE = Response(
    "Grüße 語 😀", reasoning="Hm.", calls=(ToolCall("call_1", "look", {"at": "ü"}),), finish="tool_calls"
)
BODY = json.dumps(
    {"model": "m", "messages": [user()], "stream": True, "stream_options": {"include_usage": True}}
).encode()
STEP_BYTES = 211  # distance of the cuts, as each needs a connection


@contextmanager
def open_stream(dialect: Dialect, port: int, clock: Clock, timeout_s: float = 20) -> Generator[ProviderStream]:
    """Open a stream from the server at that port."""
    provider = Provider.model_validate(
        {"name": "p", "type": dialect.type, "base_url": f"http://127.0.0.1:{port}", "models": {"*": ""}}
    )
    upstream = Upstream(provider, dialect.model, model_is_configured=True, api_key="k")
    with dispatch.open_stream(upstream, BODY, clock=clock, timeout_s=timeout_s) as stream:
        yield stream


def stream_from(dialect: Dialect, *parts: bytes, end: bytes = LAST_CHUNK) -> tuple[bytes, ProviderError | None]:
    """Return bytes and error of a stream of these parts. The call itself may fail instead."""
    head = hostile_servers.head(200, f"content-type: {dialect.stream_type}", "transfer-encoding: chunked")
    with hostile_servers.receiver(hostile_servers.send_raw(head, http_chunks(*parts) + end)) as server:
        try:
            with open_stream(dialect, server.port, FakeClock()) as stream:
                return read_stream(stream.events)
        except ProviderError as error:
            return b"", error


def frames(dialect: Dialect, answer: Response = RESPONSE) -> list[bytes]:
    return [dialect.encode_frame(event) for event in dialect.encode_events(answer)]


@every_vendor
def test_stream_is_the_same_wherever_it_is_split(dialect: Dialect) -> None:
    stream = b"".join(frames(dialect))
    expected = stream_from(dialect, stream)
    assert expected[1] is None
    assert expected[0].endswith(b"data: [DONE]\n\n")
    for cut in range(1, len(stream), STEP_BYTES):
        assert stream_from(dialect, stream[:cut], stream[cut:]) == expected, cut


@every_vendor
def test_truncated_stream_is_an_error_after_complete_events_only(dialect: Dialect) -> None:
    stream = b"".join(frames(dialect))
    complete, _ = stream_from(dialect, stream)
    content = complete[: complete.rindex(b'"finish_reason":"tool_calls"')].rpartition(b"data: ")[0]
    for cut in range(0, len(stream), STEP_BYTES):
        for end in (LAST_CHUNK, b""):
            received, error = stream_from(dialect, stream[:cut], end=end)
            is_complete = error is None and received.endswith(b"data: [DONE]\n\n")  # cut after the end of the response
            assert complete.startswith(received) or is_complete, cut
            assert received == b"" or received.endswith(b"\n\n"), cut
            assert isinstance(error, ProviderTimeout) or received.startswith(content), cut
            assert error is None or error.may_be_billed, cut


@every_vendor
@pytest.mark.parametrize("events", [0, 1, -1])
def test_stream_error_is_billable_only_after_the_first_text(events: int, dialect: Dialect) -> None:
    failure = dialect.encode_frame(dialect.error_event("out of luck"))
    all_frames = frames(dialect)
    earlier_frames = all_frames[: len(all_frames) // 2] if events < 0 else all_frames[:events]
    received, error = stream_from(dialect, *earlier_frames, failure)
    assert error is not None
    has_begun = bool(received)
    assert (error.message, error.may_be_billed) == ("out of luck", has_begun)
    assert has_begun or events >= 0
    error_body = json.loads(sse.event_data(wire_errors.render_error_event(error)))
    assert (error_body["error"]["message"], error_body["responseStatus"]["message"]) == ("out of luck", "out of luck")


@every_vendor
def test_stream_that_hangs_is_a_timeout_at_the_total_timeout(dialect: Dialect) -> None:
    head = hostile_servers.head(200, f"content-type: {dialect.stream_type}", "transfer-encoding: chunked")
    with (
        hostile_servers.receiver(hostile_servers.send_then_hang(head)) as server,
        pytest.raises(ProviderTimeout),
        open_stream(dialect, server.port, SystemClock(), timeout_s=0.6),
    ):
        pass


@every_vendor
def test_response_that_is_not_a_stream_is_an_error_that_may_be_billed(dialect: Dialect) -> None:
    body = dialect.encode_response(RESPONSE)
    behaviour = hostile_servers.respond(200, "content-type: application/json", body=body)
    with (
        hostile_servers.receiver(behaviour) as server,
        pytest.raises(ProviderError, match="the response is not a stream") as failed,
        open_stream(dialect, server.port, FakeClock()),
    ):
        pass
    assert failed.value.may_be_billed


@every_vendor
def test_closing_a_stream_closes_the_vendor_connection(dialect: Dialect) -> None:
    head = hostile_servers.head(200, f"content-type: {dialect.stream_type}", "transfer-encoding: chunked")
    closed: list[bool] = []

    def wait_for_close(connection: hostile_servers.Connection) -> None:
        connection.take_request()
        connection.socket.sendall(head + http_chunks(*frames(dialect)[:-2]))
        closed.append(connection.socket.recv(1) == b"")

    with (
        hostile_servers.receiver(wait_for_close) as server,
        open_stream(dialect, server.port, FakeClock()) as stream,
    ):
        assert next(event for event in stream.events if event)
    assert closed == [True]


@every_vendor
def test_stream_keeps_the_vendor_request_id(dialect: Dialect) -> None:
    lines = [f"{name}: {value}" for name, value in dialect.headers.items()]
    head = hostile_servers.head(200, f"content-type: {dialect.stream_type}", "transfer-encoding: chunked", *lines)
    with (
        hostile_servers.receiver(hostile_servers.send_raw(head, http_chunks(*frames(dialect)) + LAST_CHUNK)) as server,
        open_stream(dialect, server.port, FakeClock()) as stream,
    ):
        assert stream.headers["x-request-id"] == "req_1"


@every_vendor
def test_invalid_stream_event_is_a_provider_error(dialect: Dialect) -> None:
    for event in (b"data: nonsense\n\n", b"data: [1]\n\n", b'data: {"type":5,"candidates":7}\n\n'):
        received, error = stream_from(dialect, dialect.encode_frame(event))
        assert (received, type(error)) == (b"", ProviderError), event

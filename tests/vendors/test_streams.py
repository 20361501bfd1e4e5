"""A vendor's stream over a real socket: wherever it is cut into pieces, cut off, or fails, as any provider's."""

import json
from collections.abc import Generator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from aiserver.aws.bedrock import BedrockWire
from aiserver.clock import Clock, SystemClock
from aiserver.errors import ProviderError, ProviderTimeout
from aiserver.providers.http import create_client
from aiserver.providers.provider import Provider
from aiserver.providers.registry import AdapterRegistry
from aiserver.providers.stream import ProviderStream
from aiserver.wire import errors as wire_errors
from aiserver.wire import sse
from tests import hostile_servers
from tests.fakes import FakeClock
from tests.providers.streaming import END, framed, heard
from tests.vendors.conversations import user
from tests.vendors.dialect import Dialect
from tests.vendors.dialects import DIALECTS, name
from tests.vendors.semantics import Answer, Called

every_vendor = pytest.mark.parametrize("dialect", DIALECTS, ids=name)
ANSWER = Answer("Grüße 語 😀", reasoning="Hm.", calls=(Called("call_1", "look", {"at": "ü"}),), finish="tool_calls")
QUESTION: dict[str, Any] = {"messages": [user()], "stream": True, "stream_options": {"include_usage": True}}
STEP = 211  # bytes from cut to cut: each takes a connection


@contextmanager
def begun(dialect: Dialect, port: int, clock: Clock, total_s: float = 20) -> Generator[ProviderStream]:
    """A stream of the server there."""
    body = json.dumps({"model": dialect.model, **QUESTION}).encode()
    asked = Provider.model_validate(
        {"name": "p", "type": dialect.type, "base_url": f"http://127.0.0.1:{port}", "models": {"*": ""}}
    )
    how: dict[str, Any] = {"api_key": "k", "model_is_configured": True, "head_timeout_s": 5, "total_timeout_s": total_s}
    with create_client() as http:
        protocol = AdapterRegistry(lambda: http, clock, BedrockWire)[dialect.type]
        with closing(protocol.stream(asked, "chat.completions", body, **how)) as stream:
            yield stream


def streamed(dialect: Dialect, *pieces: bytes, end: bytes = END) -> tuple[bytes, ProviderError | None]:
    """What comes of it; an error may come in its place."""
    head = hostile_servers.head(200, f"content-type: {dialect.stream_type}", "transfer-encoding: chunked")
    with hostile_servers.receiver(hostile_servers.says(head, framed(*pieces) + end)) as server:
        try:
            with begun(dialect, server.port, FakeClock()) as stream:
                return heard(stream)
        except ProviderError as error:
            return b"", error


def said(dialect: Dialect, answer: Answer = ANSWER) -> list[bytes]:
    return [dialect.framed(event) for event in dialect.events(answer)]


@every_vendor
def test_it_is_the_same_wherever_it_is_cut_into_pieces(dialect: Dialect) -> None:
    whole = b"".join(said(dialect))
    expected = streamed(dialect, whole)
    assert expected[1] is None
    assert expected[0].endswith(b"data: [DONE]\n\n")
    for at in range(1, len(whole), STEP):
        assert streamed(dialect, whole[:at], whole[at:]) == expected, at


@every_vendor
def test_where_it_breaks_off_that_is_told_and_only_whole_events_have_come(dialect: Dialect) -> None:
    whole = b"".join(said(dialect))
    told, _ = streamed(dialect, whole)
    words = told[: told.rindex(b'"finish_reason":"tool_calls"')].rpartition(b"data: ")[0]
    for at in range(0, len(whole), STEP):
        for end in (END, b""):
            came, error = streamed(dialect, whole[:at], end=end)
            is_complete = error is None and came.endswith(b"data: [DONE]\n\n")  # but for what comes behind an answer
            assert told.startswith(came) or is_complete, at
            assert came == b"" or came.endswith(b"\n\n"), at
            assert isinstance(error, ProviderTimeout) or came.startswith(words), at
            assert error is None or error.may_be_billed, at


@every_vendor
@pytest.mark.parametrize("events", [0, 1, -1])
def test_a_failure_within_is_told_and_billed_only_after_the_first_word(events: int, dialect: Dialect) -> None:
    failure = dialect.framed(dialect.failure("out of luck"))
    whole = said(dialect)
    before = whole[: len(whole) // 2] if events < 0 else whole[:events]
    came, error = streamed(dialect, *before, failure)
    assert error is not None
    has_begun = bool(came)
    assert (error.message, error.may_be_billed) == ("out of luck", has_begun)
    assert has_begun or events >= 0
    told = json.loads(sse.event_data(wire_errors.render_error_event(error)))
    assert (told["error"]["message"], told["responseStatus"]["message"]) == ("out of luck", "out of luck")


@every_vendor
def test_a_stream_that_hangs_is_given_up_when_its_time_is_over(dialect: Dialect) -> None:
    head = hostile_servers.head(200, f"content-type: {dialect.stream_type}", "transfer-encoding: chunked")
    with (
        hostile_servers.receiver(hostile_servers.then_hangs(head)) as server,
        pytest.raises(ProviderTimeout),
        begun(dialect, server.port, SystemClock(), total_s=0.6),
    ):
        pass


@every_vendor
def test_an_answer_that_does_not_stream_is_told_as_such_and_may_be_billed(dialect: Dialect) -> None:
    body = dialect.message(ANSWER)
    answer = hostile_servers.answers(200, "content-type: application/json", body=body)
    with (
        hostile_servers.receiver(answer) as server,
        pytest.raises(ProviderError, match="did not stream its answer") as failed,
        begun(dialect, server.port, FakeClock()),
    ):
        pass
    assert failed.value.may_be_billed


@every_vendor
def test_a_stream_has_the_vendor_s_id_of_it(dialect: Dialect) -> None:
    lines = [f"{name}: {value}" for name, value in dialect.headers.items()]
    head = hostile_servers.head(200, f"content-type: {dialect.stream_type}", "transfer-encoding: chunked", *lines)
    with (
        hostile_servers.receiver(hostile_servers.says(head, framed(*said(dialect)) + END)) as server,
        begun(dialect, server.port, FakeClock()) as stream,
    ):
        assert stream.headers["x-request-id"] == "req_1"


@every_vendor
def test_what_is_no_event_of_the_vendor_s_is_an_error(dialect: Dialect) -> None:
    for odd in (b"data: nonsense\n\n", b"data: [1]\n\n", b'data: {"type":5,"candidates":7}\n\n'):
        came, error = streamed(dialect, dialect.framed(odd))
        assert (came, type(error)) == (b"", ProviderError), odd

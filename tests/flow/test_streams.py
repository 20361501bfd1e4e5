"""Streamed chats through the running gateway, read by common clients."""

import json
import shutil
import subprocess
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import openai
import pytest

from local.scripted import ConnectionCut
from tests.flow import stream_clients
from tests.flow.conftest import Product
from tests.flow.stream_clients import CLIENT_TIMEOUT_S, CLIENTS, MODEL, REQUEST, STREAM_REQUEST, Npm, StreamResult

DONE = b"data: [DONE]\n\n"
ERROR = b'data: {"error":{"message":"The model has failed","type":"server_error","code":null,"param":null}}\n\n'
COMMENT = b": the model is being loaded\n\n"
CHUNKS = 64
CHUNK_DELAY_S = 0.02


@pytest.fixture(params=CLIENTS, ids=lambda client: client.__name__)
def client(request: pytest.FixtureRequest) -> Any:
    if requirement := stream_clients.missing_requirement(request.param):
        pytest.skip(requirement)
    return request.param


@pytest.fixture(scope="module", autouse=True)
def close_npm_clients() -> Iterator[None]:
    yield
    for stream_client in CLIENTS:
        if isinstance(stream_client, Npm):
            stream_client.close()


@pytest.fixture
def keep_circuit_closed(product: Product) -> Iterator[None]:
    """Make successful calls before and after the test, so that its failures do not open the provider's circuit."""
    assert product.http.post("/v1/chat/completions", json=REQUEST).status_code == 200
    yield
    assert product.http.post("/v1/chat/completions", json=REQUEST).status_code == 200


def event(text: str | None, finish: str | None = None, end: bytes = b"\n\n") -> bytes:
    choice = {"index": 0, "delta": {} if text is None else {"content": text}, "finish_reason": finish}
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [choice]}
    return b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + end


STOP = event(None, "stop")


def test_client_receives_the_complete_response_and_its_usage(client: Any, product: Product) -> None:
    completion = product.http.post("/v1/chat/completions", json=REQUEST).json()
    result = StreamResult()
    client(product, result)
    assert result.error is None
    assert result.text == completion["choices"][0]["message"]["content"]
    assert (result.finish, result.usage) == ("stop", tuple(completion["usage"].values()))
    assert json.loads(product.upstream.requests[-1].body)["stream_options"] == {"include_usage": True}


def test_client_receives_each_word_before_the_provider_sends_the_next(client: Any, product: Product) -> None:
    word_received = threading.Semaphore(0)
    words = [f"word {number} " for number in range(CHUNKS)]

    def upstream_chunks() -> Iterator[bytes]:
        for word in words:
            yield event(word)
            if not word_received.acquire(timeout=CLIENT_TIMEOUT_S / 2):
                raise ConnectionCut
        yield from (STOP, DONE)

    product.upstream.stream_with(upstream_chunks())
    result = StreamResult(on_text=lambda _: word_received.release())
    client(product, result)
    assert result.error is None
    assert (result.text, result.finish) == ("".join(words), "stop")


def test_single_words_are_not_buffered(product: Product, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product.upstream, "chunk_delay_s", CHUNK_DELAY_S)
    sent_count, counts_on_receipt = 0, list[int]()

    def upstream_chunks() -> Iterator[bytes]:
        nonlocal sent_count
        for number in range(CHUNKS):
            sent_count += 1
            yield event(f"{number} ")
        yield from (STOP, DONE)

    product.upstream.stream_with(upstream_chunks())
    stream_clients.openai_sync(product, StreamResult(on_text=lambda _: counts_on_receipt.append(sent_count)))
    assert len(counts_on_receipt) == CHUNKS
    assert counts_on_receipt[0] < CHUNKS
    assert len(set(counts_on_receipt)) > CHUNKS // 8


@pytest.mark.parametrize("is_cut", [False, True])
def test_response_that_lacks_only_its_done_event_is_complete(is_cut: bool, client: Any, product: Product) -> None:
    product.upstream.stream_with(BrokenStream((event("All"), STOP), "All", is_cut).upstream_chunks())
    result = StreamResult()
    client(product, result)
    assert (result.error, result.text, result.finish) == (None, "All", "stop")


@dataclass(frozen=True)
class BrokenStream:
    """A response that breaks off after `text`; `is_cut` if the connection is reset."""

    events: tuple[bytes, ...]
    text: str
    is_cut: bool = True

    def upstream_chunks(self) -> Iterator[bytes]:
        yield from self.events
        if self.is_cut:
            raise ConnectionCut


GRUESSE, HOLD, LAST = event("Grüße"), event(" an dich"), event(" an", end=b"\r\n\r\n")
LLAMA_ERROR = b'error: {"code":500,"message":"The model has failed","type":"server_error"}\n\n'
DISCONNECT_TIMEOUT_S = 2
BROKEN_STREAMS = {
    "cut between two events": BrokenStream((GRUESSE, HOLD), "Grüße an dich"),
    "cut inside an event": BrokenStream((GRUESSE, HOLD[: HOLD.index(b"dich")]), "Grüße"),
    "cut inside a letter": BrokenStream((HOLD, GRUESSE[: GRUESSE.index("ß".encode()) + 1]), " an dich"),
    "cut inside the CRLF of a line": BrokenStream((LAST, LAST[:-3]), " an"),
    "cut inside the CRLF of an event": BrokenStream((LAST, LAST[:-1]), " an"),
    "ended between two events": BrokenStream((GRUESSE, HOLD), "Grüße an dich", is_cut=False),
    "ended inside an event": BrokenStream((GRUESSE, HOLD[:-2]), "Grüße", is_cut=False),
    "error event": BrokenStream((GRUESSE, ERROR, DONE), "Grüße", is_cut=False),
    "error event of llama.cpp": BrokenStream((GRUESSE, LLAMA_ERROR, DONE), "Grüße", is_cut=False),
    "error event with a name": BrokenStream((GRUESSE, b"event: error\n", ERROR), "Grüße", is_cut=False),
}


@pytest.mark.usefixtures("keep_circuit_closed")
@pytest.mark.parametrize("kind", BROKEN_STREAMS)
def test_no_client_accepts_a_broken_stream_as_complete(kind: str, client: Any, product: Product) -> None:
    broken = BROKEN_STREAMS[kind]
    product.upstream.stream_with(broken.upstream_chunks())
    result = StreamResult()
    client(product, result)
    assert result.text == broken.text
    assert result.finish in ("stop" if STOP in broken.events else None, *(["error"] if isinstance(client, Npm) else []))
    assert result.error is not None
    assert result.error[2].startswith(
        "The model has failed" if kind.startswith("error event") else "Provider scripted: "
    )


@pytest.mark.usefixtures("keep_circuit_closed")
def test_failure_before_the_first_word_is_an_http_status(client: Any, product: Product) -> None:
    body = b'{"error":{"message":"Too fast","type":"requests","code":"rate_limit_exceeded"}}'
    product.upstream.respond_with(429, body, {"content-type": "application/json", "retry-after": "3"})
    result = StreamResult()
    client(product, result)
    assert result.text == ""
    assert result.error is not None
    assert "Too fast" in result.error[2]
    assert result.error[1] == (None if client is stream_clients.curl else 429)


@pytest.mark.usefixtures("keep_circuit_closed")
@pytest.mark.parametrize(
    ("upstream_chunks", "status"),
    [([ERROR], 502), ([COMMENT, ERROR], 502), ([COMMENT], 504), ([GRUESSE[:20]], 504), ([], 504)],
    ids=["an error", "an error after a comment", "a comment", "half an event", "nothing"],
)
def test_stream_that_fails_before_its_first_event_is_a_json_error(
    upstream_chunks: Iterable[bytes], status: int, product: Product
) -> None:
    product.upstream.stream_with(upstream_chunks)
    with openai.OpenAI(**stream_clients.settings(product)) as sdk, pytest.raises(openai.APIStatusError) as failed:
        sdk.chat.completions.create(**STREAM_REQUEST)
    assert failed.value.status_code == status
    assert failed.value.response.headers["content-type"].startswith("application/json")


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_prints_what_the_provider_sent_byte_for_byte(product: Product) -> None:
    events = [
        b": a comment\r\n\r\n",
        event("CRLF", end=b"\r\n\r\n"),
        b"event: message\nid: 7\nretry: 3000\n" + event("with fields"),
        b'data: {"choices":\ndata:  [{"index":0,"delta":{"content":"two lines"}}]}\n\n',
        b"\n",
        b'data:{ "choices":[{"index":0,"delta":{"content":"\\u00fc"},"finish_reason":null}], "x": 1.50 }\r\r',
        event("x" * 1024 * 1024),
        event("ü", "stop"),
        DONE,
    ]
    product.upstream.stream_with(events)
    command = stream_clients.curl_command(product)
    completed = subprocess.run(command, capture_output=True, timeout=2 * CLIENT_TIMEOUT_S, check=True)
    assert completed.stdout == b"".join(events)


def test_sdk_receives_a_response_word_by_word(product: Product) -> None:
    with openai.OpenAI(**stream_clients.settings(product)) as sdk:
        response = sdk.responses.create(model=MODEL, input="How do LLMs work?")
        events = list(sdk.responses.create(model=MODEL, input="How do LLMs work?", stream=True))
    words = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(words).strip() == response.output_text
    assert len(words) > 1
    assert events[-1].type == "response.completed"


def test_client_disconnect_ends_the_provider_call_within_two_seconds(product: Product) -> None:
    disconnected = threading.Event()

    def upstream_chunks() -> Iterator[bytes]:
        try:
            for _ in range(10_000):
                yield event("more ")
                disconnected.wait(0.01)
        finally:
            disconnected.set()

    product.upstream.stream_with(upstream_chunks())
    with (
        openai.OpenAI(**stream_clients.settings(product)) as sdk,
        sdk.chat.completions.create(**STREAM_REQUEST) as stream,
    ):
        assert next(iter(stream)).choices[0].delta.content == "more "
    assert disconnected.wait(DISCONNECT_TIMEOUT_S)

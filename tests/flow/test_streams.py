"""Streamed chats through the running product, read by the clients that people have."""

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
from tests.flow.stream_clients import ASKED, CLIENTS, MODEL, PATIENCE_S, STREAMED, Npm, Seen

DONE = b"data: [DONE]\n\n"
ERROR = b'data: {"error":{"message":"The model has failed","type":"server_error","code":null,"param":null}}\n\n'
COMMENT = b": the model is being loaded\n\n"
PIECES = 64
PIECE_S = 0.02


@pytest.fixture(params=CLIENTS, ids=lambda client: client.__name__)
def client(request: pytest.FixtureRequest) -> Any:
    if lack := stream_clients.lack(request.param):
        pytest.skip(lack)
    return request.param


@pytest.fixture(scope="module", autouse=True)
def processes_end() -> Iterator[None]:
    yield
    for one in CLIENTS:
        if isinstance(one, Npm):
            one.close()


@pytest.fixture
def closed_circuit(product: Product) -> Iterator[None]:
    """As many calls that go well as keep the provider's circuit closed, whatever goes wrong between them."""
    assert product.http.post("/v1/chat/completions", json=ASKED).status_code == 200
    yield
    assert product.http.post("/v1/chat/completions", json=ASKED).status_code == 200


def event(text: str | None, finish: str | None = None, end: bytes = b"\n\n") -> bytes:
    choice = {"index": 0, "delta": {} if text is None else {"content": text}, "finish_reason": finish}
    told = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [choice]}
    return b"data: " + json.dumps(told, ensure_ascii=False).encode() + end


STOP = event(None, "stop")


def test_a_client_hears_the_whole_answer_its_end_and_its_usage(client: Any, product: Product) -> None:
    whole = product.http.post("/v1/chat/completions", json=ASKED).json()
    seen = Seen()
    client(product, seen)
    assert seen.error is None
    assert seen.text == whole["choices"][0]["message"]["content"]
    assert (seen.finish, seen.usage) == ("stop", tuple(whole["usage"].values()))
    assert json.loads(product.upstream.requests[-1].body)["stream_options"] == {"include_usage": True}


def test_a_client_hears_each_word_before_the_provider_says_the_next(client: Any, product: Product) -> None:
    heard = threading.Semaphore(0)
    words = [f"word {number} " for number in range(PIECES)]

    def pieces() -> Iterator[bytes]:
        for word in words:
            yield event(word)
            if not heard.acquire(timeout=PATIENCE_S / 2):
                raise ConnectionCut
        yield from (STOP, DONE)

    product.upstream.stream_with(pieces())
    seen = Seen(heard=lambda _: heard.release())
    client(product, seen)
    assert seen.error is None
    assert (seen.text, seen.finish) == ("".join(words), "stop")


def test_words_that_come_one_by_one_are_not_gathered(product: Product, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product.upstream, "piece_s", PIECE_S)
    sent, sent_when_heard = 0, list[int]()

    def pieces() -> Iterator[bytes]:
        nonlocal sent
        for number in range(PIECES):
            sent += 1
            yield event(f"{number} ")
        yield from (STOP, DONE)

    product.upstream.stream_with(pieces())
    stream_clients.openai_sync(product, Seen(heard=lambda _: sent_when_heard.append(sent)))
    assert len(sent_when_heard) == PIECES
    assert sent_when_heard[0] < PIECES
    assert len(set(sent_when_heard)) > PIECES // 8


@pytest.mark.parametrize("is_cut", [False, True])
def test_an_answer_that_lacks_but_its_done_is_whole(is_cut: bool, client: Any, product: Product) -> None:
    product.upstream.stream_with(Broken((event("All"), STOP), "All", is_cut).pieces())
    seen = Seen()
    client(product, seen)
    assert (seen.error, seen.text, seen.finish) == (None, "All", "stop")


@dataclass(frozen=True)
class Broken:
    """An answer that breaks off after some text. It `is_cut` where its connection is."""

    sent: tuple[bytes, ...]
    text: str
    is_cut: bool = True

    def pieces(self) -> Iterator[bytes]:
        yield from self.sent
        if self.is_cut:
            raise ConnectionCut


GRUESSE, HOLD, LAST = event("Grüße"), event(" an dich"), event(" an", end=b"\r\n\r\n")
LLAMA_ERROR = b'error: {"code":500,"message":"The model has failed","type":"server_error"}\n\n'
GONE_S = 2
BROKEN = {
    "cut between two events": Broken((GRUESSE, HOLD), "Grüße an dich"),
    "cut inside an event": Broken((GRUESSE, HOLD[: HOLD.index(b"dich")]), "Grüße"),
    "cut inside a letter": Broken((HOLD, GRUESSE[: GRUESSE.index("ß".encode()) + 1]), " an dich"),
    "cut inside the CRLF of a line": Broken((LAST, LAST[:-3]), " an"),
    "cut inside the CRLF of an event": Broken((LAST, LAST[:-1]), " an"),
    "ended between two events": Broken((GRUESSE, HOLD), "Grüße an dich", is_cut=False),
    "ended inside an event": Broken((GRUESSE, HOLD[:-2]), "Grüße", is_cut=False),
    "told of an error": Broken((GRUESSE, ERROR, DONE), "Grüße", is_cut=False),
    "told of an error as llama.cpp does": Broken((GRUESSE, LLAMA_ERROR, DONE), "Grüße", is_cut=False),
    "told of an error by its name": Broken((GRUESSE, b"event: error\n", ERROR), "Grüße", is_cut=False),
}


@pytest.mark.usefixtures("closed_circuit")
@pytest.mark.parametrize("how", BROKEN)
def test_no_client_takes_an_answer_that_broke_off_for_a_whole_one(how: str, client: Any, product: Product) -> None:
    broken = BROKEN[how]
    product.upstream.stream_with(broken.pieces())
    seen = Seen()
    client(product, seen)
    assert seen.text == broken.text
    assert seen.finish in ("stop" if STOP in broken.sent else None, *(["error"] if isinstance(client, Npm) else []))
    assert seen.error is not None
    assert seen.error[2].startswith("The model has failed" if how.startswith("told of") else "Provider scripted ")


@pytest.mark.usefixtures("closed_circuit")
def test_a_client_is_told_of_a_failure_before_the_first_word_by_the_status(client: Any, product: Product) -> None:
    told = b'{"error":{"message":"Too fast","type":"requests","code":"rate_limit_exceeded"}}'
    product.upstream.answer_with(429, told, {"content-type": "application/json", "retry-after": "3"})
    seen = Seen()
    client(product, seen)
    assert seen.text == ""
    assert seen.error is not None
    assert "Too fast" in seen.error[2]
    assert seen.error[1] == (None if client is stream_clients.curl else 429)


@pytest.mark.usefixtures("closed_circuit")
@pytest.mark.parametrize(
    ("pieces", "status"),
    [([ERROR], 502), ([COMMENT, ERROR], 502), ([COMMENT], 504), ([GRUESSE[:20]], 504), ([], 504)],
    ids=["an error", "an error after a comment", "a comment", "half an event", "nothing"],
)
def test_a_stream_that_fails_before_its_first_event_is_an_error_in_json(
    pieces: Iterable[bytes], status: int, product: Product
) -> None:
    product.upstream.stream_with(pieces)
    with openai.OpenAI(**stream_clients.settings(product)) as sdk, pytest.raises(openai.APIStatusError) as failed:
        sdk.chat.completions.create(**STREAMED)
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
    ran = subprocess.run(command, capture_output=True, timeout=2 * PATIENCE_S, check=True)
    assert ran.stdout == b"".join(events)


def test_the_sdk_hears_a_response_word_by_word(product: Product) -> None:
    with openai.OpenAI(**stream_clients.settings(product)) as sdk:
        whole = sdk.responses.create(model=MODEL, input="How do LLMs work?")
        events = list(sdk.responses.create(model=MODEL, input="How do LLMs work?", stream=True))
    words = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(words).strip() == whole.output_text
    assert len(words) > 1
    assert events[-1].type == "response.completed"


def test_a_client_that_hangs_up_ends_the_call_to_the_provider_within_two_seconds(product: Product) -> None:
    gone = threading.Event()

    def pieces() -> Iterator[bytes]:
        try:
            for _ in range(10_000):
                yield event("more ")
                gone.wait(0.01)
        finally:
            gone.set()

    product.upstream.stream_with(pieces())
    with openai.OpenAI(**stream_clients.settings(product)) as sdk, sdk.chat.completions.create(**STREAMED) as stream:
        assert next(iter(stream)).choices[0].delta.content == "more "
    assert gone.wait(GONE_S)

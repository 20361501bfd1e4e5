"""Streamed calls to one provider, as the gateway makes them, and streams that servers send."""

import json
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, nullcontext

import httpx

from aiserver.clock import Clock
from aiserver.errors import ProviderError
from aiserver.operations import CHAT
from aiserver.providers.adapters.openai.stream import OpenAiEventMapper
from aiserver.providers.http import create_client
from aiserver.providers.provider import Provider
from aiserver.providers.stream import EventMapper, ProviderStream, map_events, split_events
from tests import hostile_servers
from tests.fakes import FakeClock
from tests.hostile_servers import Behaviour
from tests.providers.calls import dispatcher, make_call, provider, upstream_of

REQUEST_BODY = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}'
HEAD = hostile_servers.head(200, "content-type: text/event-stream", "transfer-encoding: chunked")
DONE = b"data: [DONE]\n\n"
LAST_CHUNK = b"0\r\n\r\n"


def chunk(content: str | None = None, finish: str | None = None, **members: object) -> bytes:
    """One event of a streamed chat completion."""
    delta = {} if content is None else {"content": content}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    event = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [choice], **members}
    return f"data: {json.dumps(event, ensure_ascii=False)}\n\n".encode()


def http_chunks(*parts: bytes) -> bytes:
    """Encode each part as an HTTP/1.1 chunk."""
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts if part)


def serve_stream(*parts: bytes, end: bytes = LAST_CHUNK) -> Behaviour:
    """A server that sends these parts and a proper end, or `end` instead."""
    return hostile_servers.send_raw(HEAD, http_chunks(*parts) + end)


@contextmanager
def open_stream(
    target: Provider,
    operation: str = "chat.completions",
    *,
    body: bytes = REQUEST_BODY,
    api_key: str | None = "k",
    head_timeout_s: float = 5,
    total_timeout_s: float = 20,
    clock: Clock | None = None,
    http: httpx.Client | None = None,
) -> Generator[ProviderStream]:
    """A streamed call over `http`, or over a connection of its own."""
    clock = clock or FakeClock()
    call = make_call(
        operation, body, timeout_s=total_timeout_s, head_timeout_s=head_timeout_s, clock=clock, stream=True
    )
    with (
        create_client() if http is None else nullcontext(http) as client,
        dispatcher(client, clock).open_stream(upstream_of(target, api_key=api_key), call) as stream,
    ):
        yield stream


def openai_mapper() -> OpenAiEventMapper:
    """The mapper of a chat whose caller requested the usage."""
    return OpenAiEventMapper(upstream_of(provider("http://x/v1")), CHAT, hides_usage=False)


def stream_of(*chunks: bytes, mapper: EventMapper | None = None) -> Iterator[bytes | None]:
    """The client events for chunks of a provider, without a network."""
    return map_events(split_events(iter([[chunk] for chunk in chunks]), "p"), mapper or openai_mapper(), "p")


def read_stream(stream: Iterable[bytes | None]) -> tuple[bytes, ProviderError | None]:
    """Return the bytes received and the error that ends the stream."""
    received: list[bytes] = []
    try:
        received.extend(part or b"" for part in stream)
    except ProviderError as error:
        return b"".join(received), error
    return b"".join(received), None


def stream_from(
    *behaviours: Behaviour, operation: str = "chat.completions", preset: str = "", api_key: str = "k"
) -> tuple[bytes, ProviderError | None]:
    """Return bytes and error of a stream from a server with these behaviours. The call itself may fail instead."""
    with hostile_servers.receiver(*behaviours) as server:
        target = provider(f"http://127.0.0.1:{server.port}/v1", preset=preset)
        try:
            with open_stream(target, operation, api_key=api_key) as stream:
                return read_stream(stream.events)
        except ProviderError as error:
            return b"", error

"""One streamed call to one provider, as the router makes it, and what servers say in a stream."""

import json
from collections.abc import Generator, Iterable
from contextlib import closing, contextmanager

from aiserver.clock import Clock
from aiserver.errors import ProviderError
from aiserver.providers.http import create_client
from aiserver.providers.openai import OpenAiClient
from aiserver.providers.provider import Provider
from aiserver.providers.stream import ProviderStream
from tests import hostile_servers
from tests.fakes import FakeClock
from tests.hostile_servers import Behaviour
from tests.providers.calls import provider

QUESTION = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}'
HEAD = hostile_servers.head(200, "content-type: text/event-stream", "transfer-encoding: chunked")
DONE = b"data: [DONE]\n\n"
END = b"0\r\n\r\n"


def chunk(content: str | None = None, finish: str | None = None, **more: object) -> bytes:
    """One event of a chat."""
    delta = {} if content is None else {"content": content}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    told = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [choice], **more}
    return f"data: {json.dumps(told, ensure_ascii=False)}\n\n".encode()


def framed(*pieces: bytes) -> bytes:
    """As HTTP/1.1 sends pieces."""
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece)


def streams(*pieces: bytes, end: bytes = END) -> Behaviour:
    """An orderly stream, or one that ends otherwise."""
    return hostile_servers.says(HEAD, framed(*pieces) + end)


@contextmanager
def opened(
    asked: Provider,
    operation: str = "chat.completions",
    *,
    body: bytes = QUESTION,
    model_is_configured: bool = True,
    begin_s: float = 5,
    total_s: float = 20,
    clock: Clock | None = None,
) -> Generator[ProviderStream]:
    with create_client() as http:
        stream = OpenAiClient(http, clock or FakeClock()).stream(
            asked,
            operation,
            body,
            api_key="k",
            model_is_configured=model_is_configured,
            head_timeout_s=begin_s,
            total_timeout_s=total_s,
        )
        with closing(stream):
            yield stream


def heard(stream: Iterable[bytes | None]) -> tuple[bytes, ProviderError | None]:
    """All that comes of it, and the error it ends with."""
    came: list[bytes] = []
    try:
        came.extend(piece or b"" for piece in stream)
    except ProviderError as error:
        return b"".join(came), error
    return b"".join(came), None


def said(
    *behaviours: Behaviour, operation: str = "chat.completions", preset: str = ""
) -> tuple[bytes, ProviderError | None]:
    """What comes of a stream from a server that behaves so; an error may come in its place."""
    with hostile_servers.receiver(*behaviours) as server:
        asked = provider(f"http://127.0.0.1:{server.port}/v1", preset=preset)
        try:
            with opened(asked, operation) as stream:
                return heard(stream)
        except ProviderError as error:
            return b"", error

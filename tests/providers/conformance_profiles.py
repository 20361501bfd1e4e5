"""How each provider is spoken to and answers: what the conformance suite must be given, and the catalogue's rows so.

A provider of another protocol brings a `Manner` of its own: the suite asserts what the product promises its callers,
and asks the manner how that is said at the provider's end.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx

from aiserver.aws.bedrock import BedrockWire
from aiserver.errors import ProviderResponse
from aiserver.providers.catalogue import CATALOGUE, Preset
from aiserver.providers.http import ProviderRequest
from aiserver.providers.openai import PATHS, OpenAiClient
from aiserver.providers.provider import Provider
from aiserver.providers.registry import AdapterRegistry
from aiserver.providers.translation.adapter import ResponseContext
from aiserver.providers.translation.chat import Chat
from aiserver.router import ProviderClient
from tests.fakes import FakeClock
from tests.providers.fake_provider import Said
from tests.vendors.dialect import Dialect
from tests.vendors.dialects import DIALECTS
from tests.vendors.semantics import Answer

KEY = "sk-of-the-gateway-itself"
TOKEN = "0" * 32
BORN = ResponseContext(FakeClock().now_ms() // 1000, lambda: "call_born", id=f"chatcmpl-{TOKEN}", model="m")
USAGE = '{"prompt_tokens": 7, "odd": 1.50}'
QUESTIONS = {
    "chat.completions": b'{ "messages":[{"role":"user","content":"\\u00fc"}],\n"model":"m","x":[2.50,1E400,-0] }',
    "embeddings": b'{"input": ["a", "b"], "model": "m", "dimensions": 2.50e1}',
    "responses": b'{"model":"m","input":"hi","store":false,"y":{"Z":null}}',
}
ANSWERS = {
    "chat.completions": b'{"choices": [{"index":0, "z":1e3}], "usage": %s,"new":"\\ud83d\\ude00"}',
    "embeddings": b'{"object":"list","data":[{"embedding":[0.10,-0]}],"usage":%s}',
    "responses": b'{"id":"r","error":null,"output":[],"usage":%s}',
}


STREAM = (
    b'data: {"choices":[{"index":0,"delta":{"content":"\\u00fc"},"finish_reason":null}],"x":2.50}\n\n'
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    b"data: [DONE]\n\n"
)


class Caller(ProviderClient, Protocol):
    """What a protocol's class can do."""

    def list_models(self, provider: Provider, *, api_key: str | None, timeout_s: float) -> list[str]: ...


@dataclass(frozen=True)
class Exchange:
    """One question and its answer at both ends: what the product is given and answers, what the server sees and says.

    `path` is the server's, from its root.
    """

    operation: str
    asked: bytes
    path: str
    seen: bytes
    said: bytes
    answered: bytes
    usage: str


class Manner(Protocol):
    """One provider as the suite sees it.

    `ours` are refusals of our key or account, beyond statuses 401 to 403. `error` is how it says a message with a
    status, `told` what a caller then reads beside responseStatus. `listing` is None where it lists no models.

    `stream` is a chat as it streams it, and as our caller gets it; `stream_type` is the media type it has there.
    """

    name: str

    @property
    def exchanges(self) -> list[Exchange]: ...
    @property
    def credential(self) -> tuple[str, str]: ...
    @property
    def list_path(self) -> str: ...
    @property
    def listing(self) -> bytes | None: ...
    @property
    def models(self) -> list[str]: ...
    @property
    def ours(self) -> Iterable[Said]: ...
    @property
    def stream(self) -> tuple[bytes, bytes]: ...
    @property
    def stream_type(self) -> str: ...

    def provider(self, origin: str) -> Provider: ...
    def caller(self, http: httpx.Client) -> Caller: ...
    def error(self, status: int, message: str) -> Said: ...
    def told(self, status: int, message: str) -> dict[str, Any]: ...


ErrorShape = Callable[[int, str], object]


def openai_error(status: int, message: str) -> object:
    return {"error": {"message": message, "type": "t", "code": None, "param": "p"}, "extra": 2.5}


# Where an error does not look like OpenAI's: see the quirks of providers/catalogue.py.
ERRORS: dict[str, ErrorShape] = {
    "gemini": lambda status, message: [{"error": {"code": status, "message": message, "status": "S"}}],
    "mistral": lambda _, message: {"object": "error", "message": {"detail": [{"msg": message}]}, "code": None},
    "openrouter": lambda status, message: {"error": {"code": status, "message": message, "metadata": {"a": 1}}},
    "tgi": lambda _, message: {"error": message, "error_type": "validation"},
    "xai": lambda _, message: {"code": "Client specified an invalid argument", "error": message},
}
LISTINGS: dict[str, Callable[[list[dict[str, str]]], object]] = {"together": lambda models: models}


@dataclass(frozen=True)
class Row:
    """A row of the catalogue, as a `Manner`."""

    name: str
    row: Preset

    @property
    def _path(self) -> str:
        return urlsplit(self.row.base_url.replace("{port}", "1")).path

    @property
    def exchanges(self) -> list[Exchange]:
        return [self._exchange(operation) for operation in self.row.operations]

    def _exchange(self, operation: str) -> Exchange:
        asked, said = QUESTIONS[operation], ANSWERS[operation] % USAGE.encode()
        return Exchange(operation, asked, self._path + PATHS[operation], asked, said, said, USAGE)

    @property
    def credential(self) -> tuple[str, str]:
        header = self.row.auth_header
        return header, f"Bearer {KEY}" if header == "authorization" else KEY

    @property
    def list_path(self) -> str:
        return self._path + "/models"

    @property
    def listing(self) -> bytes | None:
        listed = [{"id": self.row.id_prefix + name, "object": "model"} for name in ("b/2", "a:1")]
        shape = LISTINGS.get(self.name, lambda models: {"object": "list", "data": models})
        return json.dumps(shape(listed)).encode() if self.row.lists_models else None

    @property
    def models(self) -> list[str]:
        return ["a:1", "b/2"]

    @property
    def ours(self) -> Iterable[Said]:
        for refusal in self.row.credential_errors:
            yield self.error(refusal.status, f"{refusal.message_prefix}: {KEY[:5]}***")

    @property
    def stream(self) -> tuple[bytes, bytes]:
        return STREAM, STREAM

    @property
    def stream_type(self) -> str:
        return "text/event-stream"

    def provider(self, origin: str) -> Provider:
        base_url = origin + self._path
        return Provider.model_validate({"name": "p", "preset": self.name, "base_url": base_url, "models": {"m": ""}})

    def caller(self, http: httpx.Client) -> Caller:
        return OpenAiClient(http, FakeClock())

    def error(self, status: int, message: str) -> Said:
        return Said(status, json.dumps(ERRORS.get(self.name, openai_error)(status, message)).encode())

    def told(self, status: int, message: str) -> dict[str, Any]:
        """Its own object with all its members; where that has no error object, one is made of the message it has."""
        said = json.loads(self.error(status, message).body)
        own: dict[str, Any] = said[0] if isinstance(said, list) else said
        if isinstance(own.get("error"), dict):
            return own
        made = {"message": message, "type": "invalid_request_error", "code": "invalid_request"}
        return {**own, "error": made}


class StillClock(FakeClock):
    """What it makes is always the same: an answer's id is known before."""

    def token(self) -> str:
        return TOKEN


@dataclass(frozen=True)
class Translated:
    """A row of the catalogue whose vendor is translated, as a `Manner`."""

    name: str
    row: Preset
    dialect: Dialect

    @property
    def exchanges(self) -> list[Exchange]:
        said = self.dialect.message(Answer("Hello"))
        told = self.dialect.vendor.map_response(said, BORN)
        asked, seen = self._asked
        path, body, usage = self._path + seen.path, seen.body or b"", told.usage or ""
        return [Exchange("chat.completions", asked, path, body, said, told.body, usage)]

    @property
    def _asked(self) -> tuple[bytes, ProviderRequest]:
        asked = b'{"messages":[{"role":"user","content":"\\u00fc"}],"model":"m","temperature":2.50e-1}'
        return asked, self.dialect.vendor.build_request(Chat(asked, self.dialect.vendor.capabilities))

    @property
    def _path(self) -> str:
        return urlsplit(self.row.base_url).path

    @property
    def credential(self) -> tuple[str, str]:
        return self.dialect.credential(KEY)

    @property
    def list_path(self) -> str:
        return self._path + self.dialect.vendor.model_pages.build_request(None).path if self.row.lists_models else ""

    @property
    def listing(self) -> bytes | None:
        return self.dialect.listing(["b/2", "a:1"]) if self.row.lists_models else None

    @property
    def models(self) -> list[str]:
        return ["a:1", "b/2"]

    @property
    def ours(self) -> Iterable[Said]:
        for refusal in self.row.credential_errors:
            yield self.error(refusal.status, f"{refusal.message_prefix}: {KEY[:5]}***")

    @property
    def stream(self) -> tuple[bytes, bytes]:
        asked = Chat(self._asked[0], self.dialect.vendor.capabilities)
        translation = self.dialect.vendor.create_event_mapper(asked, BORN)
        said = self.dialect.events(Answer("Hello, you"))
        told = b"".join(translation.on_event(event) for event in said)
        whole = told if translation.is_done else told + translation.on_end()
        return b"".join(self.dialect.framed(event) for event in said), whole

    @property
    def stream_type(self) -> str:
        return self.dialect.stream_type

    def provider(self, origin: str) -> Provider:
        base_url = origin + self._path
        return Provider.model_validate({"name": "p", "preset": self.name, "base_url": base_url, "models": {"m": ""}})

    def caller(self, http: httpx.Client) -> Caller:
        return AdapterRegistry(lambda: http, StillClock(), BedrockWire)[self.row.type]

    def error(self, status: int, message: str) -> Said:
        said = self.dialect.error(status, message)
        return Said(status, said.body)

    def told(self, status: int, message: str) -> dict[str, Any]:
        said = ProviderResponse(status, {}, self.error(status, message).body)
        told = json.loads(self.dialect.vendor.map_error(said).body)
        assert told["error"]["message"] == message
        return told


BY_TYPE = {dialect.type: dialect for dialect in DIALECTS}
MANNERS: list[Manner] = [
    Row(name, row) if row.type == "openai" else Translated(name, row, BY_TYPE[row.type])
    for name, row in CATALOGUE.items()
]

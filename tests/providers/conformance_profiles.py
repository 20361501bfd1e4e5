"""Protocol profiles of all providers for the conformance suite, built from the catalogue's presets.

A provider of another protocol needs a `ConformanceProfile`: the suite asserts what the product promises its callers,
and the profile encodes that in the provider's protocol.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from aiserver.operations import CHAT, OPERATIONS
from aiserver.providers.adapters.base.adapter import ChatTranslator, ResponseContext
from aiserver.providers.adapters.base.validate import parse_chat
from aiserver.providers.catalogue import CATALOGUE, Preset
from aiserver.providers.provider import Provider
from aiserver.providers.registry import load_translator
from aiserver.providers.request import ProviderRequest
from aiserver.providers.response import ProviderResponse
from tests.fakes import FakeClock
from tests.providers.fake_provider import FakeResponse
from tests.vendors.dialect import Dialect
from tests.vendors.dialects import DIALECTS
from tests.vendors.semantics import Response

KEY = "sk-of-the-gateway-itself"
TOKEN = "0" * 32
CONTEXT = ResponseContext(FakeClock().now_ms() // 1000, lambda: "call_born", id=f"chatcmpl-{TOKEN}", model="m")
USAGE = '{"prompt_tokens": 7, "odd": 1.50}'
REQUEST_BODIES = {
    "chat.completions": b'{ "messages":[{"role":"user","content":"\\u00fc"}],\n"model":"m","x":[2.50,1E400,-0] }',
    "embeddings": b'{"input": ["a", "b"], "model": "m", "dimensions": 2.50e1}',
    "responses": b'{"model":"m","input":"hi","store":false,"y":{"Z":null}}',
}
RESPONSE_BODIES = {
    "chat.completions": b'{"choices": [{"index":0, "z":1e3}], "usage": %s,"new":"\\ud83d\\ude00"}',
    "embeddings": b'{"object":"list","data":[{"embedding":[0.10,-0]}],"usage":%s}',
    "responses": b'{"id":"r","error":null,"output":[],"usage":%s}',
}


STREAM = (
    b'data: {"choices":[{"index":0,"delta":{"content":"\\u00fc"},"finish_reason":null}],"x":2.50}\n\n'
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    b"data: [DONE]\n\n"
)


class ConstantTokenClock(FakeClock):
    """A clock with a constant token, so that response ids are those of the profiles."""

    def token(self) -> str:
        return TOKEN


@dataclass(frozen=True)
class Exchange:
    """One request and response on both sides of the product.

    The caller sends `request_body` and gets `response_body`. The provider's server receives `upstream_body` at `path`,
    from its root, and sends `upstream_response`.
    """

    operation: str
    request_body: bytes
    path: str
    upstream_body: bytes
    upstream_response: bytes
    response_body: bytes
    usage: str


class ConformanceProfile(Protocol):
    """One provider's protocol for the suite.

    `account_errors` are rejections of the gateway's key or account other than statuses 401 to 403. `error_response` is
    the provider's response for a status and message, `client_error` what the caller gets of it beside responseStatus.
    `listing` is None when the provider does not list models.

    `stream` is a streamed chat as sent by the provider and as received by the caller; `stream_type` is the provider's
    media type of it.
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
    def account_errors(self) -> Iterable[FakeResponse]: ...
    @property
    def stream(self) -> tuple[bytes, bytes]: ...
    @property
    def stream_type(self) -> str: ...

    def provider(self, origin: str) -> Provider: ...
    def error_response(self, status: int, message: str) -> FakeResponse: ...
    def client_error(self, status: int, message: str) -> dict[str, Any]: ...


ErrorShape = Callable[[int, str], object]


def openai_error(status: int, message: str) -> object:
    return {"error": {"message": message, "type": "t", "code": None, "param": "p"}, "extra": 2.5}


# Error bodies that differ from OpenAI's: see the quirks of providers/catalogue.py.
ERRORS: dict[str, ErrorShape] = {
    "gemini": lambda status, message: [{"error": {"code": status, "message": message, "status": "S"}}],
    "mistral": lambda _, message: {"object": "error", "message": {"detail": [{"msg": message}]}, "code": None},
    "openrouter": lambda status, message: {"error": {"code": status, "message": message, "metadata": {"a": 1}}},
    "tgi": lambda _, message: {"error": message, "error_type": "validation"},
    "xai": lambda _, message: {"code": "Client specified an invalid argument", "error": message},
}
LISTINGS: dict[str, Callable[[list[dict[str, str]]], object]] = {"together": lambda models: models}


@dataclass(frozen=True)
class PresetProfile:
    """The profile of a preset with OpenAI's protocol."""

    name: str
    preset: Preset

    @property
    def _path(self) -> str:
        return urlsplit(self.preset.base_url.replace("{port}", "1")).path

    @property
    def exchanges(self) -> list[Exchange]:
        return [self._exchange(operation) for operation in self.preset.operations if operation in REQUEST_BODIES]

    def _exchange(self, operation: str) -> Exchange:
        request, response = REQUEST_BODIES[operation], RESPONSE_BODIES[operation] % USAGE.encode()
        return Exchange(operation, request, self._path + OPERATIONS[operation].path, request, response, response, USAGE)

    @property
    def credential(self) -> tuple[str, str]:
        header = self.preset.auth_header
        return header, f"Bearer {KEY}" if header == "authorization" else KEY

    @property
    def list_path(self) -> str:
        return self._path + "/models"

    @property
    def listing(self) -> bytes | None:
        models = [{"id": self.preset.id_prefix + name, "object": "model"} for name in ("b/2", "a:1")]
        encode = LISTINGS.get(self.name, lambda models: {"object": "list", "data": models})
        return json.dumps(encode(models)).encode() if self.preset.lists_models else None

    @property
    def models(self) -> list[str]:
        return ["a:1", "b/2"]

    @property
    def account_errors(self) -> Iterable[FakeResponse]:
        for refusal in self.preset.credential_errors:
            yield self.error_response(refusal.status, f"{refusal.message_prefix}: {KEY[:5]}***")

    @property
    def stream(self) -> tuple[bytes, bytes]:
        return STREAM, STREAM

    @property
    def stream_type(self) -> str:
        return "text/event-stream"

    def provider(self, origin: str) -> Provider:
        base_url = origin + self._path
        return Provider.model_validate({"name": "p", "preset": self.name, "base_url": base_url, "models": {"m": ""}})

    def error_response(self, status: int, message: str) -> FakeResponse:
        return FakeResponse(status, json.dumps(ERRORS.get(self.name, openai_error)(status, message)).encode())

    def client_error(self, status: int, message: str) -> dict[str, Any]:
        """The provider's error with all its members, and an added error object when it contains none."""
        body = json.loads(self.error_response(status, message).body)
        error: dict[str, Any] = body[0] if isinstance(body, list) else body
        if isinstance(error.get("error"), dict):
            return error
        return {**error, "error": {"message": message, "type": "invalid_request_error", "code": "invalid_request"}}


@dataclass(frozen=True)
class AdapterProfile:
    """The profile of a preset with an adapter."""

    name: str
    preset: Preset
    dialect: Dialect

    @property
    def _translator(self) -> ChatTranslator:
        return load_translator(self.preset.type)

    @property
    def exchanges(self) -> list[Exchange]:
        upstream_response = self.dialect.encode_response(Response("Hello"))
        response = self._translator.map_response(upstream_response, CONTEXT)
        body, request = self._request
        path, upstream_body, usage = self._path + request.path, request.body or b"", response.usage or ""
        return [Exchange("chat.completions", body, path, upstream_body, upstream_response, response.body, usage)]

    @property
    def _request(self) -> tuple[bytes, ProviderRequest]:
        body = b'{"messages":[{"role":"user","content":"\\u00fc"}],"model":"m","temperature":2.50e-1}'
        return body, self._translator.build_request(parse_chat(body, self._translator.capabilities))

    @property
    def _path(self) -> str:
        return urlsplit(self.preset.base_url).path

    @property
    def credential(self) -> tuple[str, str]:
        return self.dialect.credential(KEY)

    @property
    def list_path(self) -> str:
        pages = self._translator.model_pages
        return self._path + pages.build_request(None).path if pages and self.preset.lists_models else ""

    @property
    def listing(self) -> bytes | None:
        return self.dialect.listing(["b/2", "a:1"]) if self.preset.lists_models else None

    @property
    def models(self) -> list[str]:
        return ["a:1", "b/2"]

    @property
    def account_errors(self) -> Iterable[FakeResponse]:
        for refusal in self.preset.credential_errors:
            yield self.error_response(refusal.status, f"{refusal.message_prefix}: {KEY[:5]}***")

    @property
    def stream(self) -> tuple[bytes, bytes]:
        mapper = self._translator.create_event_mapper(CONTEXT)
        events = self.dialect.encode_events(Response("Hello, you"))
        output = b"".join(mapper.on_event(event) for event in events)
        output += b"" if mapper.is_done else mapper.on_end()
        return b"".join(self.dialect.encode_frame(event) for event in events), output

    @property
    def stream_type(self) -> str:
        return self.dialect.stream_type

    def provider(self, origin: str) -> Provider:
        base_url = origin + self._path
        return Provider.model_validate({"name": "p", "preset": self.name, "base_url": base_url, "models": {"m": ""}})

    def error_response(self, status: int, message: str) -> FakeResponse:
        return FakeResponse(status, self.dialect.error_response(status, message).body)

    def client_error(self, status: int, message: str) -> dict[str, Any]:
        response = ProviderResponse(status, {}, self.error_response(status, message).body)
        error = json.loads(self._translator.map_error(response).body)
        assert error["error"]["message"] == message
        return error


BY_TYPE = {dialect.type: dialect for dialect in DIALECTS}
# The providers of chats: tests/audio covers audio operations.
PROFILES: list[ConformanceProfile] = [
    PresetProfile(name, preset) if preset.type == "openai" else AdapterProfile(name, preset, BY_TYPE[preset.type])
    for name, preset in CATALOGUE.items()
    if CHAT.name in preset.operations
]

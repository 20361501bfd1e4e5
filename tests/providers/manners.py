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

from aiserver.providers.catalogue import CATALOGUE, Preset
from aiserver.providers.openai import PATHS, OpenAi
from aiserver.providers.provider import Provider
from aiserver.router import ProviderProtocol
from tests.fakes import FakeClock
from tests.providers.standin import Said

KEY = "sk-of-the-gateway-itself"
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


class Caller(ProviderProtocol, Protocol):
    """What a protocol's class can do."""

    def models(self, provider: Provider, *, api_key: str | None, deadline_s: float) -> list[str]: ...


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

    `stream` is a chat as it streams it, two events at least, and as our caller gets it.
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
        for refusal in self.row.refusals:
            yield self.error(refusal.status, f"{refusal.words}: {KEY[:5]}***")

    @property
    def stream(self) -> tuple[bytes, bytes]:
        return STREAM, STREAM

    def provider(self, origin: str) -> Provider:
        base_url = origin + self._path
        return Provider.model_validate({"name": "p", "preset": self.name, "base_url": base_url, "models": {"m": ""}})

    def caller(self, http: httpx.Client) -> Caller:
        return OpenAi(http, FakeClock())

    def error(self, status: int, message: str) -> Said:
        return Said(status, json.dumps(ERRORS.get(self.name, openai_error)(status, message)).encode())

    def told(self, status: int, message: str) -> dict[str, Any]:
        """Its own object with all its members; where that has no error object, one is made of the message it has."""
        said = json.loads(self.error(status, message).body)
        own: dict[str, Any] = said[0] if isinstance(said, list) else said
        if isinstance(own.get("error"), dict):
            return own
        words = own.get("error") or f"Provider p answered status {status}"
        made = {"message": words, "type": "invalid_request_error", "code": "invalid_request"}
        return {**own, "error": made}


MANNERS: list[Manner] = [Row(name, row) for name, row in CATALOGUE.items()]

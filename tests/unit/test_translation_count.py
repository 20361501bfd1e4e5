"""A body is translated at most once for each vendor and model, and only when its candidate is reached."""

from collections.abc import Iterator

import pytest

from aiserver.aws.bedrock import bedrock_transport
from aiserver.errors import InvalidRequest
from aiserver.providers.adapters.base import translation
from aiserver.providers.dispatch import Dispatcher
from aiserver.providers.http import create_client
from aiserver.providers.registry import AdapterRegistry
from aiserver.routing.admission import AdmissionControl
from aiserver.routing.failover import Failover, FailoverResult
from local.scripted import ScriptedProvider
from tests.app import BODY, TestApp

OVERLOADED = b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}'


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedProvider]:
    with ScriptedProvider() as provider:
        yield provider


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The model of each translation."""
    translated: list[str] = []
    parse_chat = translation.parse_chat

    def record_and_parse(body: bytes, capabilities: object, model: str) -> object:
        translated.append(model)
        return parse_chat(body, capabilities, model)  # pyright: ignore

    monkeypatch.setattr(translation, "parse_chat", record_and_parse)
    return translated


def run_pass(upstream: ScriptedProvider, *upstream_models: str, body: str = BODY) -> FailoverResult:
    """One pass over providers of type `anthropic`, in this order, which are all overloaded."""
    upstream.requests.clear()
    upstream.respond_with(529, OVERLOADED)
    config = {"type": "anthropic", "base_url": upstream.base_url.removesuffix("/v1")}
    app = TestApp(
        *(
            config | {"name": f"p{index}", "priority": -index, "models": {"m": model}}
            for index, model in enumerate(upstream_models)
        )
    )
    with create_client() as client:
        dispatcher = Dispatcher(client, AdapterRegistry(app.clock, bedrock_transport), app.clock)
        app.failover = Failover(dispatcher, AdmissionControl(app.clock), None, app.clock)
        return app.try_providers(20_000, body.encode())


def test_body_is_translated_once_for_each_model(upstream: ScriptedProvider, models: list[str]) -> None:
    result = run_pass(upstream, "claude-a", "claude-a", "claude-b", "claude-a")
    assert (result.attempts, len(upstream.requests)) == (4, 4)
    assert models == ["claude-a", "claude-b"]


def test_unsupported_body_is_translated_once_for_each_model(upstream: ScriptedProvider, models: list[str]) -> None:
    result = run_pass(upstream, "claude-a", "claude-a", "claude-b", body=BODY.replace('"messages"', '"n":2,"messages"'))
    assert isinstance(result.error, InvalidRequest)
    assert (result.attempts, upstream.requests, models) == (0, [], ["claude-a", "claude-b"])


def test_body_is_not_translated_for_a_candidate_that_is_not_reached(
    upstream: ScriptedProvider, models: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aiserver.routing.failover.CandidateOutcome.allows_next", False)
    assert run_pass(upstream, "claude-a", "claude-b").attempts == 1
    assert models == ["claude-a"]

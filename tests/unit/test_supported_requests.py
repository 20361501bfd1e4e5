"""Providers that do not support a request are skipped; a request that none supports is rejected before any call."""

import json
from typing import Any

import pytest

from aiserver.clock import Deadline
from aiserver.errors import InvalidRequest, ProviderUnavailable
from aiserver.jobs.states import JobState
from aiserver.providers.provider import Provider
from aiserver.usecases.complete import CompletionResult
from aiserver.wire import requests
from aiserver.wire.upstream_body import without_vendor_members
from tests.app import BODY, ME, TestApp


def make_app(*unsupported_models: str) -> TestApp:
    """Return an app with providers a, b and c of one model, whose upstream names are x, y and z."""
    configs = [("a", "x", 3), ("b", "y", 2), ("c", "z", 1)]
    app = TestApp(*({"name": name, "priority": priority, "models": {"m": model}} for name, model, priority in configs))
    app.dispatcher.unsupported_models = unsupported_models
    return app


def complete(app: TestApp) -> CompletionResult:
    return app.complete.run(
        requests.bind_chat(BODY), owner=ME.owner, base_url="", deadline=Deadline(app.clock.now + 9_000)
    )


def provider_names(app: TestApp) -> list[str]:
    return [name for name, _ in app.dispatcher.calls]


def test_request_fails_over_among_providers_that_support_it() -> None:
    assert complete(make_app("x")).provider == "b"
    app = make_app("y")
    app.dispatcher.outcomes = [ProviderUnavailable("unavailable")]
    assert complete(app).provider == "c"
    assert provider_names(app) == ["a", "c"]


def test_request_that_no_provider_supports_is_rejected_without_a_call() -> None:
    app = make_app("x", "y", "z")
    with pytest.raises(InvalidRequest, match="'seed' is not supported by x") as raised:
        complete(app)
    assert (raised.value.param, provider_names(app)) == ("seed", [])
    with pytest.raises(InvalidRequest):
        app.accept()
    assert (app.jobs.items, app.messages.jobs) == ({}, [])


def test_provider_failure_is_raised_when_others_do_not_support_the_request() -> None:
    app = make_app("y", "z")
    app.dispatcher.outcomes = [ProviderUnavailable("unavailable", retry_after_s=3)]
    with pytest.raises(ProviderUnavailable):
        complete(app)


def test_error_names_the_best_candidate_whatever_the_call_order_is() -> None:
    app = TestApp({"name": "a", "models": {"m": "x"}}, {"name": "b", "models": {"m": "y"}})
    app.dispatcher.unsupported_models = ("x", "y")
    for app.clock.chance in (0.1, 0.9):
        with pytest.raises(InvalidRequest, match="is not supported by x"):
            complete(app)


def test_requested_provider_must_support_the_request() -> None:
    app = make_app("x")
    request = requests.bind_chat(BODY).with_options(requests.Options(provider="a"))
    with pytest.raises(InvalidRequest, match="is not supported by x"):
        app.complete.run(request, owner=ME.owner, base_url="", deadline=Deadline(app.clock.now + 9_000))


def test_job_goes_to_the_queue_of_the_first_supporting_provider() -> None:
    app = TestApp(
        {"name": "gpu", "queue": "gpu", "priority": 1, "models": {"m": "x"}}, {"name": "b", "models": {"m": "y"}}
    )
    assert app.accept().queue == "gpu"
    app.dispatcher.unsupported_models = ("x",)
    assert app.accept().queue == "hosted"


def test_accepted_job_that_is_no_longer_supported_fails() -> None:
    app = make_app()
    job = app.accept()
    app.dispatcher.unsupported_models = ("x", "y", "z")
    failed = app.run(job)
    assert (failed.state, failed.error_code, provider_names(app)) == (JobState.FAILED, "ValidationException", [])


def test_support_is_checked_once_for_equal_providers() -> None:
    app = TestApp(*({"name": name, "models": {"m": "x"}} for name in ("a", "b", "c")))
    complete(app)
    assert app.dispatcher.checks == 1


@pytest.mark.parametrize(
    ("body", "upstream_body"),
    [
        ('{"model":"m", "anthropic": {"a": 1}}', '{"model":"m"}'),
        ('{"google":{},"model": "m","bedrock":{"x":[2.50]}}', '{"model": "m"}'),
        (
            '{"messages":[{"role":"user","content":[{"type":"text","text":"a","anthropic":{"b":{}}}]}]}',
            '{"messages":[{"role":"user","content":[{"type":"text","text":"a"}]}]}',
        ),
        (
            '{"messages":[{"tool_calls":[{"id":"1","google":{"s":"x"}}],"google":{"p":[]}}]}',
            '{"messages":[{"tool_calls":[{"id":"1"}]}]}',
        ),
        ('{"model":"m","google":null,"\\u0061nthropic": {"a":1}}', '{"model":"m"}'),
        ('{"tools":[{"bedrock":{"x":1},"type":"function"}],"x":1e400}', '{"tools":[{"type":"function"}],"x":1e400}'),
    ],
)
def test_vendor_members_are_removed_for_openai_providers(body: str, upstream_body: str) -> None:
    assert without_vendor_members(body.encode()).decode() == upstream_body


@pytest.mark.parametrize(
    "body",
    [
        b'{"anthropic": "x", "google": [1], "bedrock": 7}',
        b'{"metadata": {"anthropic": {"a": 1}}, "x": "\\"google\\": {"}',
        b'{"messages": [{"content": "say \\"anthropic\\": {}"}], "tools": [{"function": {"google": {"a": 1}}}]}',
        b'{"messages": {"anthropic": {}}, "n": 1.0}',
    ],
)
def test_lookalikes_of_vendor_members_are_unchanged(body: bytes) -> None:
    assert without_vendor_members(body) == body


def provider(**config: Any) -> Provider:
    return Provider.model_validate({"name": "p", "models": {"m": ""}} | config)


def test_provider_type_has_default_url_and_header_without_a_preset() -> None:
    anthropic = provider(type="anthropic")
    assert (anthropic.base_url, anthropic.auth_header, anthropic.operations) == (
        "https://api.anthropic.com",
        "x-api-key",
        ("chat.completions",),
    )
    proxied = provider(type="anthropic", base_url="https://other.example/anthropic")
    assert (proxied.auth_header, proxied.catalogue_preset) == ("x-api-key", anthropic.catalogue_preset)
    assert provider(preset="anthropic") == anthropic.model_copy(update={"preset": "anthropic"})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"type": "anthropic", "operations": ["embeddings"]},
            "type anthropic supports only these operations: chat.completions",
        ),
        ({"type": "anthropic", "base_url": "https://api.anthropic.com/v1/"}, "for example https://api.anthropic.com"),
        (
            {"type": "google", "base_url": "https://generativelanguage.googleapis.com/v1beta/openai"},
            "use for example https://gen",
        ),
        (
            {"type": "bedrock", "base_url": "https://bedrock-runtime.us-east-1.amazonaws.com/openai/v1"},
            "use for example https",
        ),
        ({"type": "bedrock"}, "type bedrock requires 'base_url'"),
    ],
)
def test_unsupported_operation_or_url_of_a_vendor_is_rejected(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        provider(**config)


def test_preset_requires_its_provider_type() -> None:
    with pytest.raises(ValueError, match="preset groq requires type openai"):
        provider(type="anthropic", preset="groq")
    assert json.loads(provider(preset="groq").model_dump_json())["type"] == "openai"

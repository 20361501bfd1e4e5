"""Who has no words for a request is not asked; where nobody has, it is refused before anything is done."""

import json
from typing import Any

import pytest

from aiserver.errors import InvalidRequest, ProviderUnavailable
from aiserver.jobs.states import JobState
from aiserver.providers.provider import Provider
from aiserver.usecases.complete import CompletionResult
from aiserver.wire import requests
from aiserver.wire.upstream_body import without_vendor_members
from tests.app import BODY, ME, TestApp


def house(*wordless: str) -> TestApp:
    """Providers a, b and c of one model, which they know as x, y and z."""
    named = [("a", "x", 3), ("b", "y", 2), ("c", "z", 1)]
    here = TestApp(*({"name": name, "priority": rank, "models": {"m": own}} for name, own, rank in named))
    here.protocol.wordless = wordless
    return here


def ask(here: TestApp) -> CompletionResult:
    return here.answer.run(requests.bind_chat(BODY), owner=ME.owner, base_url="", deadline_ms=here.clock.now + 9_000)


def asked(here: TestApp) -> list[str]:
    return [name for name, _ in here.protocol.calls]


def test_the_first_that_has_words_is_asked_and_the_next_of_those_when_it_fails() -> None:
    assert ask(house("x")).provider == "b"
    here = house("y")
    here.protocol.outcomes = [ProviderUnavailable("away")]
    assert ask(here).provider == "c"
    assert asked(here) == ["a", "c"]


def test_where_nobody_has_words_the_first_one_s_refusal_is_told_and_nobody_asked() -> None:
    here = house("x", "y", "z")
    with pytest.raises(InvalidRequest, match="x cannot be told 'seed'") as refused:
        ask(here)
    assert (refused.value.param, asked(here)) == ("seed", [])
    with pytest.raises(InvalidRequest):
        here.accept()
    assert (here.jobs.items, here.messages.jobs) == ({}, [])


def test_who_fails_is_told_of_though_others_have_no_words() -> None:
    here = house("y", "z")
    here.protocol.outcomes = [ProviderUnavailable("away", retry_after_s=3)]
    with pytest.raises(ProviderUnavailable):
        ask(here)


def test_one_that_is_asked_for_by_name_must_have_words() -> None:
    here = house("x")
    named = requests.bind_chat(BODY).with_provider("a")
    with pytest.raises(InvalidRequest, match="x cannot be told"):
        here.answer.run(named, owner=ME.owner, base_url="", deadline_ms=here.clock.now + 9_000)


def test_a_job_goes_to_the_queue_of_the_first_that_has_words() -> None:
    here = TestApp(
        {"name": "gpu", "queue": "gpu", "priority": 1, "models": {"m": "x"}}, {"name": "b", "models": {"m": "y"}}
    )
    assert here.accept().queue == "gpu"
    here.protocol.wordless = ("x",)
    assert here.accept().queue == "hosted"


def test_a_job_that_was_accepted_before_nobody_had_words_fails_and_says_why() -> None:
    here = house()
    job = here.accept()
    here.protocol.wordless = ("x", "y", "z")
    ended = here.run(job)
    assert (ended.state, ended.error_code, asked(here)) == (JobState.FAILED, "ValidationException", [])


def test_equals_are_judged_once() -> None:
    here = TestApp(*({"name": name, "models": {"m": "x"}} for name in ("a", "b", "c")))
    ask(here)
    assert here.protocol.looks == 1


@pytest.mark.parametrize(
    ("given", "left"),
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
def test_what_is_for_one_vendor_only_is_not_sent_to_a_provider_of_openai_s_protocol(given: str, left: str) -> None:
    assert without_vendor_members(given.encode()).decode() == left


@pytest.mark.parametrize(
    "body",
    [
        b'{"anthropic": "x", "google": [1], "bedrock": 7}',
        b'{"metadata": {"anthropic": {"a": 1}}, "x": "\\"google\\": {"}',
        b'{"messages": [{"content": "say \\"anthropic\\": {}"}], "tools": [{"function": {"google": {"a": 1}}}]}',
        b'{"messages": {"anthropic": {}}, "n": 1.0}',
    ],
)
def test_what_only_looks_so_stays_as_it_is(body: bytes) -> None:
    assert without_vendor_members(body) == body


def provider(**more: Any) -> Provider:
    return Provider.model_validate({"name": "p", "models": {"m": ""}} | more)


def test_a_type_has_its_vendor_s_address_and_header_without_a_preset() -> None:
    ours = provider(type="anthropic")
    assert (ours.base_url, ours.auth_header, ours.operations) == (
        "https://api.anthropic.com",
        "x-api-key",
        ("chat.completions",),
    )
    elsewhere = provider(type="anthropic", base_url="https://other.example/anthropic")
    assert (elsewhere.auth_header, elsewhere.catalogue_preset) == ("x-api-key", ours.catalogue_preset)
    assert provider(preset="anthropic") == ours.model_copy(update={"preset": "anthropic"})


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"type": "anthropic", "operations": ["embeddings"]}, "operations of type anthropic are chat.completions"),
        ({"type": "anthropic", "base_url": "https://api.anthropic.com/v1/"}, "as https://api.anthropic.com"),
        (
            {"type": "google", "base_url": "https://generativelanguage.googleapis.com/v1beta/openai"},
            "is as https://gen",
        ),
        ({"type": "bedrock", "base_url": "https://bedrock-runtime.us-east-1.amazonaws.com/openai/v1"}, "is as https"),
        ({"type": "bedrock"}, "type bedrock needs a base_url"),
    ],
)
def test_what_a_vendor_cannot_be_asked_for_or_at_is_refused(wrong: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        provider(**wrong)


def test_a_preset_and_another_type_do_not_go_together() -> None:
    with pytest.raises(ValueError, match="preset groq is of type openai"):
        provider(type="anthropic", preset="groq")
    assert json.loads(provider(preset="groq").model_dump_json())["type"] == "openai"

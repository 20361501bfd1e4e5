"""Providers as their operator changes and checks them: a diff first, nothing by accident, and no key ever shown."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from aiserver.admin import providers
from aiserver.admin.stack import Admin, Problem, administer
from aiserver.providers.circuit import Circuit, Tally
from aiserver.providers.openai import OpenAi, client
from local.scripted import MODELS, ScriptedProvider
from tests import moto_stack
from tests.hostile import closed_port
from tests.moto_stack import MotoStack

KEY = "sk-never-to-be-seen"
GPU: dict[str, Any] = {"name": "gpu", "base_url": "http://127.0.0.1:1/v1", "queue": "gpu", "models": {"llama3:8b": ""}}


@pytest.fixture
def admin(stack: MotoStack) -> Admin:
    stack.providers()
    outputs = {"HostedQueueUrl": "https://q", "GpuQueueUrl": "https://q", "CallbackQueueUrl": "https://q"}
    return administer("aiserver", outputs | stack.names, moto_stack.client)


@pytest.fixture
def protocols(admin: Admin) -> Iterator[dict[str, Any]]:
    with client() as http:
        yield {"openai": OpenAi(http, admin.clock)}


def wanted(*given: dict[str, Any]) -> str:
    return json.dumps({"providers": given})


def applied(admin: Admin, *given: dict[str, Any]) -> list[str]:
    """The diff that was shown."""
    changes = providers.plan(admin, wanted(*given), {"KEY": KEY})
    providers.apply(admin, changes)
    return [line for change in changes for line in change.lines()]


def test_a_diff_tells_what_is_new_what_changes_and_what_goes(admin: Admin) -> None:
    hosted = {"name": "groq", "preset": "groq", "api_key_var": "KEY", "models": {"*": ""}}
    assert applied(admin, GPU, hosted) == [
        "+ gpu  base_url: http://127.0.0.1:1/v1, queue: gpu, models: llama3:8b",
        "+ groq  preset: groq, base_url: https://api.groq.com/openai/v1, "
        "api_key_secret: /aiserver/providers/groq/api-key, operations: chat.completions, responses, models: *",
    ]
    assert applied(admin, GPU, hosted) == []
    changed = {**GPU, "concurrency": 4, "models": {"llama3:8b": "meta/llama", "m": ""}}
    assert applied(admin, changed) == [
        "~ gpu  models: llama3:8b -> llama3:8b = meta/llama, m",
        "~ gpu  concurrency: none -> 4",
        "- groq",
    ]
    assert [one["name"] for one in providers.listed(admin)] == ["gpu"]


def test_a_plan_changes_nothing(admin: Admin) -> None:
    providers.plan(admin, wanted(GPU), {})
    assert providers.listed(admin) == []


def test_what_another_changed_after_the_diff_was_shown_is_not_overwritten(admin: Admin) -> None:
    applied(admin, GPU)
    changes = providers.plan(admin, wanted({**GPU, "priority": 3}))
    providers.enable(admin, "gpu", enabled=False)
    with pytest.raises(Problem, match="gpu was changed by another meanwhile"):
        providers.apply(admin, changes)
    (stored,) = providers.listed(admin)
    assert (stored["priority"], stored["enabled"]) == (0, False)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({**GPU, "preset": "grok"}, "no such preset: grok; there are azure, bedrock"),
        ({**GPU, "api_key_secret": "/other/key"}, "below /aiserver/"),
        ({**GPU, "api_key_var": "UNSET"}, "UNSET is not set"),
        ({"name": "v", "preset": "vllm", "models": {"m": ""}}, "preset vllm needs a base_url, as in http://{host}"),
        ({**GPU, "operations": ["images"]}, "operations"),
        ({**GPU, "auth_header": "x: y"}, "auth_header"),
    ],
)
def test_a_file_that_is_wrong_is_refused_with_the_reason(given: dict[str, Any], why: str, admin: Admin) -> None:
    with pytest.raises(Problem) as refused:
        providers.plan(admin, wanted(given), {})
    assert why in str(refused.value)


def test_a_key_is_stored_as_a_secure_string_goes_with_its_provider_and_is_never_shown(
    admin: Admin, upstream: ScriptedProvider, protocols: dict[str, Any]
) -> None:
    keyed = {**GPU, "base_url": upstream.base_url, "api_key_var": "KEY"}
    told = [*applied(admin, keyed), providers.listed(admin), providers.shown(admin, "gpu")]
    told.append(providers.checked(admin, "gpu", protocols))
    assert upstream.requests[-1].headers["authorization"] == f"Bearer {KEY}"
    upstream.answer_with(401, b'{"error":{"message":"Incorrect API key provided: %s"}}' % KEY.encode())
    with pytest.raises(Problem) as refused:
        providers.checked(admin, "gpu", protocols)
    assert str(refused.value) == "gpu: it refuses the key (status 401)"
    assert KEY not in repr([told, refused.value])
    parameter = admin.ssm.get_parameter(Name="/aiserver/providers/gpu/api-key")["Parameter"]
    assert parameter.get("Type") == "SecureString"
    assert KEY not in repr(providers.plan(admin, wanted(keyed), {"KEY": KEY}))
    applied(admin)
    assert admin.ssm.get_parameters(Names=["/aiserver/providers/gpu/api-key"])["Parameters"] == []


def test_a_check_tells_how_many_models_are_listed_and_keeps_them_where_any_may_be_asked_for(
    admin: Admin, upstream: ScriptedProvider, protocols: dict[str, Any]
) -> None:
    applied(
        admin,
        {**GPU, "base_url": upstream.base_url},
        {**GPU, "name": "any", "base_url": upstream.base_url, "models": {"*": ""}},
    )
    for name in providers.to_check(admin, []):
        assert providers.checked(admin, name, protocols) == {"name": name, "models": len(MODELS)}
    assert {name: one.ids for name, one in admin.config.listings().items()} == {"any": tuple(sorted(MODELS))}
    assert {request.method for request in upstream.requests} == {"GET"}
    applied(admin)
    assert admin.config.listings() == {}


def test_a_check_of_all_leaves_out_who_is_disabled(admin: Admin) -> None:
    applied(admin, GPU, {**GPU, "name": "off", "enabled": False})
    assert providers.to_check(admin, []) == ["gpu"]
    assert providers.to_check(admin, ["off"]) == ["off"]


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (403, b"{}", "it refuses the key (status 403)"),
        (404, b"{}", "there is no {base_url}/models (status 404): is its base_url right?"),
        (200, b"<html>", "Provider gpu answered something that is no list of models"),
        (503, b'{"error":{"message":"Loading model"}}', "Loading model"),
        (500, b'{"error":{"message":"broken"}}', "broken"),
    ],
)
def test_a_check_says_what_is_wrong(
    status: int, body: bytes, why: str, admin: Admin, upstream: ScriptedProvider, protocols: dict[str, Any]
) -> None:
    applied(admin, {**GPU, "base_url": upstream.base_url})
    upstream.answer_with(status, body)
    with pytest.raises(Problem) as wrong:
        providers.checked(admin, "gpu", protocols)
    assert str(wrong.value) == "gpu: " + why.replace("{base_url}", upstream.base_url)


def test_a_check_tells_which_of_the_models_are_not_listed(
    admin: Admin, upstream: ScriptedProvider, protocols: dict[str, Any]
) -> None:
    models = {"llama3:8b": "", "mine": "not-there", "*": "nor-this"}
    applied(admin, {**GPU, "base_url": upstream.base_url, "models": models})
    with pytest.raises(Problem, match="gpu answers, but does not list nor-this, not-there; it lists gpt-4-turbo, "):
        providers.checked(admin, "gpu", protocols)


def test_a_name_without_a_tag_is_listed_as_its_latest(
    admin: Admin, upstream: ScriptedProvider, protocols: dict[str, Any]
) -> None:
    applied(admin, {**GPU, "base_url": upstream.base_url, "models": {"llama3": ""}})
    upstream.answer_with(200, b'{"data":[{"id":"llama3:latest"}]}')
    assert providers.checked(admin, "gpu", protocols) == {"name": "gpu", "models": 1}


def test_a_provider_that_cannot_be_reached_or_that_lists_nothing_is_told_as_such(
    admin: Admin, protocols: dict[str, Any]
) -> None:
    with closed_port() as port:
        applied(admin, {**GPU, "base_url": f"http://127.0.0.1:{port}/v1"}, {**GPU, "name": "azure", "preset": "azure"})
        with pytest.raises(Problem, match=r"gpu: Provider gpu cannot be reached \(.*refused\)"):
            providers.checked(admin, "gpu", protocols)
    unasked = providers.checked(admin, "azure", protocols)
    assert unasked == {"name": "azure", "models": None, "note": "Azure OpenAI (v1) has no list of models to ask for"}


def test_after_an_application_whoever_takes_any_model_is_asked_for_its_list_and_no_other(
    admin: Admin, upstream: ScriptedProvider, protocols: dict[str, Any]
) -> None:
    with closed_port() as port:
        away = {**GPU, "name": "away", "base_url": f"http://127.0.0.1:{port}/v1", "models": {"*": ""}}
        here = {**away, "name": "here", "base_url": upstream.base_url}
        one = {**here, "name": "one", "models": {"*": "always-this"}}
        applied(admin, GPU, away, here, one, {**away, "name": "off", "enabled": False})
        (line,) = providers.refresh(admin, protocols)
    assert line.startswith("/v1/models will not show what away has: away: Provider away cannot be reached")
    assert list(admin.config.listings()) == ["here"]


def test_show_tells_the_circuit_and_the_calls_under_way(admin: Admin) -> None:
    applied(admin, {**GPU, "concurrency": 4})
    now = admin.clock.now_ms()
    told = providers.shown(admin, "gpu")
    assert (told["circuit"], told["calls_under_way"], told["models_listed"]) == ("closed", 0, None)
    admin.slots.take("provider#gpu", range(4), now_ms=now, until_ms=now + 60_000)
    admin.circuits.replace("gpu", Circuit(), Circuit(Tally(), 1_800_000_025_000, "s"))
    told = providers.shown(admin, "gpu")
    assert (told["circuit"], told["asked_again"]) == ("open", "2027-01-15T08:00:25.000Z")
    assert told["calls_under_way"] == 1
    with pytest.raises(Problem, match="There is no provider nobody"):
        providers.shown(admin, "nobody")

"""Providers as their operator changes and checks them: a diff first, nothing by accident, and no key ever shown."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from aiserver.admin import changes, providers
from aiserver.admin.stack import Admin, AdminError, create_admin
from aiserver.providers.circuit import Circuit, Gate
from aiserver.providers.http import create_client
from aiserver.providers.openai import OpenAiClient
from aiserver.providers.provider import Provider
from local.scripted import MODELS, ScriptedProvider
from tests import moto_stack
from tests.containers import circuit_of_everyone
from tests.hostile_servers import closed_port
from tests.moto_stack import MotoStack

KEY = "sk-never-to-be-seen"
GPU: dict[str, Any] = {"name": "gpu", "base_url": "http://127.0.0.1:1/v1", "queue": "gpu", "models": {"llama3:8b": ""}}


@pytest.fixture
def admin(stack: MotoStack) -> Admin:
    stack.providers()
    outputs = {"HostedQueueUrl": "https://q", "GpuQueueUrl": "https://q", "CallbackQueueUrl": "https://q"}
    return create_admin("aiserver", outputs | stack.names, moto_stack.client)


@pytest.fixture
def protocols(admin: Admin) -> Iterator[dict[str, Any]]:
    with create_client() as http:
        yield {"openai": OpenAiClient(http, admin.clock)}


def wanted(*given: dict[str, Any]) -> str:
    return json.dumps({"providers": given})


def applied(admin: Admin, *given: dict[str, Any]) -> list[str]:
    """The diff that was shown."""
    planned = changes.plan_changes(admin, wanted(*given), {"KEY": KEY})
    changes.apply_changes(admin, planned)
    return [line for change in planned for line in change.lines()]


def test_a_diff_tells_what_is_new_what_changes_and_what_goes(admin: Admin) -> None:
    slow = {**GPU, "timeout_s": 30}
    hosted = {"name": "groq", "preset": "groq", "api_key_var": "KEY", "models": {"*": ""}}
    assert applied(admin, slow, hosted) == [
        "+ gpu  base_url: http://127.0.0.1:1/v1, queue: gpu, timeout_s: 30.0, models: llama3:8b",
        "+ groq  preset: groq, base_url: https://api.groq.com/openai/v1, api_key_secret: "
        "/aiserver/providers/groq/api.groq.com/api-key, operations: chat.completions, responses, models: *",
    ]
    assert applied(admin, slow, hosted) == []
    changed = {**GPU, "concurrency": 4, "models": {"llama3:8b": "meta/llama", "m": ""}}
    assert applied(admin, changed) == [
        "~ gpu  timeout_s: 30.0 -> 600.0",
        "~ gpu  models: llama3:8b -> llama3:8b = meta/llama, m",
        "~ gpu  concurrency: none -> 4",
        "- groq",
    ]
    assert [one["name"] for one in providers.list_providers(admin)] == ["gpu"]


def test_a_plan_changes_nothing(admin: Admin) -> None:
    changes.plan_changes(admin, wanted(GPU), {})
    assert providers.list_providers(admin) == []


def test_what_another_changed_after_the_diff_was_shown_is_not_overwritten(admin: Admin) -> None:
    applied(admin, GPU)
    planned = changes.plan_changes(admin, wanted({**GPU, "priority": 3}))
    providers.set_enabled(admin, "gpu", enabled=False)
    with pytest.raises(AdminError, match="gpu was changed by another meanwhile"):
        changes.apply_changes(admin, planned)
    (stored,) = providers.list_providers(admin)
    assert (stored["priority"], stored["enabled"]) == (0, False)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"name": "g", "preset": "grok", "models": {"m": ""}}, "no such preset: grok; there are anthropic, azure"),
        ({**GPU, "api_key_secret": "/other/key"}, "below /aiserver/"),
        ({**GPU, "api_key_var": "UNSET"}, "UNSET is not set"),
        ({"name": "v", "preset": "vllm", "models": {"m": ""}}, "preset vllm needs a base_url, as in http://{host}"),
        ({**GPU, "operations": ["chat"]}, "provider gpu: operations must be a list of chat.completions, embeddings"),
        ({**GPU, "auth_header": "x: y"}, "provider gpu: auth_header must be the name of a header"),
        ({**GPU, "timeout_s": float("inf")}, "provider gpu: timeout_s should be a finite number"),
        ({**GPU, "name": "Gpu 1"}, "provider Gpu 1: name must be 1 to 63 of a-z, 0-9 and -"),
        ({**GPU, "base_url": "localhost:8000/v1"}, "provider gpu: base_url must begin with http:// or https://"),
        ({**GPU, "api_key": "sk"}, "provider gpu: api_key is no member of a provider; did you mean api_key_var?"),
        ({**GPU, "concurency": 4}, "provider gpu: concurency is no member of a provider; did you mean concurrency?"),
        ({**GPU, "models": ["a"]}, "provider gpu: models must be names, as in {llama3:8b: "),
        ({"base_url": "http://h", "models": {"m": ""}}, "provider 0: name Field required"),
        *(({**GPU, "base_url": url}, "base_url") for url in ("http://h:80a/v1", "http://[::1/v1", "http://a..b/v1")),
        ({**GPU, "base_url": "http://h/v1\n"}, "base_url"),
    ],
)
def test_a_file_that_is_wrong_is_refused_with_the_reason(given: dict[str, Any], why: str, admin: Admin) -> None:
    with pytest.raises(AdminError) as refused:
        changes.plan_changes(admin, wanted(given), {})
    assert why in str(refused.value)


UNSENDABLE = ["sk-1\n", "sk-1\r\n", " sk-1", "sk-1\t", "sk\n1", "sk-\x00", "sk-\x7f", "sk-é", "sk-“1”", "\n"]
NOT_ALLOWED = "provider gpu: the API key contains characters not allowed in an HTTP header"


@pytest.mark.parametrize("key", UNSENDABLE)
def test_a_key_that_no_header_can_hold_is_refused_from_the_environment(key: str, admin: Admin) -> None:
    with pytest.raises(AdminError) as refused:
        changes.plan_changes(admin, wanted({**GPU, "api_key_var": "KEY"}), {"KEY": key})
    assert str(refused.value).startswith(NOT_ALLOWED)
    assert "sk" not in str(refused.value)


@pytest.mark.parametrize("key", UNSENDABLE)
def test_stored_key_with_invalid_header_characters_is_reported(
    key: str, admin: Admin, protocols: dict[str, Any]
) -> None:
    keyed = {**GPU, "api_key_secret": "/aiserver/gpu"}
    applied(admin, keyed)
    admin.ssm.put_parameter(Name="/aiserver/gpu", Value=key, Type="SecureString")
    for refused_by in (
        lambda: changes.plan_changes(admin, wanted(keyed), {}),
        lambda: providers.check_provider(admin, "gpu", protocols),
    ):
        with pytest.raises(AdminError) as refused:
            refused_by()
        assert str(refused.value).startswith(NOT_ALLOWED)
        assert "sk" not in str(refused.value)


@pytest.mark.parametrize("key", ["k", "sk-proj-A_b/c+d=", "two words", "!~"])
def test_a_key_that_a_header_can_hold_is_taken(key: str, admin: Admin) -> None:
    (change,) = changes.plan_changes(admin, wanted({**GPU, "api_key_var": "KEY"}), {"KEY": key})
    assert change.secret == key


def test_a_key_is_stored_as_a_secure_string_goes_with_its_provider_and_is_never_shown(
    admin: Admin, upstream: ScriptedProvider, protocols: dict[str, Any]
) -> None:
    keyed = {**GPU, "base_url": upstream.base_url, "api_key_var": "KEY"}
    told = [*applied(admin, keyed), providers.list_providers(admin), providers.show_provider(admin, "gpu")]
    told.append(providers.check_provider(admin, "gpu", protocols))
    assert upstream.requests[-1].headers["authorization"] == f"Bearer {KEY}"
    upstream.answer_with(401, b'{"error":{"message":"Incorrect API key provided: %s"}}' % KEY.encode())
    with pytest.raises(AdminError) as refused:
        providers.check_provider(admin, "gpu", protocols)
    assert str(refused.value) == "gpu: it refuses the key (status 401)"
    assert KEY not in repr([told, refused.value])
    (name,) = [one["api_key_secret"] for one in providers.list_providers(admin)]
    assert admin.ssm.get_parameter(Name=name)["Parameter"].get("Type") == "SecureString"
    assert KEY not in repr(changes.plan_changes(admin, wanted(keyed), {"KEY": KEY}))
    applied(admin)
    assert key_at(admin, name) is None


def key_at(admin: Admin, name: str) -> str | None:
    found = admin.ssm.get_parameters(Names=[name], WithDecryption=True)["Parameters"]
    return found[0].get("Value") if found else None


def test_a_key_that_changed_is_shown_as_such_and_asked_about_and_an_equal_one_is_not(admin: Admin) -> None:
    keyed = {**GPU, "api_key_var": "KEY"}
    applied(admin, keyed)
    assert applied(admin, keyed) == []
    planned = changes.plan_changes(admin, wanted(keyed), {"KEY": "sk-another"})
    assert [line for change in planned for line in change.lines()] == ["~ gpu  key: another"]
    changes.apply_changes(admin, planned)
    (name,) = [one["api_key_secret"] for one in providers.list_providers(admin)]
    assert key_at(admin, name) == "sk-another"


def test_a_key_is_kept_for_its_host_and_goes_to_no_other(admin: Admin) -> None:
    keyed = {**GPU, "api_key_var": "KEY"}
    applied(admin, keyed)
    (before,) = [one["api_key_secret"] for one in providers.list_providers(admin)]
    planned = changes.plan_changes(admin, wanted({**keyed, "base_url": "https://b.example/v1"}), {"KEY": "sk-of-b"})
    changes.apply_changes(admin, planned)
    (after,) = [one["api_key_secret"] for one in providers.list_providers(admin)]
    assert (before, after) == (
        "/aiserver/providers/gpu/127.0.0.1_1/api-key",
        "/aiserver/providers/gpu/b.example/api-key",
    )
    assert (key_at(admin, before), key_at(admin, after)) == (None, "sk-of-b")


def test_a_plan_that_another_operator_overtook_changes_no_key(admin: Admin) -> None:
    keyed = {**GPU, "api_key_var": "KEY"}
    applied(admin, keyed)
    planned = changes.plan_changes(admin, wanted({**keyed, "priority": 3}), {"KEY": "sk-another"})
    providers.set_enabled(admin, "gpu", enabled=False)
    with pytest.raises(AdminError):
        changes.apply_changes(admin, planned)
    (name,) = [one["api_key_secret"] for one in providers.list_providers(admin)]
    assert key_at(admin, name) == KEY


def test_a_provider_whose_key_is_gone_already_is_removed_all_the_same(admin: Admin) -> None:
    applied(admin, {**GPU, "api_key_var": "KEY"})
    (name,) = [one["api_key_secret"] for one in providers.list_providers(admin)]
    admin.ssm.delete_parameter(Name=name)
    assert applied(admin) == ["- gpu"]


def test_a_provider_that_cannot_be_read_stops_no_other_and_is_mended_by_the_file(admin: Admin) -> None:
    applied(admin, GPU, {**GPU, "name": "other"})
    broken = Provider.model_validate(GPU).model_copy(update={"timeout_s": float("inf")})
    assert admin.config.replace_provider("gpu", admin.config.provider_texts()["gpu"], broken)
    assert [one["name"] for one in providers.list_providers(admin)] == ["other"]
    assert "~ gpu  timeout_s: none -> 600.0" in applied(admin, GPU, {**GPU, "name": "other"})
    assert len(providers.list_providers(admin)) == 2


def test_a_check_tells_how_many_models_are_listed_and_keeps_them_where_any_may_be_asked_for(
    admin: Admin, upstream: ScriptedProvider, protocols: dict[str, Any]
) -> None:
    applied(
        admin,
        {**GPU, "base_url": upstream.base_url},
        {**GPU, "name": "any", "base_url": upstream.base_url, "models": {"*": ""}},
    )
    for name in providers.providers_to_check(admin, []):
        assert providers.check_provider(admin, name, protocols) == {"name": name, "models": len(MODELS)}
    assert {name: one.ids for name, one in admin.config.model_listings().items()} == {"any": tuple(sorted(MODELS))}
    assert {request.method for request in upstream.requests} == {"GET"}
    applied(admin)
    assert admin.config.model_listings() == {}


def test_of_a_list_that_no_item_can_hold_as_many_are_kept_as_it_can(
    admin: Admin, upstream: ScriptedProvider, protocols: dict[str, Any]
) -> None:
    applied(admin, {**GPU, "base_url": upstream.base_url, "models": {"*": ""}})
    ids = [f"{number:05}-" + "語" * 200 for number in range(3_000)]  # 3.6 MB as they are kept
    upstream.answer_with(200, json.dumps({"data": [{"id": one} for one in ids]}).encode())
    assert providers.check_provider(admin, "gpu", protocols)["models"] == 3_000
    kept = admin.config.model_listings()["gpu"].ids
    assert kept == tuple(ids[: len(kept)])
    assert len(kept) > 200


def test_a_check_of_a_provider_whose_key_is_not_stored_says_so(admin: Admin, protocols: dict[str, Any]) -> None:
    applied(admin, {**GPU, "api_key_secret": "/aiserver/nowhere"})
    with pytest.raises(AdminError) as wrong:
        providers.check_provider(admin, "gpu", protocols)
    assert str(wrong.value) == "gpu: The provider's key is not stored"


def test_a_check_of_all_leaves_out_who_is_disabled(admin: Admin) -> None:
    applied(admin, GPU, {**GPU, "name": "off", "enabled": False})
    assert providers.providers_to_check(admin, []) == ["gpu"]
    assert providers.providers_to_check(admin, ["off"]) == ["off"]


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (403, b"{}", "it refuses the key (status 403)"),
        (404, b"{}", "there is no {base_url}/models (status 404): is its base_url right?"),
        (200, b"<html>", "answered something that is no list of models"),
        (503, b'{"error":{"message":"Loading model"}}', "Loading model"),
        (500, b'{"error":{"message":"broken"}}', "broken"),
    ],
)
def test_a_check_says_what_is_wrong(
    status: int, body: bytes, why: str, admin: Admin, upstream: ScriptedProvider, protocols: dict[str, Any]
) -> None:
    applied(admin, {**GPU, "base_url": upstream.base_url})
    upstream.answer_with(status, body)
    with pytest.raises(AdminError) as wrong:
        providers.check_provider(admin, "gpu", protocols)
    assert str(wrong.value) == "gpu: " + why.replace("{base_url}", upstream.base_url)


def test_a_check_tells_which_of_the_models_are_not_listed(
    admin: Admin, upstream: ScriptedProvider, protocols: dict[str, Any]
) -> None:
    models = {"llama3:8b": "", "mine": "not-there", "*": "nor-this"}
    applied(admin, {**GPU, "base_url": upstream.base_url, "models": models})
    with pytest.raises(AdminError, match="gpu answers, but does not list nor-this, not-there; it lists gpt-4-turbo, "):
        providers.check_provider(admin, "gpu", protocols)


def test_a_name_without_a_tag_is_listed_as_its_latest(
    admin: Admin, upstream: ScriptedProvider, protocols: dict[str, Any]
) -> None:
    applied(admin, {**GPU, "base_url": upstream.base_url, "models": {"llama3": ""}})
    upstream.answer_with(200, b'{"data":[{"id":"llama3:latest"}]}')
    assert providers.check_provider(admin, "gpu", protocols) == {"name": "gpu", "models": 1}


def test_a_provider_that_cannot_be_reached_or_that_lists_nothing_is_told_as_such(
    admin: Admin, protocols: dict[str, Any]
) -> None:
    with closed_port() as port:
        applied(admin, {**GPU, "base_url": f"http://127.0.0.1:{port}/v1"}, {**GPU, "name": "azure", "preset": "azure"})
        with pytest.raises(AdminError, match=r"gpu: cannot be reached \(.*refused\)"):
            providers.check_provider(admin, "gpu", protocols)
    unasked = providers.check_provider(admin, "azure", protocols)
    assert unasked == {"name": "azure", "models": None, "note": "Azure OpenAI (v1) has no list of models to ask for"}


def test_after_an_application_whoever_takes_any_model_is_asked_for_its_list_and_no_other(
    admin: Admin, upstream: ScriptedProvider, protocols: dict[str, Any]
) -> None:
    with closed_port() as port:
        away = {**GPU, "name": "away", "base_url": f"http://127.0.0.1:{port}/v1", "models": {"*": ""}}
        here = {**away, "name": "here", "base_url": upstream.base_url}
        one = {**here, "name": "one", "models": {"*": "always-this"}}
        applied(admin, GPU, away, here, one, {**away, "name": "off", "enabled": False})
        (line,) = providers.refresh_model_listings(admin, protocols)
    assert line.startswith("/v1/models will not show what away has: away: cannot be reached")
    assert list(admin.config.model_listings()) == ["here"]


def test_show_tells_the_circuit_and_the_calls_under_way(admin: Admin) -> None:
    applied(admin, {**GPU, "concurrency": 4})
    now = admin.clock.now_ms()
    told = providers.show_provider(admin, "gpu")
    assert (told["circuit"], told["calls_under_way"], told["models_listed"]) == ("closed", 0, None)
    admin.leases.acquire("provider#gpu", range(4), now_ms=now, expires_ms=now + 60_000)
    opened = circuit_of_everyone(ask_at=1_800_000_025_000, stamp="s")
    gates = {
        **opened.gates,
        ("", "m"): Gate(retry_at=1_800_000_025_000),
        ("key", "m"): Gate(retry_at=1_800_000_025_000),
    }
    admin.circuits.replace("gpu", Circuit(), Circuit(gates, "s"))
    told = providers.show_provider(admin, "gpu")
    again = "2027-01-15T08:00:25.000Z"
    assert (told["circuit"], told["asked_again"]) == ("open", again)
    assert told["open_for"] == [
        {"key_id": None, "model": "m", "asked_again": again},
        {"key_id": "key", "model": "m", "asked_again": again},
    ]
    assert told["calls_under_way"] == 1
    with pytest.raises(AdminError, match="There is no provider nobody"):
        providers.show_provider(admin, "nobody")

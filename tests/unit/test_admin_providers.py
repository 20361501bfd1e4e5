"""Provider configuration by an operator: a plan before every change, checks, and no API key in any output."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from aiserver.admin import changes, providers
from aiserver.admin.stack import Admin, AdminError, create_admin
from aiserver.aws.bedrock import bedrock_transport
from aiserver.circuit_breaker.circuit import Circuit, Gate
from aiserver.providers.dispatch import Dispatcher
from aiserver.providers.http import create_client
from aiserver.providers.provider import Provider
from aiserver.providers.registry import AdapterRegistry
from local.scripted import MODELS, ScriptedProvider
from tests import moto_stack
from tests.containers import provider_circuit
from tests.hostile_servers import refusing_port
from tests.moto_stack import MotoStack

KEY = "sk-never-to-be-seen"
GPU: dict[str, Any] = {"name": "gpu", "base_url": "http://127.0.0.1:1/v1", "queue": "gpu", "models": {"llama3:8b": ""}}


@pytest.fixture
def admin(stack: MotoStack) -> Admin:
    stack.set_providers()
    outputs = {"HostedQueueUrl": "https://q", "GpuQueueUrl": "https://q", "CallbackQueueUrl": "https://q"}
    return create_admin("aiserver", outputs | stack.names, moto_stack.client)


@pytest.fixture
def dispatcher(admin: Admin) -> Iterator[Dispatcher]:
    with create_client() as http:
        yield Dispatcher(http, AdapterRegistry(admin.clock, bedrock_transport), admin.clock)


def provider_file(*entries: dict[str, Any]) -> str:
    return json.dumps({"providers": entries})


def apply_file(admin: Admin, *entries: dict[str, Any]) -> list[str]:
    """Apply a provider file, and return the lines of its plan."""
    plan = changes.plan_changes(admin, provider_file(*entries), {"KEY": KEY})
    changes.apply_changes(admin, plan)
    return [line for change in plan for line in change.lines()]


def test_plan_lists_added_changed_and_removed_providers(admin: Admin) -> None:
    slow = {**GPU, "timeout_s": 30}
    hosted = {"name": "groq", "preset": "groq", "api_key_var": "KEY", "models": {"*": ""}}
    assert apply_file(admin, slow, hosted) == [
        "+ gpu  base_url: http://127.0.0.1:1/v1, queue: gpu, timeout_s: 30.0, models: llama3:8b",
        "+ groq  preset: groq, base_url: https://api.groq.com/openai/v1, api_key_secret: "
        "/aiserver/providers/groq/api.groq.com/api-key, operations: chat.completions, responses, "
        "audio.transcriptions, audio.translations, audio.speech, models: *",
    ]
    assert apply_file(admin, slow, hosted) == []
    updated = {**GPU, "concurrency": 4, "models": {"llama3:8b": "meta/llama", "m": ""}}
    assert apply_file(admin, updated) == [
        "~ gpu  timeout_s: 30.0 -> 600.0",
        "~ gpu  models: llama3:8b -> llama3:8b = meta/llama, m",
        "~ gpu  concurrency: none -> 4",
        "- groq",
    ]
    assert [view["name"] for view in providers.list_providers(admin)] == ["gpu"]


def test_settings_of_models_are_printed_beside_their_names(admin: Admin) -> None:
    models = {"narrator": {"model": "tts-1", "voice": "alloy"}, "llama3:8b": ""}
    (added,) = apply_file(admin, {**GPU, "models": models})
    assert re.search(r"models: narrator = .*\btts-1\b.*\balloy\b.*, llama3:8b$", added)
    (view,) = providers.list_providers(admin)
    assert view["models"] == providers.show_provider(admin, "gpu")["models"] == models
    assert "model_settings" not in view
    assert apply_file(admin, {**GPU, "models": models}) == []
    (changed,) = apply_file(admin, {**GPU, "models": {**models, "narrator": {"model": "tts-1", "voice": "echo"}}})
    assert re.search(r"^~ gpu  models: narrator = .*\balloy\b.* -> narrator = .*\becho\b", changed)
    (removed,) = apply_file(admin, {**GPU, "models": {**models, "narrator": "tts-1"}})
    assert removed.endswith("-> narrator = tts-1, llama3:8b")


def test_plan_changes_nothing(admin: Admin) -> None:
    changes.plan_changes(admin, provider_file(GPU), {})
    assert providers.list_providers(admin) == []


def test_apply_does_not_overwrite_changes_made_after_the_plan(admin: Admin) -> None:
    apply_file(admin, GPU)
    plan = changes.plan_changes(admin, provider_file({**GPU, "priority": 3}))
    providers.set_enabled(admin, "gpu", enabled=False)
    with pytest.raises(AdminError, match="provider gpu: changed by someone else since the plan"):
        changes.apply_changes(admin, plan)
    (stored,) = providers.list_providers(admin)
    assert (stored["priority"], stored["enabled"]) == (0, False)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"name": "g", "preset": "grok", "models": {"m": ""}}, "unknown preset grok; presets: anthropic, azure"),
        ({**GPU, "api_key_secret": "/other/key"}, "below /aiserver/"),
        ({**GPU, "api_key_var": "UNSET"}, "UNSET is not set"),
        (
            {"name": "v", "preset": "vllm", "models": {"m": ""}},
            "preset vllm requires 'base_url', for example http://{host}",
        ),
        ({**GPU, "operations": ["chat"]}, "provider gpu: operations must be a list of chat.completions, embeddings"),
        ({**GPU, "auth_header": "x: y"}, "provider gpu: auth_header must be a header name"),
        ({**GPU, "timeout_s": float("inf")}, "provider gpu: timeout_s should be a finite number"),
        ({**GPU, "name": "Gpu 1"}, "provider Gpu 1: name must be 1 to 63 characters of a-z, 0-9 and -"),
        ({**GPU, "base_url": "localhost:8000/v1"}, "provider gpu: base_url must begin with http:// or https://"),
        ({**GPU, "api_key": "sk"}, "provider gpu: api_key is not a provider field; did you mean api_key_var?"),
        ({**GPU, "concurency": 4}, "provider gpu: concurency is not a provider field; did you mean concurrency?"),
        (
            {**GPU, "models": ["a"]},
            "provider gpu: models must map model names to upstream names, for example {llama3:8b: ",
        ),
        ({"base_url": "http://h", "models": {"m": ""}}, "provider 0: name Field required"),
        (
            {"name": "claude", "type": "anthropic", "models": {"m": {"model": "claude", "voice": "alloy"}}},
            "provider claude: type anthropic does not support settings of a model",
        ),
        *(({**GPU, "base_url": url}, "base_url") for url in ("http://h:80a/v1", "http://[::1/v1", "http://a..b/v1")),
        ({**GPU, "base_url": "http://h/v1\n"}, "base_url"),
    ],
)
def test_invalid_provider_file_is_rejected_with_reason(entry: dict[str, Any], reason: str, admin: Admin) -> None:
    with pytest.raises(AdminError) as exc_info:
        changes.plan_changes(admin, provider_file(entry), {})
    assert reason in str(exc_info.value)


UNSENDABLE = ["sk-1\n", "sk-1\r\n", " sk-1", "sk-1\t", "sk\n1", "sk-\x00", "sk-\x7f", "sk-é", "sk-“1”", "\n"]
NOT_ALLOWED = "provider gpu: the API key contains characters not allowed in an HTTP header"


@pytest.mark.parametrize("key", UNSENDABLE)
def test_api_key_with_invalid_header_characters_is_rejected(key: str, admin: Admin) -> None:
    with pytest.raises(AdminError) as exc_info:
        changes.plan_changes(admin, provider_file({**GPU, "api_key_var": "KEY"}), {"KEY": key})
    assert str(exc_info.value).startswith(NOT_ALLOWED)
    assert "sk" not in str(exc_info.value)


@pytest.mark.parametrize("key", UNSENDABLE)
def test_stored_key_with_invalid_header_characters_is_reported(key: str, admin: Admin, dispatcher: Dispatcher) -> None:
    keyed = {**GPU, "api_key_secret": "/aiserver/gpu"}
    apply_file(admin, keyed)
    admin.ssm.put_parameter(Name="/aiserver/gpu", Value=key, Type="SecureString")
    for action in (
        lambda: changes.plan_changes(admin, provider_file(keyed), {}),
        lambda: providers.check_provider(admin, "gpu", dispatcher),
    ):
        with pytest.raises(AdminError) as exc_info:
            action()
        assert str(exc_info.value).startswith(NOT_ALLOWED)
        assert "sk" not in str(exc_info.value)


@pytest.mark.parametrize("key", ["k", "sk-proj-A_b/c+d=", "two words", "!~"])
def test_api_key_with_valid_header_characters_is_accepted(key: str, admin: Admin) -> None:
    (change,) = changes.plan_changes(admin, provider_file({**GPU, "api_key_var": "KEY"}), {"KEY": key})
    assert change.secret == key


def test_api_key_is_stored_encrypted_removed_with_provider_and_never_shown(
    admin: Admin, upstream: ScriptedProvider, dispatcher: Dispatcher
) -> None:
    keyed = {**GPU, "base_url": upstream.base_url, "api_key_var": "KEY"}
    output = [*apply_file(admin, keyed), providers.list_providers(admin), providers.show_provider(admin, "gpu")]
    output.append(providers.check_provider(admin, "gpu", dispatcher))
    assert upstream.requests[-1].headers["authorization"] == f"Bearer {KEY}"
    upstream.respond_with(401, b'{"error":{"message":"Incorrect API key provided: %s"}}' % KEY.encode())
    with pytest.raises(AdminError) as exc_info:
        providers.check_provider(admin, "gpu", dispatcher)
    assert str(exc_info.value) == "provider gpu: rejected the API key (status 401)"
    assert KEY not in repr([output, exc_info.value])
    (name,) = [view["api_key_secret"] for view in providers.list_providers(admin)]
    assert admin.ssm.get_parameter(Name=name)["Parameter"].get("Type") == "SecureString"
    assert KEY not in repr(changes.plan_changes(admin, provider_file(keyed), {"KEY": KEY}))
    apply_file(admin)
    assert key_at(admin, name) is None


def key_at(admin: Admin, name: str) -> str | None:
    parameters = admin.ssm.get_parameters(Names=[name], WithDecryption=True)["Parameters"]
    return parameters[0].get("Value") if parameters else None


def test_plan_lists_changed_api_key_and_omits_equal_one(admin: Admin) -> None:
    keyed = {**GPU, "api_key_var": "KEY"}
    apply_file(admin, keyed)
    assert apply_file(admin, keyed) == []
    plan = changes.plan_changes(admin, provider_file(keyed), {"KEY": "sk-another"})
    assert [line for change in plan for line in change.lines()] == ["~ gpu  API key: changed"]
    changes.apply_changes(admin, plan)
    (name,) = [view["api_key_secret"] for view in providers.list_providers(admin)]
    assert key_at(admin, name) == "sk-another"


def test_api_key_is_stored_per_host_and_never_sent_to_another(admin: Admin) -> None:
    keyed = {**GPU, "api_key_var": "KEY"}
    apply_file(admin, keyed)
    (before,) = [view["api_key_secret"] for view in providers.list_providers(admin)]
    plan = changes.plan_changes(admin, provider_file({**keyed, "base_url": "https://b.example/v1"}), {"KEY": "sk-of-b"})
    changes.apply_changes(admin, plan)
    (after,) = [view["api_key_secret"] for view in providers.list_providers(admin)]
    assert (before, after) == (
        "/aiserver/providers/gpu/127.0.0.1_1/api-key",
        "/aiserver/providers/gpu/b.example/api-key",
    )
    assert (key_at(admin, before), key_at(admin, after)) == (None, "sk-of-b")


def test_conflicting_plan_changes_no_api_key(admin: Admin) -> None:
    keyed = {**GPU, "api_key_var": "KEY"}
    apply_file(admin, keyed)
    plan = changes.plan_changes(admin, provider_file({**keyed, "priority": 3}), {"KEY": "sk-another"})
    providers.set_enabled(admin, "gpu", enabled=False)
    with pytest.raises(AdminError):
        changes.apply_changes(admin, plan)
    (name,) = [view["api_key_secret"] for view in providers.list_providers(admin)]
    assert key_at(admin, name) == KEY


def test_provider_with_missing_api_key_parameter_can_be_removed(admin: Admin) -> None:
    apply_file(admin, {**GPU, "api_key_var": "KEY"})
    (name,) = [view["api_key_secret"] for view in providers.list_providers(admin)]
    admin.ssm.delete_parameter(Name=name)
    assert apply_file(admin) == ["- gpu"]


def test_unreadable_provider_is_skipped_and_repaired_by_the_file(admin: Admin) -> None:
    apply_file(admin, GPU, {**GPU, "name": "other"})
    broken = Provider.model_validate(GPU).model_copy(update={"timeout_s": float("inf")})
    assert admin.config.replace_provider("gpu", admin.config.provider_texts()["gpu"], broken)
    assert [view["name"] for view in providers.list_providers(admin)] == ["other"]
    assert "~ gpu  timeout_s: none -> 600.0" in apply_file(admin, GPU, {**GPU, "name": "other"})
    assert len(providers.list_providers(admin)) == 2


def test_check_counts_models_and_stores_the_list_of_wildcard_providers(
    admin: Admin, upstream: ScriptedProvider, dispatcher: Dispatcher
) -> None:
    apply_file(
        admin,
        {**GPU, "base_url": upstream.base_url},
        {**GPU, "name": "any", "base_url": upstream.base_url, "models": {"*": ""}},
    )
    for name in providers.providers_to_check(admin, []):
        assert providers.check_provider(admin, name, dispatcher) == {"name": name, "models": len(MODELS)}
    assert {name: listing.ids for name, listing in admin.config.model_listings().items()} == {
        "any": tuple(sorted(MODELS))
    }
    assert {request.method for request in upstream.requests} == {"GET"}
    apply_file(admin)
    assert admin.config.model_listings() == {}


def test_model_list_is_truncated_to_the_item_size_limit(
    admin: Admin, upstream: ScriptedProvider, dispatcher: Dispatcher
) -> None:
    apply_file(admin, {**GPU, "base_url": upstream.base_url, "models": {"*": ""}})
    ids = [f"{number:05}-" + "語" * 200 for number in range(3_000)]  # 3.6 MB as stored
    upstream.respond_with(200, json.dumps({"data": [{"id": model_id} for model_id in ids]}).encode())
    assert providers.check_provider(admin, "gpu", dispatcher)["models"] == 3_000
    stored_ids = admin.config.model_listings()["gpu"].ids
    assert stored_ids == tuple(ids[: len(stored_ids)])
    assert len(stored_ids) > 200


def test_check_reports_missing_api_key_parameter(admin: Admin, dispatcher: Dispatcher) -> None:
    apply_file(admin, {**GPU, "api_key_secret": "/aiserver/nowhere"})
    with pytest.raises(AdminError) as exc_info:
        providers.check_provider(admin, "gpu", dispatcher)
    assert str(exc_info.value) == "provider gpu: The provider's API key is not stored"


def test_check_of_all_skips_disabled_providers(admin: Admin) -> None:
    apply_file(admin, GPU, {**GPU, "name": "off", "enabled": False})
    assert providers.providers_to_check(admin, []) == ["gpu"]
    assert providers.providers_to_check(admin, ["off"]) == ["off"]


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (403, b"{}", "rejected the API key (status 403)"),
        (404, b"{}", "{base_url}/models does not exist (status 404); check base_url"),
        (200, b"<html>", "the response is not a list of models"),
        (503, b'{"error":{"message":"Loading model"}}', "Loading model"),
        (500, b'{"error":{"message":"broken"}}', "broken"),
    ],
)
def test_check_reports_the_upstream_error(
    status: int, body: bytes, reason: str, admin: Admin, upstream: ScriptedProvider, dispatcher: Dispatcher
) -> None:
    apply_file(admin, {**GPU, "base_url": upstream.base_url})
    upstream.respond_with(status, body)
    with pytest.raises(AdminError) as exc_info:
        providers.check_provider(admin, "gpu", dispatcher)
    assert str(exc_info.value) == "provider gpu: " + reason.replace("{base_url}", upstream.base_url)


def test_check_reports_models_that_are_not_listed(
    admin: Admin, upstream: ScriptedProvider, dispatcher: Dispatcher
) -> None:
    models = {"llama3:8b": "", "mine": "not-there", "*": "nor-this"}
    apply_file(admin, {**GPU, "base_url": upstream.base_url, "models": models})
    with pytest.raises(
        AdminError, match="provider gpu: does not list nor-this, not-there; listed models: gpt-4-turbo, "
    ):
        providers.check_provider(admin, "gpu", dispatcher)


def test_check_compares_model_names_without_their_settings(
    admin: Admin, upstream: ScriptedProvider, dispatcher: Dispatcher
) -> None:
    models = {"narrator": {"model": "gpt-4o-mini", "voice": "alloy"}, "gpt-4-turbo": {"voice": "echo"}, "llama3:8b": ""}
    apply_file(admin, {**GPU, "base_url": upstream.base_url, "models": models})
    assert providers.check_provider(admin, "gpu", dispatcher) == {"name": "gpu", "models": len(MODELS)}
    models |= {"reader": {"model": "not-there", "voice": "alloy"}, "nor-this": {"voice": "alloy"}}
    apply_file(admin, {**GPU, "base_url": upstream.base_url, "models": models})
    with pytest.raises(AdminError, match="provider gpu: does not list nor-this, not-there; listed models: "):
        providers.check_provider(admin, "gpu", dispatcher)


def test_model_without_tag_matches_listed_latest_tag(
    admin: Admin, upstream: ScriptedProvider, dispatcher: Dispatcher
) -> None:
    apply_file(admin, {**GPU, "base_url": upstream.base_url, "models": {"llama3": ""}})
    upstream.respond_with(200, b'{"data":[{"id":"llama3:latest"}]}')
    assert providers.check_provider(admin, "gpu", dispatcher) == {"name": "gpu", "models": 1}


def test_check_reports_unreachable_and_unlistable_providers(admin: Admin, dispatcher: Dispatcher) -> None:
    with refusing_port() as port:
        apply_file(
            admin, {**GPU, "base_url": f"http://127.0.0.1:{port}/v1"}, {**GPU, "name": "azure", "preset": "azure"}
        )
        with pytest.raises(AdminError, match=r"gpu: could not connect \(.*refused\)"):
            providers.check_provider(admin, "gpu", dispatcher)
    view = providers.check_provider(admin, "azure", dispatcher)
    assert view == {"name": "azure", "models": None, "note": "Azure OpenAI (v1) does not list its models"}


def test_only_wildcard_providers_are_listed_after_apply(
    admin: Admin, upstream: ScriptedProvider, dispatcher: Dispatcher
) -> None:
    with refusing_port() as port:
        unreachable = {**GPU, "name": "away", "base_url": f"http://127.0.0.1:{port}/v1", "models": {"*": ""}}
        reachable = {**unreachable, "name": "here", "base_url": upstream.base_url}
        mapped = {**reachable, "name": "one", "models": {"*": "always-this"}}
        apply_file(admin, GPU, unreachable, reachable, mapped, {**unreachable, "name": "off", "enabled": False})
        (line,) = providers.refresh_model_listings(admin, dispatcher)
    assert line.startswith("/v1/models does not include the models of away: provider away: could not connect")
    assert list(admin.config.model_listings()) == ["here"]


def test_show_reports_circuit_and_concurrent_calls(admin: Admin) -> None:
    apply_file(admin, {**GPU, "concurrency": 4})
    now = admin.clock.now_ms()
    view = providers.show_provider(admin, "gpu")
    assert (view["circuit"], view["calls_under_way"], view["models_listed"]) == ("closed", 0, None)
    admin.leases.acquire("provider#gpu", range(4), now_ms=now, expires_ms=now + 60_000)
    circuit = provider_circuit(retry_at=1_800_000_025_000, stamp="s")
    gates = {
        **circuit.gates,
        ("", "m"): Gate(retry_at=1_800_000_025_000),
        ("key", "m"): Gate(retry_at=1_800_000_025_000),
    }
    admin.circuits.replace("gpu", Circuit(), Circuit(gates, "s"))
    view = providers.show_provider(admin, "gpu")
    retry_at = "2027-01-15T08:00:25.000Z"
    assert (view["circuit"], view["asked_again"]) == ("open", retry_at)
    assert view["open_for"] == [
        {"key_id": None, "model": "m", "asked_again": retry_at},
        {"key_id": "key", "model": "m", "asked_again": retry_at},
    ]
    assert view["calls_under_way"] == 1
    with pytest.raises(AdminError, match="provider nobody does not exist"):
        providers.show_provider(admin, "nobody")

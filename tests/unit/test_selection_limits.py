"""Selection of providers at its limits: the age of the cache, the configured model, and each reason of rejection."""

from typing import Any

import pytest

from aiserver.errors import InvalidRequest, NotFound
from aiserver.operations import CHAT, EMBEDDINGS, RESPONSES, Operation
from aiserver.providers.call import Upstream
from aiserver.providers.provider import Provider
from aiserver.routing.selection import (
    Candidate,
    ProviderDirectory,
    equal_limited_providers,
    first_supported,
    select_candidates,
)
from tests.fakes import FakeClock


def provider(name: str = "p", **config: Any) -> Provider:
    return Provider.model_validate({"name": name, "base_url": "http://127.0.0.1:1/v1", "models": {"m": ""}} | config)


@pytest.mark.parametrize(("age_ms", "loads"), [(0, 1), (29_999, 1), (30_000, 2), (30_001, 2)])
def test_providers_are_loaded_again_after_thirty_seconds(age_ms: int, loads: int) -> None:
    clock, calls = FakeClock(), list[int]()

    def load() -> list[Provider]:
        calls.append(clock.now)
        return [provider(f"p{len(calls)}"), provider("off", enabled=False)]

    directory = ProviderDirectory(load, clock)
    assert [loaded.name for loaded in directory.providers()] == ["p1"]
    clock.now += age_ms
    assert [loaded.name for loaded in directory.providers()] == [f"p{loads}"]
    assert len(calls) == loads


@pytest.mark.parametrize(
    ("models", "is_configured"),
    [
        ({"m": ""}, True),
        ({"m": "", "*": ""}, True),
        ({"m:latest": "", "*": ""}, True),
        ({"*": "x"}, True),
        ({"*": ""}, False),
    ],
)
def test_model_is_not_configured_where_any_name_is_passed_on(models: dict[str, str], is_configured: bool) -> None:
    (candidate,) = select_candidates([provider(models=models)], "m")
    assert candidate.upstream().model_is_configured == is_configured


def test_best_match_precedes_priority_and_priority_precedes_name() -> None:
    providers = [
        provider("any", models={"*": ""}, priority=9),
        provider("tag", models={"m:latest": ""}),
        provider("b"),
        provider("a"),
        provider("first", models={"m:latest": ""}, priority=1),
    ]
    names = [candidate.provider.name for candidate in select_candidates(providers, "m")]
    assert names == ["first", "a", "b", "tag", "any"]


@pytest.mark.parametrize(
    ("model", "name", "operation", "message"),
    [
        ("m", "absent", None, "Provider absent does not exist or is disabled"),
        ("n", "p", None, "Provider p does not serve model n"),
        ("n", "absent", CHAT, "Provider absent does not exist or is disabled"),
        ("m", "p", EMBEDDINGS, "Provider p serves model m, but does not support embeddings"),
    ],
)
def test_rejection_of_a_requested_provider_names_the_reason(
    model: str, name: str, operation: Operation | None, message: str
) -> None:
    chat, other = provider(operations=["chat.completions"]), provider("other", models={"m": "", "n": ""})
    with pytest.raises(InvalidRequest) as raised:
        select_candidates([chat, other], model, name, operation)
    assert (str(raised.value), raised.value.param) == (message, "provider")


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        (EMBEDDINGS, "No provider of model m supports embeddings"),
        (RESPONSES, f"No provider of model m supports responses; {RESPONSES.alternative}"),
    ],
)
def test_operation_that_no_provider_supports_is_not_found(operation: Operation, message: str) -> None:
    chat = provider(operations=["chat.completions"])
    assert [c.provider for c in select_candidates([chat], "m", operation=CHAT)] == [chat]
    with pytest.raises(NotFound) as raised:
        select_candidates([chat], "m", operation=operation)
    assert str(raised.value) == message


def test_model_without_a_provider_is_not_found() -> None:
    for providers in ([], [provider()]):
        with pytest.raises(NotFound, match=r"^Model n not found$") as raised:
            select_candidates(providers, "n", operation=CHAT)
        assert (raised.value.code, raised.value.param) == ("model_not_found", "model")


def test_provider_without_the_requested_operation_is_no_candidate() -> None:
    chat, all_operations = provider("chat", operations=["chat.completions"], priority=1), provider("all")
    assert [c.provider.name for c in select_candidates([chat, all_operations], "m")] == ["chat", "all"]
    assert [c.provider.name for c in select_candidates([chat, all_operations], "m", operation=EMBEDDINGS)] == ["all"]


def test_first_supported_candidate_else_the_first_error() -> None:
    candidates = select_candidates([provider("a"), provider("b"), provider("c")], "m")

    def check(unsupported: str) -> Candidate:
        def raise_if_unsupported(upstream: Upstream) -> None:
            if upstream.provider.name in unsupported:
                raise InvalidRequest(f"not supported by {upstream.provider.name}")

        return first_supported(candidates, raise_if_unsupported)

    assert [check(unsupported).provider.name for unsupported in ("", "a", "ab")] == ["a", "b", "c"]
    with pytest.raises(InvalidRequest, match="not supported by a"):
        check("abc")


def test_load_matters_for_two_equal_providers_with_a_limit() -> None:
    providers = [provider("a", concurrency=2), provider("b"), provider("low", concurrency=2, priority=-1)]
    candidates = select_candidates(providers, "m")
    assert [limited.name for limited in equal_limited_providers(candidates)] == ["a"]
    assert equal_limited_providers(candidates[:1]) == []

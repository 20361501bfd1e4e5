"""The candidates for a model, best first, and invalid provider configurations."""

import pytest
from pydantic import ValidationError

from aiserver.errors import InvalidRequest, NotFound
from aiserver.providers.provider import Provider
from aiserver.routing.selection import ProviderDirectory
from tests.fakes import FakeClock


def provider(name: str = "p", **config: object) -> Provider:
    return Provider.model_validate({"name": name, "base_url": "http://127.0.0.1:1/v1", "models": {"m": ""}} | config)


def directory(*providers: Provider) -> ProviderDirectory:
    return ProviderDirectory(lambda: list(providers), FakeClock())


@pytest.mark.parametrize(
    ("models", "model", "match"),
    [
        ({"m": ""}, "m", ("m", 0)),
        ({"m": "vendor/m"}, "m", ("vendor/m", 0)),
        ({"llama3:8b": ""}, "llama3", ("llama3:8b", 1)),
        ({"llama3:8b": "", "llama3:latest": "big"}, "llama3", ("big", 1)),
        ({"llama3": "x"}, "llama3:latest", ("x", 1)),
        ({"llama3:8b": ""}, "llama3:70b", None),
        ({"*": ""}, "any/thing:1", ("any/thing:1", 2)),
        ({"*": "one"}, "any", ("one", 2)),
        ({"m": ""}, "n", None),
        ({"*": ""}, "*", ("*", 2)),
    ],
)
def test_model_matches_exactly_then_by_tag_then_any(
    models: dict[str, str], model: str, match: tuple[str, int] | None
) -> None:
    assert provider(models=models).match_model(model) == match


def test_candidates_are_ordered_by_match_then_priority() -> None:
    candidates = directory(
        provider("any", models={"*": ""}, priority=9),
        provider("low"),
        provider("high", priority=5),
        provider("off", priority=7, enabled=False),
    ).candidates("m")
    assert [candidate.provider.name for candidate in candidates] == ["high", "low", "any"]


def test_requested_provider_is_the_only_candidate_and_must_serve_the_model() -> None:
    providers = directory(provider("p"), provider("q"))
    assert [candidate.provider.name for candidate in providers.candidates("m", "q")] == ["q"]
    with pytest.raises(InvalidRequest) as invalid:
        providers.candidates("m", "r")
    assert invalid.value.param == "provider"
    with pytest.raises(NotFound) as unknown:
        providers.candidates("n")
    assert unknown.value.code == "model_not_found"


@pytest.mark.parametrize(
    "config",
    [
        {"base_url": "ftp://x"},
        {"base_url": "https://user:pass@x/v1"},
        {"name": "Has Space"},
        {"type": "smoke-signals"},
        {"models": {}},
        {"concurrency": 0},
        {"timeout_s": 0},
        {"queue": "other"},
        {"api_key_var": "A", "api_key_secret": "/b"},
        {"unknown": 1},
    ],
)
def test_invalid_provider_configuration_is_rejected(config: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        provider(**config)

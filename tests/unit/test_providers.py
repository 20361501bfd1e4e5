"""Which providers can answer for a model, best first, and which configurations are refused."""

import pytest
from pydantic import ValidationError

from aiserver.errors import InvalidRequest, NotFound
from aiserver.providers.provider import Provider
from aiserver.router import Router
from tests.fakes import FakeClock


def provider(name: str = "p", **more: object) -> Provider:
    return Provider.model_validate({"name": name, "base_url": "http://127.0.0.1:1/v1", "models": {"m": ""}} | more)


def router(*providers: Provider) -> Router:
    return Router(lambda: list(providers), {}, None, FakeClock())


@pytest.mark.parametrize(
    ("models", "asked", "served"),
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
def test_names_match_exactly_then_by_tag_then_as_any(
    models: dict[str, str], asked: str, served: tuple[str, int] | None
) -> None:
    assert provider(models=models).match_model(asked) == served


def test_who_names_the_model_comes_before_any_and_then_priority() -> None:
    chosen = router(
        provider("any", models={"*": ""}, priority=9),
        provider("low"),
        provider("high", priority=5),
        provider("off", priority=7, enabled=False),
    ).candidates("m")
    assert [candidate.provider.name for candidate in chosen] == ["high", "low", "any"]


def test_a_provider_asked_for_is_the_only_one_and_must_serve() -> None:
    both = router(provider("p"), provider("q"))
    assert [c.provider.name for c in both.candidates("m", "q")] == ["q"]
    with pytest.raises(InvalidRequest) as refused:
        both.candidates("m", "r")
    assert refused.value.param == "provider"
    with pytest.raises(NotFound) as unknown:
        both.candidates("n")
    assert unknown.value.code == "model_not_found"


@pytest.mark.parametrize(
    "wrong",
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
def test_a_provider_that_is_configured_wrongly_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        provider(**wrong)

"""A vendor's list of models, page by page, by the command that asks for it."""

import json

import pytest

from aiserver.aws.bedrock import BedrockWire
from aiserver.errors import ProviderError, ProviderRateLimited
from aiserver.providers.http import create_client
from aiserver.providers.provider import Provider
from aiserver.providers.registry import AdapterRegistry
from aiserver.providers.translation.client import MAX_PAGES
from tests.fakes import FakeClock
from tests.providers.fake_provider import Said, stand_in

REFUSED = Said(401, b"{}")


def listed(*pages: object, paths: set[str]) -> tuple[list[str], list[str]]:
    """The models that come of it, and what was asked for."""
    with stand_in(paths, ("x-api-key", "k"), REFUSED) as server, create_client() as http:
        server.answers.extend(
            page if isinstance(page, Said) else Said(200, json.dumps(page).encode()) for page in pages
        )
        asked = Provider.model_validate(
            {"name": "p", "type": "anthropic", "base_url": server.origin, "models": {"*": ""}}
        )
        protocol = AdapterRegistry(lambda: http, FakeClock(), BedrockWire)["anthropic"]
        found = protocol.list_models(asked, api_key="k", timeout_s=5)
        return found, [request.path for request in server.requests]


FIRST = "/v1/models?limit=1000"


def test_all_pages_are_asked_for_and_what_they_hold_is_sorted() -> None:
    one = {"data": [{"id": "b"}, {"id": "a"}], "has_more": True, "last_id": "a"}
    two = {"data": [{"id": "c"}], "has_more": False, "last_id": "c"}
    assert listed(one, two, paths={FIRST, f"{FIRST}&after_id=a"}) == (
        ["a", "b", "c"],
        [FIRST, f"{FIRST}&after_id=a"],
    )


def test_a_list_without_an_end_is_left_after_a_while() -> None:
    again = {"data": [{"id": "a"}], "has_more": True, "last_id": "a"}
    found, asked = listed(*[again] * (MAX_PAGES + 1), paths={FIRST, f"{FIRST}&after_id=a"})
    assert (found, len(asked)) == (["a"], 20)


def test_what_is_no_list_and_who_refuses_to_tell_are_errors() -> None:
    with pytest.raises(ProviderError, match="no list of models"):
        listed({"data": 7}, paths={FIRST})
    with pytest.raises(ProviderRateLimited):
        listed(Said(429, b'{"type":"error","error":{"type":"rate_limit_error","message":"slow"}}'), paths={FIRST})

"""Listing a vendor's models page by page."""

import json

import pytest

from aiserver.errors import ProviderError, ProviderRateLimited
from aiserver.providers.call import Upstream
from aiserver.providers.dispatch import MAX_PAGES
from aiserver.providers.provider import Provider
from tests.providers.fake_provider import FakeResponse, run_fake_provider
from tests.vendors import dispatch

UNAUTHORIZED = FakeResponse(401, b"{}")


def list_models(*pages: object, paths: set[str]) -> tuple[list[str], list[str]]:
    """Return the models and the requested paths."""
    with run_fake_provider(paths, ("x-api-key", "k"), UNAUTHORIZED) as server:
        server.responses.extend(
            page if isinstance(page, FakeResponse) else FakeResponse(200, json.dumps(page).encode()) for page in pages
        )
        provider = Provider.model_validate(
            {"name": "p", "type": "anthropic", "base_url": server.origin, "models": {"*": ""}}
        )
        models = dispatch.list_models(Upstream(provider, "", model_is_configured=False, api_key="k"))
        return models, [request.path for request in server.requests]


FIRST = "/v1/models?limit=1000"


def test_list_models_requests_all_pages_and_sorts_the_result() -> None:
    first_page = {"data": [{"id": "b"}, {"id": "a"}], "has_more": True, "last_id": "a"}
    second_page = {"data": [{"id": "c"}], "has_more": False, "last_id": "c"}
    assert list_models(first_page, second_page, paths={FIRST, f"{FIRST}&after_id=a"}) == (
        ["a", "b", "c"],
        [FIRST, f"{FIRST}&after_id=a"],
    )


def test_list_models_stops_after_the_maximum_number_of_pages() -> None:
    page = {"data": [{"id": "a"}], "has_more": True, "last_id": "a"}
    models, requested_paths = list_models(*[page] * (MAX_PAGES + 1), paths={FIRST, f"{FIRST}&after_id=a"})
    assert (models, len(requested_paths)) == (["a"], 20)


def test_list_models_reports_an_invalid_list_and_a_rate_limit() -> None:
    with pytest.raises(ProviderError, match="not a list of models"):
        list_models({"data": 7}, paths={FIRST})
    with pytest.raises(ProviderRateLimited):
        list_models(
            FakeResponse(429, b'{"type":"error","error":{"type":"rate_limit_error","message":"slow"}}'), paths={FIRST}
        )

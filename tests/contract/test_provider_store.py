"""The contract of the provider store, over DynamoDB in moto and in MiniStack."""

import pytest

from aiserver.aws.config import DynamoConfig
from aiserver.providers.provider import ModelListing, Provider

PROVIDER = Provider(name="one", base_url="http://127.0.0.1:1/v1", models={"m": ""})
CHANGED_PROVIDER = PROVIDER.model_copy(update={"priority": 7})


@pytest.fixture(params=["moto", "ministack"])
def config(request: pytest.FixtureRequest) -> DynamoConfig:
    return request.getfixturevalue(f"{request.param}_config")


def stored_text(config: DynamoConfig, name: str = "one") -> str | None:
    return config.provider_texts().get(name)


def test_provider_is_added_changed_and_removed(config: DynamoConfig) -> None:
    assert config.replace_provider("one", None, PROVIDER)
    assert config.providers() == [PROVIDER]
    assert config.replace_provider("one", stored_text(config), CHANGED_PROVIDER)
    assert config.providers() == [CHANGED_PROVIDER]
    assert config.replace_provider("one", stored_text(config), None)
    assert config.providers() == []


def test_concurrent_change_is_not_overwritten(config: DynamoConfig) -> None:
    assert config.replace_provider("one", None, PROVIDER)
    text = stored_text(config)
    assert config.replace_provider("one", text, CHANGED_PROVIDER)
    assert not config.replace_provider("one", text, PROVIDER.model_copy(update={"priority": 8}))
    assert not config.replace_provider("one", text, None)
    assert not config.replace_provider("one", None, PROVIDER)
    assert config.providers() == [CHANGED_PROVIDER]
    assert config.replace_provider("one", stored_text(config), None)
    assert not config.replace_provider("one", text, CHANGED_PROVIDER)


def test_repeated_change_is_idempotent(config: DynamoConfig) -> None:
    assert config.replace_provider("one", None, PROVIDER)
    assert config.replace_provider("one", None, PROVIDER)
    assert config.replace_provider("one", stored_text(config), None)
    assert config.replace_provider("one", PROVIDER.model_dump_json(), None)


def test_provider_of_a_later_version_is_read_without_unknown_fields(config: DynamoConfig) -> None:
    class LaterProvider(Provider):
        unknown_field: int = 1

    assert config.replace_provider(
        "one", None, LaterProvider.model_validate({**PROVIDER.model_dump(), "preset": "of-tomorrow"})
    )
    assert "unknown_field" in (stored_text(config) or "")
    assert config.providers() == [PROVIDER.model_copy(update={"preset": "of-tomorrow"})]


def test_model_listing_is_stored_and_removed(config: DynamoConfig) -> None:
    listing = ModelListing(("a", "b/c:d"), 1_800_000_000_000)
    config.put_model_listing("one", listing)
    assert config.model_listings() == {"one": listing}
    config.put_model_listing("one", None)
    assert config.model_listings() == {}

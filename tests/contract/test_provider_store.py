"""What the store of providers promises, over DynamoDB as moto plays it and as MiniStack does."""

import pytest

from aiserver.aws.config import DynamoConfig
from aiserver.providers.provider import ModelListing, Provider

ONE = Provider(name="one", base_url="http://127.0.0.1:1/v1", models={"m": ""})
CHANGED = ONE.model_copy(update={"priority": 7})


@pytest.fixture(params=["moto", "ministack"])
def config(request: pytest.FixtureRequest) -> DynamoConfig:
    return request.getfixturevalue(f"{request.param}_config")


def text(config: DynamoConfig, name: str = "one") -> str | None:
    return config.provider_texts().get(name)


def test_a_provider_is_added_changed_and_removed(config: DynamoConfig) -> None:
    assert config.replace_provider("one", None, ONE)
    assert config.providers() == [ONE]
    assert config.replace_provider("one", text(config), CHANGED)
    assert config.providers() == [CHANGED]
    assert config.replace_provider("one", text(config), None)
    assert config.providers() == []


def test_what_another_has_changed_meanwhile_stays(config: DynamoConfig) -> None:
    assert config.replace_provider("one", None, ONE)
    seen = text(config)
    assert config.replace_provider("one", seen, CHANGED)
    assert not config.replace_provider("one", seen, ONE.model_copy(update={"priority": 8}))
    assert not config.replace_provider("one", seen, None)
    assert not config.replace_provider("one", None, ONE)
    assert config.providers() == [CHANGED]
    assert config.replace_provider("one", text(config), None)
    assert not config.replace_provider("one", seen, CHANGED)


def test_a_change_that_was_made_and_never_said_so_counts_as_made(config: DynamoConfig) -> None:
    assert config.replace_provider("one", None, ONE)
    assert config.replace_provider("one", None, ONE)
    assert config.replace_provider("one", text(config), None)
    assert config.replace_provider("one", ONE.model_dump_json(), None)


def test_a_provider_of_a_later_version_is_read_as_far_as_it_is_known(config: DynamoConfig) -> None:
    class Later(Provider):
        unheard_of: int = 1

    assert config.replace_provider("one", None, Later.model_validate({**ONE.model_dump(), "preset": "of-tomorrow"}))
    assert "unheard_of" in (text(config) or "")
    assert config.providers() == [ONE.model_copy(update={"preset": "of-tomorrow"})]


def test_what_a_provider_lists_is_kept_until_it_is_gone(config: DynamoConfig) -> None:
    listing = ModelListing(("a", "b/c:d"), 1_800_000_000_000)
    config.put_model_listing("one", listing)
    assert config.model_listings() == {"one": listing}
    config.put_model_listing("one", None)
    assert config.model_listings() == {}

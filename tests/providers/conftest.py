"""A scripted provider, shared by the tests of a module."""

from collections.abc import Iterator

import pytest

from local.scripted import ScriptedProvider


@pytest.fixture(scope="module")
def scripted_provider() -> Iterator[ScriptedProvider]:
    with ScriptedProvider() as provider:
        yield provider


@pytest.fixture
def upstream(scripted_provider: ScriptedProvider) -> ScriptedProvider:
    """The scripted provider without recorded requests."""
    scripted_provider.requests.clear()
    return scripted_provider

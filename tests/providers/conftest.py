"""A scripted provider for the tests of a file."""

from collections.abc import Iterator

import pytest

from local.scripted import ScriptedProvider


@pytest.fixture(scope="module")
def scripted() -> Iterator[ScriptedProvider]:
    with ScriptedProvider() as running:
        yield running


@pytest.fixture
def upstream(scripted: ScriptedProvider) -> ScriptedProvider:
    """As if nobody had asked it yet."""
    scripted.requests.clear()
    return scripted

"""Each test leaves the handlers without the parts its world has put into them; their logs would be too much."""

from collections.abc import Iterator
from functools import partial

import pytest

from aiserver import bootstrap, http_api
from tests.crash.places import EmbeddedCloud, Fakes
from tests.crash.world import World


@pytest.fixture(autouse=True)
def handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", "AiServer")
    http_api.logger.setLevel("CRITICAL")
    yield
    http_api.logger.setLevel("INFO")
    bootstrap.reset()


@pytest.fixture(params=["fakes", "cloud"])
def world(request: pytest.FixtureRequest) -> World:
    if request.param == "fakes":
        return World(Fakes)
    return World(partial(EmbeddedCloud, request.getfixturevalue("ministack")))

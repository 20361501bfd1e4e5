"""After each test the handlers lose the dependencies that its simulation installed; their logs are off."""

from collections.abc import Iterator
from functools import partial

import pytest

from aiserver import bootstrap, http_api
from tests.crash.backends import EmbeddedCloudBackend, FakeBackend
from tests.crash.simulation import Simulation


@pytest.fixture(autouse=True)
def handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", "AiServer")
    http_api.logger.setLevel("CRITICAL")
    yield
    http_api.logger.setLevel("INFO")
    bootstrap.reset_for_tests()


@pytest.fixture(params=["fakes", "cloud"])
def simulation(request: pytest.FixtureRequest) -> Simulation:
    if request.param == "fakes":
        return Simulation(FakeBackend)
    return Simulation(partial(EmbeddedCloudBackend, request.getfixturevalue("ministack")))

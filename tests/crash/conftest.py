"""Each test leaves the handlers without the parts its world has put into them; their logs would be too much."""

from collections.abc import Iterator

import pytest

from aiserver import edge, wiring


@pytest.fixture(autouse=True)
def handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", "AiServer")
    edge.logger.setLevel("CRITICAL")
    yield
    edge.logger.setLevel("INFO")
    wiring.reset()

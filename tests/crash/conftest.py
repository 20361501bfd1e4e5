"""Each test leaves the handlers without the parts its world has put into them."""

from collections.abc import Iterator

import pytest

from aiserver import wiring


@pytest.fixture(autouse=True)
def handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", "AiServer")
    yield
    wiring.reset()

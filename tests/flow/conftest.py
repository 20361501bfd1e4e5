"""The product, started as users start it, with a scripted upstream that is a real HTTP server."""

from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from local.choose_upstream import scripted_upstream
from local.cloud import Cloud
from local.receiver import Receiver, receiver
from local.scripted import ScriptedProvider


@dataclass
class Product:
    """A running product and the upstream behind it."""

    cloud: Cloud
    upstream: ScriptedProvider
    http: httpx.Client

    @property
    def url(self) -> str:
        return self.cloud.base_url

    @property
    def key(self) -> str:
        return self.cloud.seeded.api_key

    def ended(self, ref_id: str) -> dict[str, object]:
        """The job record once the job has ended, by the product's own waiting route."""
        answer = self.http.get("/api/WaitForOpenAiChat", params={"refId": ref_id})
        assert answer.status_code == 200, answer.text
        return answer.json()["result"]


@pytest.fixture(scope="session")
def started() -> Iterator[Product]:
    with ScriptedProvider() as upstream, Cloud(scripted_upstream(upstream)) as cloud:
        headers = {"authorization": f"Bearer {cloud.seeded.api_key}"}
        with httpx.Client(base_url=cloud.base_url, headers=headers, timeout=60, trust_env=False) as http:
            yield Product(cloud, upstream, http)


@pytest.fixture
def product(started: Product) -> Product:
    started.upstream.requests.clear()
    return started


@pytest.fixture
def hook() -> Iterator[Receiver]:
    with receiver() as listening:
        yield listening

"""The gateway, running_product as users start it, with a scripted upstream provider that is a real HTTP server."""

from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from local.choose_upstream import build_scripted_upstream
from local.cloud import Cloud
from local.receiver import Receiver, receiver
from local.scripted import ScriptedProvider


@dataclass
class Product:
    """A running gateway and its upstream provider."""

    cloud: Cloud
    upstream: ScriptedProvider
    http: httpx.Client

    @property
    def url(self) -> str:
        return self.cloud.base_url

    @property
    def key(self) -> str:
        return self.cloud.keys.api_key

    def wait_for_job(self, ref_id: str) -> dict[str, object]:
        """Return the job once it is in a terminal state, through the gateway's wait route."""
        response = self.http.get("/api/WaitForOpenAiChat", params={"refId": ref_id})
        assert response.status_code == 200, response.text
        return response.json()["result"]


@pytest.fixture(scope="session")
def running_product() -> Iterator[Product]:
    with ScriptedProvider() as upstream, Cloud(build_scripted_upstream(upstream)) as cloud:
        headers = {"authorization": f"Bearer {cloud.keys.api_key}"}
        with httpx.Client(base_url=cloud.base_url, headers=headers, timeout=60, trust_env=False) as http:
            yield Product(cloud, upstream, http)


@pytest.fixture
def product(running_product: Product) -> Product:
    running_product.upstream.requests.clear()
    return running_product


@pytest.fixture
def hook() -> Iterator[Receiver]:
    with receiver() as webhook_receiver:
        yield webhook_receiver

"""The product, started as users start it, with a scripted upstream and vendors that are real HTTP servers."""

import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace

import httpx
import pytest

from local.cloud import Cloud
from local.receiver import Receiver, receiver
from local.scripted import ScriptedProvider
from local.upstream import Upstream, scripted_upstream
from tests.vendors.dialects import DIALECTS
from tests.vendors.server import VendorServer, serving

VENDOR_KEY = "vk-of-the-gateway"


@dataclass
class Product:
    """A running product and the upstream behind it."""

    cloud: Cloud
    upstream: ScriptedProvider
    vendors: dict[str, VendorServer]
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
    with ExitStack() as running:
        upstream = running.enter_context(ScriptedProvider())
        vendors = {dialect.type: running.enter_context(serving(dialect, VENDOR_KEY)) for dialect in DIALECTS}
        cloud = running.enter_context(Cloud(before_vendors(scripted_upstream(upstream), vendors.values())))
        headers = {"authorization": f"Bearer {cloud.seeded.api_key}"}
        with httpx.Client(base_url=cloud.base_url, headers=headers, timeout=60, trust_env=False) as http:
            yield Product(cloud, upstream, vendors, http)


def before_vendors(upstream: Upstream, vendors: Iterable[VendorServer]) -> Upstream:
    """The same with a provider for each vendor, which has its models as `<type>/<model>`; all of them have `any`."""
    more = [
        {
            "name": vendor.dialect.type,
            "type": vendor.dialect.type,
            "base_url": vendor.origin,
            "api_key_var": "VENDOR_KEY",
            "models": {f"{vendor.dialect.type}/model": vendor.dialect.model, "any": vendor.dialect.model},
            "priority": -number,
        }
        for number, vendor in enumerate(vendors)
    ]
    providers = json.loads(upstream.providers)["providers"] + more
    environment = {**upstream.environment, "VENDOR_KEY": VENDOR_KEY}
    return replace(upstream, providers=json.dumps({"providers": providers}), environment=environment)


@pytest.fixture
def product(started: Product) -> Product:
    started.upstream.requests.clear()
    for vendor in started.vendors.values():
        vendor.requests.clear()
        vendor.heard.clear()
    return started


@pytest.fixture
def hook() -> Iterator[Receiver]:
    with receiver() as listening:
        yield listening

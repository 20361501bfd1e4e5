"""Memory above idle of the function that handles a request of 5 MB, by the shape of its body and its route."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from aiserver.limits import MAX_BODY_BYTES, MAX_VALUES, MB
from local.choose_upstream import Upstream
from local.cloud import Cloud
from local.scripted import ScriptedProvider

pytestmark = pytest.mark.skipif(
    os.environ.get("HYPOTHESIS_PROFILE") != "full", reason="a minute of CPU: `make test-full` runs it"
)

SIZE = MAX_BODY_BYTES - 4096
MESSAGE_BYTES = SIZE // 10_000 - 40
ACCEPTED_MB, MANY_VALUES_MB, REJECTED_MB = 60, 150, 60
TOOL = '{"type":"function","function":{"name":"f%d","parameters":{"type":"object","description":"' + "x" * 900 + '"}}}'
VENDOR = "anthropic"
Shape = Callable[[str], str]


def body(content: str, model: str, extra_members: str = "") -> str:
    return '{"model":"%s","messages":[{"role":"user","content":%s}]%s}' % (model, content, extra_members)


def text(model: str) -> str:
    return body('"%s"' % ("hello, world, and so on \\n" * (SIZE // 28)), model)


def emoji(model: str) -> str:
    return body('"😀%s"' % ("語" * (SIZE // 3 - 100)), model)


def image(model: str) -> str:
    part = '[{"type":"image_url","image_url":{"url":"data:image/png;base64,%s"}}]'
    return body(part % ("A" * (SIZE // 4 * 4 - 400)), model)


def messages(model: str) -> str:
    pair = ['{"role":"%s","content":"%s"}' % (role, "x" * MESSAGE_BYTES) for role in ("user", "assistant")]
    return '{"model":"%s","messages":[%s]}' % (model, ",".join(pair * 5_000))


def tools(model: str) -> str:
    return body('"hi"', model, ',"tools":[%s]' % ",".join(TOOL % i for i in range(SIZE // (len(TOOL) + 8))))


def parts(model: str) -> str:
    return body("[%s]" % ",".join(['{"type":"text","text":"xxxxx"}'] * 115_000), model)


def objects(model: str) -> str:
    return body("[%s]" % ",".join(['{"":0}'] * (MAX_VALUES // 2 - 10)), model)


def too_many(model: str) -> str:
    return body("[%s]" % ",".join(["1"] * (SIZE // 2)), model)


def wrong_parts(model: str) -> str:
    return body("[%s]" % ",".join(["1"] * (MAX_VALUES - 10)), model)


def deep(model: str) -> str:
    return body("[" * (SIZE // 2) + "]" * (SIZE // 2), model)


@dataclass
class Product:
    cloud: Cloud
    http: httpx.Client

    def cost_mb(self, function: str, path: str, content: str) -> tuple[int, int]:
        """Return the status of the response and the peak memory of the function above its idle memory, in MB."""
        for pid in self.cloud.pids(function):
            os.kill(pid, signal.SIGKILL)
        while self.cloud.pids(function):  # bounded by the timeout of the test
            os.sched_yield()
        self.http.post(path, content=body('"hi"', "nobody-has-it"))
        (pid,) = self.cloud.pids(function)
        process = Path(f"/proc/{pid}")
        (process / "clear_refs").write_text("5")  # proc(5): resets the peak
        idle = memory_mb(process, "VmRSS")
        status = self.http.post(path, content=content.encode()).status_code
        return status, memory_mb(process, "VmHWM") - idle


def memory_mb(process: Path, field: str) -> int:
    status_line = next(text for text in (process / "status").read_text().splitlines() if text.startswith(field + ":"))
    return int(status_line.split()[1]) * 1024 // MB


@pytest.fixture(scope="module")
def product() -> Iterator[Product]:
    with ScriptedProvider() as upstream:
        providers = [
            {"name": "p", "base_url": upstream.base_url, "models": {"m": ""}, "operations": list(PATHS)},
            {
                "name": VENDOR,
                "type": VENDOR,
                "base_url": upstream.base_url.removesuffix("/v1"),
                "models": {VENDOR: "claude"},
            }
            | {"api_key_var": "VENDOR_KEY"},
        ]
        with Cloud(Upstream(json.dumps({"providers": providers}), {"VENDOR_KEY": "k" * 20}, "")) as cloud:
            key = {"authorization": f"Bearer {cloud.keys.api_key}"}
            with httpx.Client(base_url=cloud.base_url, headers=key, timeout=60, trust_env=False) as http:
                yield Product(cloud, http)


PATHS = {"chat.completions": "/v1/chat/completions", "embeddings": "/v1/embeddings", "responses": "/v1/responses"}
CHAT, QUEUE = ("chat", PATHS["chat.completions"]), ("queue", "/v1/queue/chat/completions")


@pytest.mark.parametrize("route", [CHAT, QUEUE], ids=["chat", "queue"])
@pytest.mark.parametrize("shape", [text, emoji, image, messages, tools])
def test_common_large_request_costs_bounded_memory(product: Product, route: tuple[str, str], shape: Shape) -> None:
    status, cost = product.cost_mb(*route, shape("m"))
    assert status in (200, 202)
    assert cost <= ACCEPTED_MB


@pytest.mark.parametrize("shape", [parts, objects])
def test_large_request_of_small_values_costs_bounded_memory(product: Product, shape: Shape) -> None:
    status, cost = product.cost_mb(*CHAT, shape("m"))
    assert (status, cost <= MANY_VALUES_MB) == (200, True)


@pytest.mark.parametrize("shape", [emoji, messages, tools])
def test_translation_of_a_large_request_costs_bounded_memory(product: Product, shape: Shape) -> None:
    assert product.cost_mb(*CHAT, shape(VENDOR))[1] <= ACCEPTED_MB


def test_translation_of_many_parts_costs_bounded_memory(product: Product) -> None:
    assert product.cost_mb(*CHAT, parts(VENDOR))[1] <= MANY_VALUES_MB


@pytest.mark.parametrize("route", [CHAT, QUEUE, ("queue", "/api/QueueOpenAiChatCompletion")])
@pytest.mark.parametrize("shape", [too_many, wrong_parts, deep])
def test_rejected_large_request_costs_bounded_memory(product: Product, route: tuple[str, str], shape: Shape) -> None:
    content = shape("m")
    status, cost = product.cost_mb(*route, '{"request":%s}' % content if route[1].startswith("/api") else content)
    assert (status, cost <= REJECTED_MB) == (400, True)


@pytest.mark.parametrize("path", [PATHS["embeddings"], PATHS["responses"]])
def test_large_input_of_other_operations_costs_bounded_memory(product: Product, path: str) -> None:
    status, cost = product.cost_mb("chat", path, '{"model":"m","input":[%s]}' % ",".join(['"x"'] * (MAX_VALUES - 10)))
    assert (status, cost <= MANY_VALUES_MB) == (200, True)


def test_batch_of_too_many_requests_costs_bounded_memory(product: Product) -> None:
    batch = "[%s]" % ",".join(['{"request":{"model":"m"}}'] * 60_000)
    status, cost = product.cost_mb("queue", "/api/QueueOpenAiChatCompletion[]", batch)
    assert (status, cost <= REJECTED_MB) == (400, True)

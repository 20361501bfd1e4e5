"""Time to parse a chat request and select its provider: writes benchmarks/results/binding.json and the page.

Each body takes the path of `POST /v1/chat/completions`: from the caller's text to the provider's request body, without
the calls to AWS and the provider. `json.loads` of the same text in the same run is the baseline.
"""

import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from aiserver.clock import SystemClock
from aiserver.providers.provider import Provider
from aiserver.routing.selection import ProviderDirectory, order_by_load
from aiserver.wire import requests
from aiserver.wire.upstream_body import with_model
from benchmarks import page

MAX_RATIO = 15  # to `json.loads`, on any machine; it was 40 when each level was parsed separately
MAX_SMALL_RATIO = 30  # for bodies below SMALL_BYTES, where fixed costs dominate
SMALL_BYTES = 1000
MODEL = "llama3:8b"
PROVIDERS = [
    Provider(name="named", base_url="http://127.0.0.1:1/v1", models={MODEL: "vendor/llama-3-8b"}),
    Provider(name="any", base_url="http://127.0.0.1:1/v1", models={"*": ""}),
    *(Provider(name=f"other-{i}", base_url="http://127.0.0.1:1/v1", models={f"model-{i}:7b": ""}) for i in range(10)),
]
SENTENCE = "How do language models work, and why? "
CLOCK = SystemClock()
DIRECTORY = ProviderDirectory(lambda: PROVIDERS, CLOCK)


def chat(count: int, length: int, text: str = SENTENCE) -> dict[str, Any]:
    """A chat with `count` messages of `length` characters."""
    content = (text * (length // len(text) + 1))[:length]
    messages = [{"role": ("user", "assistant")[i % 2], "content": content} for i in range(count)]
    return {"model": MODEL, "messages": messages, "max_tokens": 50, "temperature": 0.7}


def agent_chat() -> dict[str, Any]:
    """An agent's chat with twenty tools and many tool calls with their results."""
    properties = {f"property_{i}": {"type": "string", "description": SENTENCE} for i in range(5)}
    parameters = {"type": "object", "properties": properties, "required": ["property_0"]}
    messages: list[Any] = []
    for i in range(66):
        call = {"name": "tool_1", "arguments": json.dumps({"property_0": i, "property_1": SENTENCE * 4})}
        messages += [
            {"role": "user", "content": SENTENCE * 6},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": f"c{i}", "type": "function", "function": call}],
            },
            {"role": "tool", "tool_call_id": f"c{i}", "content": SENTENCE * 17},
        ]
    tools = [
        {"type": "function", "function": {"name": f"tool_{i}", "description": SENTENCE * 3, "parameters": parameters}}
        for i in range(20)
    ]
    return {"model": MODEL, "messages": messages, "tools": tools, "max_tokens": 50, "tool_choice": "auto"}


def recase(value: Any, capitals: slice) -> Any:
    """The value with its keys in camelCase or PascalCase, as sent by typed clients; `capitals` selects the words."""
    if isinstance(value, list):
        return [recase(member, capitals) for member in value]  # pyright: ignore[reportUnknownVariableType]
    if not isinstance(value, dict):
        return value
    members: dict[str, Any] = {}
    for key, member in value.items():  # pyright: ignore[reportUnknownVariableType]
        words = str(key).split("_")  # pyright: ignore[reportUnknownArgumentType]
        words[capitals] = [word.capitalize() for word in words[capitals]]
        members["".join(words)] = member if key == "parameters" else recase(member, capitals)
    return members


CAMEL, PASCAL = slice(1, None), slice(0, None)
PARTS = [
    {"type": "text", "text": SENTENCE * 8},
    {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
]
BODIES: Mapping[str, str] = {
    "4 messages": json.dumps(chat(4, 60)),
    "4 messages of 25 KB": json.dumps(chat(4, 24_900)),
    "100 messages of 1 KB": json.dumps(chat(100, 960)),
    "400 messages of 200 bytes": json.dumps(chat(400, 213)),
    "400 messages, model last": json.dumps({"messages": chat(400, 213)["messages"], "model": MODEL}),
    "400 messages with refId and tag": json.dumps({"refId": "r", **chat(400, 213), "tag": "t"}),
    "tools and tool calls": json.dumps(agent_chat()),
    "tools and tool calls, camelCase": json.dumps(recase(agent_chat(), CAMEL)),
    "100 messages, PascalCase": json.dumps(recase(chat(100, 960), PASCAL)),
    "3-byte characters": json.dumps(chat(100, 318, "言語モデルとは何か"), ensure_ascii=False),
    "escaped characters": json.dumps(chat(100, 160, "言語モデルとは何か")),
    "escaped quotes and newlines": json.dumps(chat(100, 480, '"\n')),
    "220 messages with two parts": json.dumps({"model": MODEL, "messages": [{"role": "user", "content": PARTS}] * 220}),
}


def bind_and_route(text: str) -> bytes:
    """The request body for the first candidate."""
    request = requests.bind_chat(text)
    candidates = DIRECTORY.candidates(request.model, operation=request.operation)
    upstream = order_by_load(candidates, {}, CLOCK.fraction())[0].upstream()
    return with_model(request.body, upstream.model)


@pytest.mark.parametrize("name", BODIES)
def test_bind_and_route(benchmark: BenchmarkFixture, name: str) -> None:
    assert b'"vendor/llama-3-8b"' in benchmark(bind_and_route, BODIES[name])


@pytest.mark.parametrize("name", BODIES)
def test_parse_only(benchmark: BenchmarkFixture, name: str) -> None:
    assert isinstance(benchmark(json.loads, BODIES[name]), dict)


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "benchmark.json"
        options = ["-q", "-p", "no:cacheprovider", "--benchmark-warmup=on", f"--benchmark-json={report}"]
        if pytest.main([__file__, "-o", "python_files=binding.py", *options]):
            return 1
        benchmarks = json.loads(report.read_text(encoding="utf-8"))["benchmarks"]
    stats = {(entry["name"].partition("[")[0], entry["params"]["name"]): entry["stats"] for entry in benchmarks}
    rows = [_row(name, stats["test_bind_and_route", name], stats["test_parse_only", name]) for name in BODIES]
    page.save("binding", {"command": "make bench", "unit": "us", "rows": rows})
    slow_bodies = [row["body"] for row in rows if row["ratio"] > _max_ratio(row["bytes"])]
    if slow_bodies:
        print(f"bench: parsing is too slow: {', '.join(slow_bodies)}")
    return 1 if slow_bodies else 0


def _max_ratio(size: int) -> int:
    return MAX_SMALL_RATIO if size < SMALL_BYTES else MAX_RATIO


def _row(name: str, binding: Mapping[str, float], parsing: Mapping[str, float]) -> dict[str, Any]:
    return {
        "body": name,
        "bytes": len(BODIES[name].encode()),
        "median": round(binding["median"] * 1e6),
        "worst": round(binding["max"] * 1e6),
        "loads": round(parsing["median"] * 1e6, 1),
        "ratio": round(binding["median"] / parsing["median"], 1),
    }


if __name__ == "__main__":
    sys.exit(main())

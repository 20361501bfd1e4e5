"""How long it takes to bind a chat and to choose who answers it: writes benchmarks/results/binding.json and the page.

Each body goes the way of `POST /v1/chat/completions`: from the caller's text to the bytes for the provider, without
the calls to AWS and to the provider. `json.loads` of the same text, in the same run, is what to compare with.
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
from aiserver.router import Router
from aiserver.wire import requests
from aiserver.wire.upstream_body import with_model
from benchmarks import page

LIMIT_RATIO = 15  # to `json.loads`, whatever the machine; it was 40 when each level was parsed anew
LIMIT_SMALL_RATIO = 30  # where there is next to nothing to parse
SMALL_BYTES = 1000
MODEL = "llama3:8b"
PROVIDERS = [
    Provider(name="named", base_url="http://127.0.0.1:1/v1", models={MODEL: "vendor/llama-3-8b"}),
    Provider(name="any", base_url="http://127.0.0.1:1/v1", models={"*": ""}),
    *(Provider(name=f"other-{i}", base_url="http://127.0.0.1:1/v1", models={f"model-{i}:7b": ""}) for i in range(10)),
]
WORDS = "How do language models work, and why? "
ROUTER = Router(lambda: PROVIDERS, {}, None, SystemClock())


def chat(times: int, each: int, text: str = WORDS, **more: Any) -> dict[str, Any]:
    """A chat of so many messages of about so many letters."""
    content = (text * (each // len(text) + 1))[:each]
    messages = [{"role": ("user", "assistant")[i % 2], "content": content} for i in range(times)]
    return {"model": MODEL, "messages": messages, "max_tokens": 50, "temperature": 0.7, **more}


def tools() -> dict[str, Any]:
    """An agent's chat: twenty tools, and many calls of them with what they answered."""
    properties = {f"property_{i}": {"type": "string", "description": WORDS} for i in range(5)}
    parameters = {"type": "object", "properties": properties, "required": ["property_0"]}
    messages: list[Any] = []
    for i in range(66):
        call = {"name": "tool_1", "arguments": json.dumps({"property_0": i, "property_1": WORDS * 4})}
        messages += [
            {"role": "user", "content": WORDS * 6},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": f"c{i}", "type": "function", "function": call}],
            },
            {"role": "tool", "tool_call_id": f"c{i}", "content": WORDS * 17},
        ]
    known = [
        {"type": "function", "function": {"name": f"tool_{i}", "description": WORDS * 3, "parameters": parameters}}
        for i in range(20)
    ]
    return {"model": MODEL, "messages": messages, "tools": known, "max_tokens": 50, "tool_choice": "auto"}


def spelled(value: Any, first: slice) -> Any:
    """The value with each key as a typed client writes it; from its second word on, or its first, in capitals."""
    if isinstance(value, list):
        return [spelled(item, first) for item in value]  # pyright: ignore[reportUnknownVariableType]
    if not isinstance(value, dict):
        return value
    named: dict[str, Any] = {}
    for key, item in value.items():  # pyright: ignore[reportUnknownVariableType]
        words = str(key).split("_")  # pyright: ignore[reportUnknownArgumentType]
        words[first] = [word.capitalize() for word in words[first]]
        named["".join(words)] = item if key == "parameters" else spelled(item, first)
    return named


CAMEL, PASCAL = slice(1, None), slice(0, None)
PARTS = [{"type": "text", "text": WORDS * 8}, {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]
BODIES: Mapping[str, str] = {
    "4 messages": json.dumps(chat(4, 60)),
    "4 messages of 25 KB": json.dumps(chat(4, 24_900)),
    "100 messages of 1 KB": json.dumps(chat(100, 960)),
    "400 messages of 200 bytes": json.dumps(chat(400, 213)),
    "400 messages, the model after them": json.dumps({"messages": chat(400, 213)["messages"], "model": MODEL}),
    "400 messages, RefId and tag to take out": json.dumps({"refId": "r", **chat(400, 213), "tag": "t"}),
    "tools and calls": json.dumps(tools()),
    "tools and calls, in camelCase": json.dumps(spelled(tools(), CAMEL)),
    "100 messages, in PascalCase": json.dumps(spelled(chat(100, 960), PASCAL)),
    "letters of three bytes": json.dumps(chat(100, 318, "言語モデルとは何か"), ensure_ascii=False),
    "letters escaped": json.dumps(chat(100, 160, "言語モデルとは何か")),
    "escaped quotes and line ends": json.dumps(chat(100, 480, '"\n')),
    "220 messages of two parts": json.dumps({"model": MODEL, "messages": [{"role": "user", "content": PARTS}] * 220}),
}


def bound(text: str) -> bytes:
    """The text as it goes to the provider that is asked first."""
    request = requests.bind_chat(text)
    candidate = ROUTER.order_by_load(ROUTER.candidates(request.model, operation=request.operation))[0]
    return with_model(request.body, candidate.upstream_model)


@pytest.mark.parametrize("name", BODIES)
def test_bind_and_route(benchmark: BenchmarkFixture, name: str) -> None:
    assert b'"vendor/llama-3-8b"' in benchmark(bound, BODIES[name])


@pytest.mark.parametrize("name", BODIES)
def test_parse_alone(benchmark: BenchmarkFixture, name: str) -> None:
    assert isinstance(benchmark(json.loads, BODIES[name]), dict)


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "benchmark.json"
        options = ["-q", "-p", "no:cacheprovider", "--benchmark-warmup=on", f"--benchmark-json={told}"]
        if pytest.main([__file__, "-o", "python_files=binding.py", *options]):
            return 1
        measured = json.loads(told.read_text(encoding="utf-8"))["benchmarks"]
    took = {(one["name"].partition("[")[0], one["params"]["name"]): one["stats"] for one in measured}
    rows = [_row(name, took["test_bind_and_route", name], took["test_parse_alone", name]) for name in BODIES]
    page.keep("binding", {"command": "make bench", "unit": "us", "rows": rows})
    slow = [row["body"] for row in rows if row["ratio"] > _limit(row["bytes"])]
    if slow:
        print(f"bench: slow to bind: {', '.join(slow)}")
    return 1 if slow else 0


def _limit(size: int) -> int:
    return LIMIT_SMALL_RATIO if size < SMALL_BYTES else LIMIT_RATIO


def _row(name: str, ours: Mapping[str, float], parsed: Mapping[str, float]) -> dict[str, Any]:
    return {
        "body": name,
        "bytes": len(BODIES[name].encode()),
        "median": round(ours["median"] * 1e6),
        "worst": round(ours["max"] * 1e6),
        "loads": round(parsed["median"] * 1e6, 1),
        "ratio": round(ours["median"] / parsed["median"], 1),
    }


if __name__ == "__main__":
    sys.exit(main())

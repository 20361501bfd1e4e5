"""Memory growth of a chat process over many requests: writes results/calls.json and the page.

Sends ten thousand sequential requests to one real process of the chat function; three in ten fail. Model names, API
keys and field names are new in each request, so that unbounded caches become visible. Fails when memory grows.
"""

import sys
from typing import Any

import httpx

from benchmarks import page
from local import ministack
from local.choose_upstream import build_scripted_upstream
from local.cloud import Cloud
from local.scripted import ScriptedProvider

CALLS = 10_000
EVERY = 1_000
LIMIT_KB = 2_048  # from the first reading to the last; temporary memory of a call is not freed completely at once
SENTENCE = "How do language models work, and why? "


def main() -> int:
    readings: list[dict[str, int]] = []
    with ScriptedProvider() as upstream, Cloud(build_scripted_upstream(upstream)) as cloud:
        key = cloud.keys.api_key
        with httpx.Client(base_url=cloud.base_url, timeout=60, trust_env=False) as caller:
            for i in range(1, CALLS + 1):
                _call(caller, upstream, key, i)
                if i % EVERY == 0:
                    (memory_kb,) = cloud.memory_kb("chat")  # requires exactly one process
                    readings.append({"calls": i, "kb": memory_kb})
                    upstream.requests.clear()
                    print(readings[-1], flush=True)
    grew_kb = readings[-1]["kb"] - readings[0]["kb"]
    page.save("calls", {"command": "make bench", "limit_kb": LIMIT_KB, "grew_kb": grew_kb, "readings": readings})
    return 0 if grew_kb <= LIMIT_KB else 1


def _call(caller: httpx.Client, upstream: ScriptedProvider, key: str, i: int) -> None:
    """Send request number `i`. Raises: CloudFailed, when its status is not the expected one."""
    chat: dict[str, Any] = {
        "model": "llama3:8b",
        "messages": [{"role": "user", "content": SENTENCE * (i % 97)}] * (1 + i % 5),
        f"unknown-{i}": i,
    }
    expected = 200
    match i % 20:
        case 1:
            upstream.respond_with(500, b'{"error":{"message":"fault %d"}}' % i)
            expected = 500
        case 4:
            upstream.respond_with(429, b'{"error":{"message":"slowly"}}', {"retry-after": "1"})
            expected = 429
        case 7:
            upstream.respond_with(None, b"")  # the connection is cut
            expected = 504
        case 10:
            chat["model"], expected = f"unknown-{i}", 404
        case 13:
            key, expected = f"{key}{i}", 401
        case 16:
            chat["maxTokens"], expected = "many", 400
        case 19:
            chat |= {"refId": f"call-{i}", "maxTokens": 50}
        case _:
            pass
    response = caller.post("/v1/chat/completions", json=chat, headers={"authorization": f"Bearer {key}"})
    if response.status_code != expected:
        raise ministack.CloudFailed(f"call {i} returned {response.status_code}: {response.text[:200]}")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ministack.CloudFailed as error:
        sys.exit(f"bench: {error}")

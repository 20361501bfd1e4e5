"""Does a process that has answered many chats hold more memory than before? Writes results/calls.json and the page.

One real process of the chat function, asked ten thousand times, one call at a time; three in ten go wrong. Names and
keys that callers make up are new each time, so that whatever is kept by them would show. Fails where it grew.
"""

import sys
from typing import Any

import httpx

from benchmarks import page
from local import ministack
from local.choose_upstream import scripted_upstream
from local.cloud import Cloud
from local.scripted import ScriptedProvider

CALLS = 10_000
EVERY = 1_000
LIMIT_KB = 2_048  # from the first reading to the last; what a call needs for itself is given back, but not all at once
WORDS = "How do language models work, and why? "


def main() -> int:
    readings: list[dict[str, int]] = []
    with ScriptedProvider() as upstream, Cloud(scripted_upstream(upstream)) as cloud:
        key = cloud.seeded.api_key
        with httpx.Client(base_url=cloud.base_url, timeout=60, trust_env=False) as caller:
            for i in range(1, CALLS + 1):
                _ask(caller, upstream, key, i)
                if i % EVERY == 0:
                    (held_kb,) = cloud.memory_kb("chat")  # one process, or this would tell nothing
                    readings.append({"calls": i, "kb": held_kb})
                    upstream.requests.clear()
                    print(readings[-1], flush=True)
    grew_kb = readings[-1]["kb"] - readings[0]["kb"]
    page.keep("calls", {"command": "make bench", "limit_kb": LIMIT_KB, "grew_kb": grew_kb, "readings": readings})
    return 0 if grew_kb <= LIMIT_KB else 1


def _ask(caller: httpx.Client, upstream: ScriptedProvider, key: str, i: int) -> None:
    """The call number `i`. Raises: CloudFailed, when it does not end as it should."""
    chat: dict[str, Any] = {
        "model": "llama3:8b",
        "messages": [{"role": "user", "content": WORDS * (i % 97)}] * (1 + i % 5),
        f"unknown-{i}": i,
    }
    expected = 200
    match i % 20:
        case 1:
            upstream.answer_with(500, b'{"error":{"message":"fault %d"}}' % i)
            expected = 500
        case 4:
            upstream.answer_with(429, b'{"error":{"message":"slowly"}}', {"retry-after": "1"})
            expected = 429
        case 7:
            upstream.answer_with(None, b"")  # the connection is cut
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
    answered = caller.post("/v1/chat/completions", json=chat, headers={"authorization": f"Bearer {key}"})
    if answered.status_code != expected:
        raise ministack.CloudFailed(f"call {i} ended with {answered.status_code}: {answered.text[:200]}")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ministack.CloudFailed as failed:
        sys.exit(f"bench: {failed}")

"""The main job, step by step, with its real output: what `make demo` shows."""

import json
import os
import queue
import sys
import time
from typing import Any

import httpx

from local.cloud import Cloud
from local.ministack import CloudFailed
from local.receiver import receiver
from local.upstream import choose

CALLBACK_S = 60  # a real model may think that long; the scripted one answers at once
QUESTION = {
    "messages": [
        {"role": "system", "content": "You are a helpful AI assistant."},
        {"role": "user", "content": "How do LLMs work?"},
    ],
    "max_tokens": 50,
}


class StepFailed(Exception):
    """A step did not do what it should."""


def main() -> int:
    started = time.monotonic()
    try:
        with choose(os.environ) as upstream, Cloud(upstream) as cloud:
            print(upstream.sentence)
            print(f"The product is up at {cloud.base_url} ({time.monotonic() - started:.1f} s).")
            _run(cloud)
    except (CloudFailed, StepFailed, httpx.HTTPError) as failure:
        print(f"demo failed: {failure}", file=sys.stderr)
        return 1
    print(f"\nAll of it worked, in {time.monotonic() - started:.1f} s. Nothing is left running.")
    return 0


def _run(cloud: Cloud) -> None:
    with httpx.Client(
        base_url=cloud.base_url,
        headers={"authorization": f"Bearer {cloud.seeded.api_key}"},
        timeout=CALLBACK_S,
        trust_env=False,
    ) as http:
        _step("1. Ask now: POST /v1/chat/completions, model llama3:8b")
        answer = _json(http.post("/v1/chat/completions", json={"model": "llama3:8b", **QUESTION}), 200)
        print(f"   {answer['choices'][0]['message']['content']}")

        with receiver() as hook:
            _step("2. Ask later: POST /api/QueueOpenAiChatCompletion, model gpt-4-turbo, with a ReplyTo")
            queued_at = time.monotonic()
            ask = {
                "refId": "demo-1",
                "tag": "demo",
                "replyTo": hook.url,
                "request": {"model": "gpt-4-turbo", **QUESTION},
            }
            queued = _json(http.post("/api/QueueOpenAiChatCompletion", json=ask), 200)
            print(f"   RefId {queued['refId']}, Id {queued['id']}\n   {queued['statusUrl']}")

            _step("3. The signed callback arrives at ReplyTo")
            try:
                callback = hook.next(CALLBACK_S)
            except queue.Empty:
                raise StepFailed("no callback arrived") from None
            took_s = time.monotonic() - queued_at
            if not callback.is_signed_by(cloud.seeded.webhook_secret):
                raise StepFailed("the callback's signature does not fit")
            print(f"   after {took_s:.2f} s, job state {callback.headers['x-job-state']}, signature valid")
            for name in ("webhook-id", "webhook-signature", "x-ref-id", "x-tag"):
                print(f"   {name}: {callback.headers[name]}")
            print(f"   {json.loads(callback.body)['choices'][0]['message']['content']}")

        _step("4. The status URL leads to the same result")
        status = _json(http.get(queued["statusUrl"]), 200)
        print(f"   jobState {status['jobState']}, attempts {status['attempts']}, usage {json.dumps(status['usage'])}")
        if status["result"] != json.loads(callback.body):
            raise StepFailed("status and callback tell different results")

        _step("5. Another key does not see the job")
        other = {"authorization": f"Bearer {cloud.seeded.other_api_key}"}
        hidden = _json(http.get(queued["statusUrl"], headers=other), 404)
        print(f"   404 {hidden['responseStatus']['errorCode']}: {hidden['responseStatus']['message']}")


def _step(title: str) -> None:
    print(f"\n{title}")


def _json(response: httpx.Response, status: int) -> Any:
    if response.status_code != status:
        raise StepFailed(f"{response.request.url.path} answered {response.status_code}: {response.text[:500]}")
    return response.json()


if __name__ == "__main__":
    sys.exit(main())

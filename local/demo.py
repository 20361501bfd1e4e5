"""The main job, step by step, with its real output: what `make demo` shows."""

import json
import os
import sys
import time

from local.choose_upstream import choose
from local.cloud import Cloud
from local.demo_steps import StepFailed, caller, expect_status, print_stream, run_steps, signed_callback, step
from local.receiver import receiver

QUESTION = {
    "messages": [
        {"role": "system", "content": "You are a helpful AI assistant."},
        {"role": "user", "content": "How do LLMs work?"},
    ],
    "max_tokens": 50,
}


def main() -> int:
    return run_steps("demo", _run)


def _run(started: float) -> None:
    with choose(os.environ) as upstream, Cloud(upstream) as cloud, caller(cloud) as http:
        print(upstream.sentence)
        print(f"The product is up at {cloud.base_url} ({time.monotonic() - started:.1f} s).")

        step("1. Ask now: POST /v1/chat/completions, model llama3:8b")
        answer = expect_status(http.post("/v1/chat/completions", json={"model": "llama3:8b", **QUESTION}), 200)
        print(f"   {answer['choices'][0]['message']['content']}")

        step("2. The same, streamed: each word as it comes")
        print_stream(http, {"model": "llama3:8b", **QUESTION})

        with receiver() as hook:
            step("3. Ask later: POST /api/QueueOpenAiChatCompletion, model gpt-4-turbo, with a ReplyTo")
            queued_at = time.monotonic()
            ask = {
                "refId": "demo-1",
                "tag": "demo",
                "replyTo": hook.url,
                "request": {"model": "gpt-4-turbo", **QUESTION},
            }
            queued = expect_status(http.post("/api/QueueOpenAiChatCompletion", json=ask), 200)
            print(f"   RefId {queued['refId']}, Id {queued['id']}\n   {queued['statusUrl']}")

            step("4. The signed callback arrives at ReplyTo")
            callback = signed_callback(hook, cloud.seeded.webhook_secret)
            took_s = time.monotonic() - queued_at
            print(f"   after {took_s:.2f} s, job state {callback.headers['x-job-state']}, signature valid")
            for name in ("webhook-id", "webhook-signature", "x-ref-id", "x-tag"):
                print(f"   {name}: {callback.headers[name]}")
            print(f"   {json.loads(callback.body)['choices'][0]['message']['content']}")

        step("5. The status URL leads to the same result")
        status = expect_status(http.get(queued["statusUrl"]), 200)
        print(f"   jobState {status['jobState']}, attempts {status['attempts']}, usage {json.dumps(status['usage'])}")
        if status["result"] != json.loads(callback.body):
            raise StepFailed("status and callback tell different results")

        step("6. Another key does not see the job")
        other = {"authorization": f"Bearer {cloud.seeded.other_api_key}"}
        hidden = expect_status(http.get(queued["statusUrl"], headers=other), 404)
        print(f"   404 {hidden['responseStatus']['errorCode']}: {hidden['responseStatus']['message']}")


if __name__ == "__main__":
    sys.exit(main())

"""`make real-model`: the complete product in front of a small real language model on this machine's CPU."""

import json
import os
import re
import secrets
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import httpx

from local.choose_upstream import Upstream
from local.cloud import Cloud
from local.demo_steps import (
    RESPONSE_TIMEOUT_S,
    StepFailed,
    create_client,
    expect_status,
    receive_callback,
    run_steps,
    step,
)
from local.engines import CONTEXT_TOKENS, KEY_VAR, Engine, choose, running
from local.receiver import Receiver, receiver

try:
    import openai
except ImportError:  # installed by `make test`, not required here
    openai = None

PROMPT = "How do LLMs work?"
CHAT = {"messages": [{"role": "user", "content": PROMPT}], "max_tokens": 50}
YES_NO_MESSAGES = [{"role": "user", "content": "Is water wet?"}]
POLL_S = 0.1


@dataclass(frozen=True)
class EngineTraits:
    """A request field that only the engine supports, the content it must produce, and a request the engine rejects."""

    vendor_field: Mapping[str, object]
    content_pattern: str
    invalid_fields: Mapping[str, object]


LLAMA_CPP = EngineTraits(
    vendor_field={"grammar": 'root ::= "yes" | "no"'},
    content_pattern="yes|no",
    invalid_fields={"messages": [{"role": "user", "content": "word " * 2 * CONTEXT_TOKENS}]},
)
INVALID_IMAGE = {"type": "image_url", "image_url": {"url": "this is no image"}}
OLLAMA = EngineTraits(  # ignores unknown fields, and truncates prompts that are too long
    vendor_field={"no_such_member": True},
    content_pattern="(?s).+",
    invalid_fields={"messages": [{"role": "user", "content": [INVALID_IMAGE]}]},
)


@dataclass(frozen=True)
class Session:
    """The running product as its caller uses it, and the model behind it."""

    cloud: Cloud
    http: httpx.Client
    hook: Receiver
    model: str

    def chat(self, fields: Mapping[str, object], status: int = 200) -> Any:
        """The response to CHAT with additional or replaced `fields`. Raises: StepFailed, when its status differs."""
        return expect_status(
            self.http.post("/v1/chat/completions", json={"model": self.model, **CHAT, **fields}), status
        )

    def queue(self, ref_id: str) -> str:
        """Queue CHAT; the job's status URL. Raises: StepFailed."""
        request = {"model": self.model, **CHAT}
        job = {"refId": ref_id, "tag": "real-model", "replyTo": self.hook.url, "request": request}
        queued = expect_status(self.http.post("/api/QueueOpenAiChatCompletion", json=job), 200)
        print(f"   RefId {queued['refId']}, Id {queued['id']}")
        return queued["statusUrl"]


def main() -> int:
    return run_steps("real-model", _run)


def _run(started_at: float) -> None:
    engine = choose(os.environ)
    print(engine.description)
    key = secrets.token_hex(16)
    with ExitStack() as stack:
        cloud = stack.enter_context(Cloud(_upstream(engine, key)))
        http, hook = stack.enter_context(create_client(cloud)), stack.enter_context(receiver())
        session = Session(cloud, http, hook, engine.model)
        traits = LLAMA_CPP if engine.is_managed else OLLAMA
        print(f"The gateway is running at {cloud.base_url} ({time.monotonic() - started_at:.1f} s).")
        if engine.is_managed:
            status_url = _queue_before_start(session)
            engine_started_at = time.monotonic()
            stack.enter_context(running(engine, key, os.environ, cloud.log_dir / "engine.log"))
            step(
                f"2. Engine started and ready after {time.monotonic() - engine_started_at:.1f} s: "
                "the gateway retries the job"
            )
            _check_callback(session, status_url, since=engine_started_at)
        else:
            print("\n1. and 2. Cold start: skipped, because this engine is already running and not managed here.")
        _chat(session)
        _chat_with_vendor_field(session, traits)
        step("6. Queued job: POST /api/QueueOpenAiChatCompletion, with a ReplyTo")
        queued_at = time.monotonic()
        _check_callback(session, session.queue("real-model-warm"), since=queued_at)
        _check_rejection(session, traits)
        step("8. GET /v1/models")
        print(f"   {json.dumps(expect_status(http.get('/v1/models'), 200)['data'])}")


def _upstream(engine: Engine, key: str) -> Upstream:
    provider = {
        "name": "real-model",
        "base_url": engine.base_url,
        "queue": "gpu",
        "concurrency": 1,
        "models": {engine.model: ""},
        **({"api_key_var": KEY_VAR} if engine.is_managed else {}),
    }
    return Upstream(json.dumps({"providers": [provider]}), {KEY_VAR: key}, engine.description)


def _queue_before_start(session: Session) -> str:
    """Queue a job and send a synchronous request while the engine is down; the job's status URL."""
    step("1. Cold start, the engine is down: a queued job and a synchronous request")
    status_url = session.queue("real-model-cold")
    deadline = time.monotonic() + RESPONSE_TIMEOUT_S
    while "waitReason" not in (status := expect_status(session.http.get(status_url), 200)):
        if time.monotonic() > deadline:
            raise StepFailed(f"the job has no waitReason: {json.dumps(status)}")
        time.sleep(POLL_S)
    print(f"   jobState {status['jobState']}, attempts {status['attempts']}, waitReason {status['waitReason']}")
    if (status["jobState"], status["waitReason"]) != ("Queued", "provider_cold_start"):
        raise StepFailed("the job does not wait for a cold start")
    response = session.http.post("/v1/chat/completions", json={"model": session.model, **CHAT})
    error, retry_after = expect_status(response, 503)["error"], response.headers.get("retry-after", "none")
    print(f"   synchronous: 503 {error['code']}: {error['message']}; retry-after: {retry_after}")
    return status_url


def _check_callback(session: Session, status_url: str, *, since: float) -> None:
    """Print the next callback and the job's status. Raises: StepFailed, when their results differ."""
    callback = receive_callback(session.hook, session.cloud.keys.webhook_secret)
    elapsed_s = time.monotonic() - since
    print(f"   callback after {elapsed_s:.2f} s: {callback.headers['x-job-state']}, signature valid")
    status = expect_status(session.http.get(status_url), 200)
    print(f"   jobState {status['jobState']}, attempts {status['attempts']}, usage {json.dumps(status['usage'])}")
    if status["result"] != json.loads(callback.body):
        raise StepFailed("status and callback contain different results")
    _print_completion(status["result"])


def _chat(session: Session) -> None:
    step(f"3. Synchronous request: POST /v1/chat/completions, model {session.model}")
    started_at = time.monotonic()
    completion = session.chat({})
    print(f"   after {time.monotonic() - started_at:.2f} s, usage {json.dumps(completion['usage'])}")
    _print_completion(completion)
    if openai is None:
        step("4. OpenAI SDK: skipped, because it is not installed (`make test` installs it)")
        return
    step(f"4. The same request with the OpenAI SDK {openai.__version__}")
    base_url, key = f"{session.cloud.base_url}/v1", session.cloud.keys.api_key
    with openai.OpenAI(base_url=base_url, api_key=key, timeout=RESPONSE_TIMEOUT_S) as client:
        sdk_completion = client.chat.completions.create(
            model=session.model, max_tokens=50, messages=[{"role": "user", "content": PROMPT}]
        )
    usage = sdk_completion.usage
    print(f"   {sdk_completion.model}, {usage.total_tokens if usage else 0} tokens")
    _print_completion(sdk_completion.to_dict())


def _chat_with_vendor_field(session: Session, traits: EngineTraits) -> None:
    step(f"5. Engine-specific request field: {json.dumps(traits.vendor_field)}")
    completion = session.chat({"messages": YES_NO_MESSAGES, **traits.vendor_field})
    _print_completion(completion)
    if not re.fullmatch(traits.content_pattern, completion["choices"][0]["message"]["content"]):
        raise StepFailed("the engine did not apply the field")
    vendor_fields = set(completion) - {"id", "object", "created", "model", "choices", "usage", "system_fingerprint"}
    print(f"   engine-specific response fields: {', '.join(sorted(vendor_fields)) or 'none'}")


def _check_rejection(session: Session, traits: EngineTraits) -> None:
    step("7. Rejected by the engine: the response contains the engine's own error")
    rejection = session.chat(traits.invalid_fields, 400)
    print(f"   400 {json.dumps(rejection)}")
    if rejection["responseStatus"]["errorCode"] != "ProviderRejected":
        raise StepFailed("the gateway rejected the request, not the engine")


def _print_completion(completion: Mapping[str, Any]) -> None:
    """Print the content, and the speed if the engine reports it (llama.cpp's `timings`)."""
    print(f"   “{completion['choices'][0]['message']['content']}”")
    if timings := completion.get("timings"):
        prompt_s, tokens_per_s = timings["prompt_ms"] / 1000, timings["predicted_per_second"]
        prompt = f"{timings['prompt_n']} prompt tokens in {prompt_s:.2f} s"
        print(f"   engine timings: {prompt}, then {tokens_per_s:.0f} tokens/s")


if __name__ == "__main__":
    sys.exit(main())

"""The whole product before a small real language model on this machine's CPU: what `make real-model` shows."""

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
from local.demo_steps import ANSWER_S, StepFailed, caller, expect_status, run_steps, signed_callback, step
from local.engines import CONTEXT_TOKENS, KEY_VAR, Engine, choose, running
from local.receiver import Receiver, receiver

try:
    import openai
except ImportError:  # `make test` installs it, the walk does not need it
    openai = None

ASKED = "How do LLMs work?"
QUESTION = {"messages": [{"role": "user", "content": ASKED}], "max_tokens": 50}
WET = [{"role": "user", "content": "Is water wet?"}]
POLL_S = 0.1


@dataclass(frozen=True)
class Dialect:
    """What the engine knows and OpenAI does not, what it says then, and what it refuses."""

    own: Mapping[str, object]
    says: str
    refuses: Mapping[str, object]


LLAMA_CPP = Dialect(
    own={"grammar": 'root ::= "yes" | "no"'},
    says="yes|no",
    refuses={"messages": [{"role": "user", "content": "word " * 2 * CONTEXT_TOKENS}]},
)
NO_IMAGE = {"type": "image_url", "image_url": {"url": "this is no image"}}
OLLAMA = Dialect(  # it passes over what it does not know, and cuts what is too long
    own={"no_such_member": True}, says="(?s).+", refuses={"messages": [{"role": "user", "content": [NO_IMAGE]}]}
)


@dataclass(frozen=True)
class At:
    """Where the walk asks: the running product, as its caller sees it, and the model behind it."""

    cloud: Cloud
    http: httpx.Client
    hook: Receiver
    model: str

    def ask(self, more: Mapping[str, object], status: int = 200) -> Any:
        """The answer to the question, changed by the members of `more`."""
        return expect_status(
            self.http.post("/v1/chat/completions", json={"model": self.model, **QUESTION, **more}), status
        )

    def queue(self, ref_id: str) -> str:
        """Queue the question; where its status is."""
        request = {"model": self.model, **QUESTION}
        ask = {"refId": ref_id, "tag": "real-model", "replyTo": self.hook.url, "request": request}
        queued = expect_status(self.http.post("/api/QueueOpenAiChatCompletion", json=ask), 200)
        print(f"   RefId {queued['refId']}, Id {queued['id']}")
        return queued["statusUrl"]


def main() -> int:
    return run_steps("real-model", _run)


def _run(started: float) -> None:
    engine = choose(os.environ)
    print(engine.sentence)
    key = secrets.token_hex(16)
    with ExitStack() as stack:
        cloud = stack.enter_context(Cloud(_upstream(engine, key)))
        http, hook = stack.enter_context(caller(cloud)), stack.enter_context(receiver())
        at = At(cloud, http, hook, engine.model)
        print(f"The product is up at {cloud.base_url} ({time.monotonic() - started:.1f} s).")
        if engine.is_ours:
            status_url = _while_it_is_away(at)
            began = time.monotonic()
            stack.enter_context(running(engine, key, os.environ, cloud.log_dir / "engine.log"))
            step(
                f"2. The engine is started, and ready after {time.monotonic() - began:.1f} s; the job goes on by itself"
            )
            _called_back(at, status_url, since=began)
        else:
            print("\n1. and 2., a cold start, are left out: this engine runs already, and is not ours to stop.")
        _asked_now(at)
        _unknown_member(at, LLAMA_CPP if engine.is_ours else OLLAMA)
        step("6. Ask later: POST /api/QueueOpenAiChatCompletion, with a ReplyTo")
        began = time.monotonic()
        _called_back(at, at.queue("real-model-warm"), since=began)
        _refused(at, LLAMA_CPP if engine.is_ours else OLLAMA)
        step("8. GET /v1/models")
        print(f"   {json.dumps(expect_status(http.get('/v1/models'), 200)['data'])}")


def _upstream(engine: Engine, key: str) -> Upstream:
    provider = {
        "name": "real-model",
        "base_url": engine.base_url,
        "queue": "gpu",
        "concurrency": 1,
        "models": {engine.model: ""},
        **({"api_key_var": KEY_VAR} if engine.is_ours else {}),
    }
    return Upstream(json.dumps({"providers": [provider]}), {KEY_VAR: key}, engine.sentence)


def _while_it_is_away(at: At) -> str:
    step("1. The engine is not up yet, its port refuses: queue a job, and ask now")
    status_url = at.queue("real-model-cold")
    until = time.monotonic() + ANSWER_S
    while "waitReason" not in (status := expect_status(at.http.get(status_url), 200)):
        if time.monotonic() > until:
            raise StepFailed(f"the job does not wait: {json.dumps(status)}")
        time.sleep(POLL_S)
    print(f"   jobState {status['jobState']}, attempts {status['attempts']}, waitReason {status['waitReason']}")
    if (status["jobState"], status["waitReason"]) != ("Queued", "provider_cold_start"):
        raise StepFailed("the job waits for something else")
    refused = at.http.post("/v1/chat/completions", json={"model": at.model, **QUESTION})
    told, retry_after = expect_status(refused, 503)["error"], refused.headers.get("retry-after", "none")
    print(f"   now: 503 {told['code']}: {told['message']}; retry-after: {retry_after}")
    return status_url


def _called_back(at: At, status_url: str, *, since: float) -> None:
    callback = signed_callback(at.hook, at.cloud.seeded.webhook_secret)
    took_s = time.monotonic() - since
    print(f"   after {took_s:.2f} s the callback: {callback.headers['x-job-state']}, signature valid")
    status = expect_status(at.http.get(status_url), 200)
    print(f"   jobState {status['jobState']}, attempts {status['attempts']}, usage {json.dumps(status['usage'])}")
    if status["result"] != json.loads(callback.body):
        raise StepFailed("status and callback tell different results")
    _told(status["result"])


def _asked_now(at: At) -> None:
    step(f"3. Ask now: POST /v1/chat/completions, model {at.model}")
    began = time.monotonic()
    answer = at.ask({})
    print(f"   after {time.monotonic() - began:.2f} s, usage {json.dumps(answer['usage'])}")
    _told(answer)
    if openai is None:
        step("4. The same with the OpenAI SDK is left out: it is not installed (`make test` does)")
        return
    step(f"4. The same with the OpenAI SDK {openai.__version__}")
    with openai.OpenAI(base_url=f"{at.cloud.base_url}/v1", api_key=at.cloud.seeded.api_key, timeout=ANSWER_S) as client:
        said = client.chat.completions.create(
            model=at.model, max_tokens=50, messages=[{"role": "user", "content": ASKED}]
        )
    print(f"   {said.model}, {said.usage.total_tokens if said.usage else 0} tokens")
    _told(said.to_dict())


def _unknown_member(at: At, dialect: Dialect) -> None:
    step(f"5. A member that only the engine knows goes through: {json.dumps(dialect.own)}")
    answer = at.ask({"messages": WET, **dialect.own})
    _told(answer)
    if not re.fullmatch(dialect.says, answer["choices"][0]["message"]["content"]):
        raise StepFailed("the engine did not obey it")
    beyond = set(answer) - {"id", "object", "created", "model", "choices", "usage", "system_fingerprint"}
    print(f"   and of its answer what OpenAI's has not comes back: {', '.join(sorted(beyond)) or 'nothing'}")


def _refused(at: At, dialect: Dialect) -> None:
    step("7. What the engine refuses is told in its own words")
    told = at.ask(dialect.refuses, 400)
    print(f"   400 {json.dumps(told)}")
    if told["responseStatus"]["errorCode"] != "ProviderRejected":
        raise StepFailed("this was refused by the product, not by the engine")


def _told(answer: Mapping[str, Any]) -> None:
    """What it said, and how fast where the engine tells (llama.cpp's `timings`)."""
    print(f"   “{answer['choices'][0]['message']['content']}”")
    if timings := answer.get("timings"):
        read, wrote = timings["prompt_ms"] / 1000, timings["predicted_per_second"]
        print(
            f"   the engine's own count: {timings['prompt_n']} tokens read in {read:.2f} s, then {wrote:.0f} a second"
        )


if __name__ == "__main__":
    sys.exit(main())

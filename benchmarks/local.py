"""Latencies in this machine's embedded cloud: writes the raw results and docs/benchmarks.md.

The upstream responds immediately. Caller, upstream, gateway and handlers share the cores: compare ratios only.
"""

import http.client
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx

from benchmarks import page
from local import ministack
from local.choose_upstream import build_scripted_upstream
from local.cloud import Cloud
from local.gateway import Gateway
from local.receiver import Receiver, receiver
from local.runtime_api import DeployedFunction
from local.sandbox_pool import SandboxPool
from local.scripted import ScriptedProvider
from local.template import Route

CALLS = 500
JOBS = 50
CHAT = {"model": "llama3:8b", "messages": [{"role": "user", "content": "How do LLMs work?"}], "max_tokens": 50}
TRIVIAL = "def handler(event, context):\n    return {'statusCode': 200, 'body': '{}'}\n"


def main() -> int:
    figures = {"the local door alone, trivial handler": _measure_gateway()}
    with ScriptedProvider() as upstream:
        started = time.monotonic()
        with Cloud(build_scripted_upstream(upstream)) as cloud, receiver() as hook:
            figures["boot of the embedded cloud, once"] = _summary([(time.monotonic() - started) * 1000])
            figures |= _measure_api(cloud, upstream, hook)
    page.save("local", {"command": "make bench", "unit": "ms", "figures": figures})
    return 0


def _measure_api(cloud: Cloud, upstream: ScriptedProvider, hook: Receiver) -> dict[str, Mapping[str, float]]:
    headers = {"authorization": f"Bearer {cloud.keys.api_key}"}
    with httpx.Client(base_url=cloud.base_url, headers=headers, timeout=60, trust_env=False) as caller:
        direct = f"{upstream.base_url}/chat/completions"
        queue = "/api/QueueOpenAiChatCompletion"

        def job() -> None:
            caller.post(queue, json={"replyTo": hook.url, "request": CHAT}).raise_for_status()
            hook.next(60)

        return {
            "the upstream asked directly": _time_calls(
                CALLS, lambda: caller.post(direct, json=CHAT).raise_for_status()
            ),
            "GET /health": _time_calls(CALLS, lambda: caller.get("/health").raise_for_status()),
            "GET /types/java": _time_calls(CALLS, lambda: caller.get("/types/java").raise_for_status()),
            "POST /v1/chat/completions": _time_calls(
                CALLS, lambda: caller.post("/v1/chat/completions", json=CHAT).raise_for_status()
            ),
            f"POST {queue}, accepted": _time_calls(
                CALLS, lambda: caller.post(queue, json={"request": CHAT}).raise_for_status()
            ),
            "queued job, from accept to callback received": _time_calls(JOBS, job),
        }


def _measure_gateway() -> Mapping[str, float]:
    """The local gateway with a trivial handler in the real runtime client, over a keep-alive connection."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "handler.py").write_text(TRIVIAL)
        function = DeployedFunction(
            "trivial", "arn:aws:lambda:us-east-1:0:function:t", folder, "handler.handler", 10, 128, {}
        )
        pool = SandboxPool(function, "http://127.0.0.1:1", folder, [])
        gateway = Gateway(0)
        try:
            pool.warm()
            gateway.open(
                [Route("GET", "/trivial", "T", 29, is_streamed=False)],
                {},
                lambda _, event, request_id, __: pool.invoke(event, request_id=request_id),
            )
            connection = http.client.HTTPConnection("127.0.0.1", gateway.port)  # a tenth of the overhead of httpx

            def call() -> None:
                connection.request("GET", "/trivial")
                connection.getresponse().read()

            return _time_calls(CALLS, call)
        finally:
            gateway.close()
            pool.close()


def _time_calls(count: int, call: Callable[[], object]) -> Mapping[str, float]:
    for _ in range(max(1, count // 10)):
        call()
    durations_ms: list[float] = []
    for _ in range(count):
        started = time.perf_counter()
        call()
        durations_ms.append((time.perf_counter() - started) * 1000)
    return _summary(durations_ms)


def _summary(durations_ms: list[float]) -> Mapping[str, float]:
    ordered = sorted(durations_ms)
    return {
        "times": len(ordered),
        "p50": round(statistics.median(ordered), 2),
        "p95": round(ordered[int(len(ordered) * 0.95)], 2),
        "max": round(ordered[-1], 2),
    }


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ministack.CloudFailed as error:
        sys.exit(f"bench: {error}")

"""How fast the product is on this machine's embedded cloud: writes the raw results and docs/benchmarks.md.

The upstream answers at once; caller, upstream, door and handlers share the machine's cores: read ratios, not records.
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
from local.choose_upstream import scripted_upstream
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
    figures = {"the local door alone, trivial handler": _door()}
    with ScriptedProvider() as upstream:
        started = time.monotonic()
        with Cloud(scripted_upstream(upstream)) as cloud, receiver() as hook:
            figures["boot of the embedded cloud, once"] = _summary([(time.monotonic() - started) * 1000])
            figures |= _product(cloud, upstream, hook)
    page.keep("local", {"command": "make bench", "unit": "ms", "figures": figures})
    return 0


def _product(cloud: Cloud, upstream: ScriptedProvider, hook: Receiver) -> dict[str, Mapping[str, float]]:
    headers = {"authorization": f"Bearer {cloud.seeded.api_key}"}
    with httpx.Client(base_url=cloud.base_url, headers=headers, timeout=60, trust_env=False) as caller:
        direct = f"{upstream.base_url}/chat/completions"
        queue = "/api/QueueOpenAiChatCompletion"

        def job() -> None:
            caller.post(queue, json={"replyTo": hook.url, "request": CHAT}).raise_for_status()
            hook.next(60)

        return {
            "the upstream asked directly": _timed(CALLS, lambda: caller.post(direct, json=CHAT).raise_for_status()),
            "GET /health": _timed(CALLS, lambda: caller.get("/health").raise_for_status()),
            "POST /v1/chat/completions": _timed(
                CALLS, lambda: caller.post("/v1/chat/completions", json=CHAT).raise_for_status()
            ),
            f"POST {queue}, accepted": _timed(
                CALLS, lambda: caller.post(queue, json={"request": CHAT}).raise_for_status()
            ),
            "queued job, from accept to callback received": _timed(JOBS, job),
        }


def _door() -> Mapping[str, float]:
    """A handler that does nothing, in the real runtime client, over a connection that is kept alive."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "handler.py").write_text(TRIVIAL)
        function = DeployedFunction(
            "trivial", "arn:aws:lambda:us-east-1:0:function:t", folder, "handler.handler", 10, 128, {}
        )
        pool = SandboxPool(function, "http://127.0.0.1:1", folder, [])
        door = Gateway(0)
        try:
            pool.warm()
            door.open(
                [Route("GET", "/trivial", "T", 29, streamed=False)],
                {},
                lambda _, event, request_id, __: pool.invoke(event, request_id=request_id),
            )
            connection = http.client.HTTPConnection("127.0.0.1", door.port)  # a tenth of what httpx itself costs

            def call() -> None:
                connection.request("GET", "/trivial")
                connection.getresponse().read()

            return _timed(CALLS, call)
        finally:
            door.close()
            pool.close()


def _timed(times: int, call: Callable[[], object]) -> Mapping[str, float]:
    for _ in range(max(1, times // 10)):
        call()
    took: list[float] = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        took.append((time.perf_counter() - started) * 1000)
    return _summary(took)


def _summary(took_ms: list[float]) -> Mapping[str, float]:
    ordered = sorted(took_ms)
    return {
        "times": len(ordered),
        "p50": round(statistics.median(ordered), 2),
        "p95": round(ordered[int(len(ordered) * 0.95)], 2),
        "max": round(ordered[-1], 2),
    }


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ministack.CloudFailed as failed:
        sys.exit(f"bench: {failed}")

"""Callback latency of other receivers while one receiver hangs: writes the raw results and docs/benchmarks.md.

Jobs arrive at a steady rate, some of them for one receiver that hangs. In one run it responds immediately; in the
next it accepts each POST and never responds. Compares the other receivers' latency from request to callback.
"""

import socket
import statistics
import sys
import threading
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import httpx

from benchmarks import page
from local import ministack
from local.choose_upstream import build_scripted_upstream
from local.cloud import Cloud
from local.receiver import Callback, receiver
from local.scripted import ScriptedProvider

RUNS = 5  # of each kind, alternating, each in a separate cloud: callbacks of the hanging receiver stay pending
SECONDS = 30
RATE = 5  # jobs a second
WARMUP_S = 10  # not measured: until all function processes have started
OTHER_RECEIVERS = 4  # each receives the same share of the jobs as the receiver that hangs
WARMUP_JOBS = 40  # sent concurrently before the measurement to start processes
CHAT = {"model": "llama3:8b", "messages": [{"role": "user", "content": "How do LLMs work?"}], "max_tokens": 50}
MAX_RATIO = 1.2  # of the p95 latencies, with and without the hanging receiver


def main() -> int:
    figures: dict[str, list[dict[str, float]]] = {"answers": [], "hangs": []}
    for _ in range(RUNS):
        for kind, runs in figures.items():
            runs.append(_run(hangs=kind == "hangs"))
            print(f"one receiver {kind}: callbacks of the other receivers {runs[-1]}")
    ratio = statistics.median(r["p95"] for r in figures["hangs"]) / statistics.median(
        r["p95"] for r in figures["answers"]
    )
    results = {
        "seconds": SECONDS,
        "rate": RATE,
        "others": OTHER_RECEIVERS,
        "figures": figures,
        "ratio": round(ratio, 2),
    }
    page.save("callbacks", {"command": "make bench", "unit": "ms", **results})
    return 0 if ratio <= MAX_RATIO else 1


def _run(*, hangs: bool) -> dict[str, float]:
    sent_at: dict[str, float] = {}
    latencies_ms: dict[str, float] = {}
    all_received = threading.Event()

    def on_callback(callback: Callback) -> int:
        ref_id = callback.headers["x-ref-id"]
        if ref_id in sent_at:
            latencies_ms[ref_id] = (time.perf_counter() - sent_at[ref_id]) * 1000
            if len(latencies_ms) == RATE * (SECONDS - WARMUP_S) * OTHER_RECEIVERS // (OTHER_RECEIVERS + 1):
                all_received.set()
        return 200

    with ScriptedProvider() as upstream, Cloud(build_scripted_upstream(upstream)) as cloud, ExitStack() as stack:
        hooks = [stack.enter_context(receiver(on_callback)).url for _ in range(OTHER_RECEIVERS)]
        hooks.append(stack.enter_context(_hanging_receiver()) if hangs else stack.enter_context(receiver()).url)
        headers = {"authorization": f"Bearer {cloud.keys.api_key}"}
        with httpx.Client(base_url=cloud.base_url, headers=headers, timeout=60, trust_env=False) as caller:

            def queue(ref_id: str, reply_to: str) -> None:
                job = {"refId": ref_id, "replyTo": reply_to, "request": CHAT}
                caller.post("/api/QueueOpenAiChatCompletion", json=job).raise_for_status()

            with ThreadPoolExecutor(8) as pool:
                for i in range(WARMUP_JOBS):
                    pool.submit(queue, f"warm-{i}", hooks[i % OTHER_RECEIVERS])
            started = time.perf_counter()
            for i in range(RATE * SECONDS):
                time.sleep(max(0.0, started + i / RATE - time.perf_counter()))
                reply_to = hooks[i % len(hooks)]
                if reply_to != hooks[-1] and i >= RATE * WARMUP_S:
                    sent_at[f"job-{i}"] = time.perf_counter()
                queue(f"job-{i}", reply_to)
            if not all_received.wait(60):
                raise SystemExit(
                    f"bench: {len(sent_at) - len(latencies_ms)} callbacks were not received within a minute"
                )
    ordered = sorted(latencies_ms.values())
    p95 = ordered[int(len(ordered) * 0.95)]
    return {
        "times": len(ordered),
        "p50": round(statistics.median(ordered)),
        "p95": round(p95),
        "max": round(ordered[-1]),
    }


@contextmanager
def _hanging_receiver() -> Generator[str]:
    """A receiver that accepts connections and never responds."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/hook"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ministack.CloudFailed as error:
        sys.exit(f"bench: {error}")

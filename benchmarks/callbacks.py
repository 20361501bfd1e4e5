"""Does a receiver that hangs hold up the others' callbacks? Writes the raw results and docs/benchmarks.md.

Jobs come at a steady rate, some of them for one receiver of their own. In one run it answers at once, in the next it
takes each POST and never answers; how long the others' callbacks take, from the request to their arrival, is compared.
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
from local.choose_upstream import scripted_upstream
from local.cloud import Cloud
from local.receiver import Callback, receiver
from local.scripted import ScriptedProvider

RUNS = 5  # of each kind, by turns, each in a cloud of its own: what is owed to the dead one does not go away
SECONDS = 30
RATE = 5  # jobs a second
UNCOUNTED_S = 10  # of these, until every process is there that will be
OTHERS = 4  # receivers; with the one that may be dead, each gets the same share
WARM = 40  # jobs at once beforehand, so that there are processes
CHAT = {"model": "llama3:8b", "messages": [{"role": "user", "content": "How do LLMs work?"}], "max_tokens": 50}
LIMIT = 1.2


def main() -> int:
    figures: dict[str, list[dict[str, float]]] = {"answers": [], "hangs": []}
    for _ in range(RUNS):
        for kind, runs in figures.items():
            runs.append(_run(hangs=kind == "hangs"))
            print(f"one receiver {kind}: the others' callbacks {runs[-1]}")
    ratio = statistics.median(r["p95"] for r in figures["hangs"]) / statistics.median(
        r["p95"] for r in figures["answers"]
    )
    told = {"seconds": SECONDS, "rate": RATE, "others": OTHERS, "figures": figures, "ratio": round(ratio, 2)}
    page.keep("callbacks", {"command": "make bench", "unit": "ms", **told})
    return 0 if ratio <= LIMIT else 1


def _run(*, hangs: bool) -> dict[str, float]:
    sent: dict[str, float] = {}
    took: dict[str, float] = {}
    all_there = threading.Event()

    def arrived(callback: Callback) -> int:
        ref_id = callback.headers["x-ref-id"]
        if ref_id in sent:
            took[ref_id] = (time.perf_counter() - sent[ref_id]) * 1000
            if len(took) == RATE * (SECONDS - UNCOUNTED_S) * OTHERS // (OTHERS + 1):
                all_there.set()
        return 200

    with ScriptedProvider() as upstream, Cloud(scripted_upstream(upstream)) as cloud, ExitStack() as stack:
        hooks = [stack.enter_context(receiver(arrived)).url for _ in range(OTHERS)]
        hooks.append(stack.enter_context(_silent()) if hangs else stack.enter_context(receiver()).url)
        headers = {"authorization": f"Bearer {cloud.seeded.api_key}"}
        with httpx.Client(base_url=cloud.base_url, headers=headers, timeout=60, trust_env=False) as caller:

            def queue(ref_id: str, reply_to: str) -> None:
                job = {"refId": ref_id, "replyTo": reply_to, "request": CHAT}
                caller.post("/api/QueueOpenAiChatCompletion", json=job).raise_for_status()

            with ThreadPoolExecutor(8) as pool:
                for i in range(WARM):
                    pool.submit(queue, f"warm-{i}", hooks[i % OTHERS])
            started = time.perf_counter()
            for i in range(RATE * SECONDS):
                time.sleep(max(0.0, started + i / RATE - time.perf_counter()))
                reply_to = hooks[i % len(hooks)]
                if reply_to != hooks[-1] and i >= RATE * UNCOUNTED_S:
                    sent[f"job-{i}"] = time.perf_counter()
                queue(f"job-{i}", reply_to)
            if not all_there.wait(60):
                raise SystemExit(f"bench: {len(sent) - len(took)} callbacks did not arrive within a minute")
    ordered = sorted(took.values())
    p95 = ordered[int(len(ordered) * 0.95)]
    return {
        "times": len(ordered),
        "p50": round(statistics.median(ordered)),
        "p95": round(p95),
        "max": round(ordered[-1]),
    }


@contextmanager
def _silent() -> Generator[str]:
    """A receiver whose connections are made, by its system, and never answered."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/hook"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ministack.CloudFailed as failed:
        sys.exit(f"bench: {failed}")

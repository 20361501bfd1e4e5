"""What passing on a stream costs: through the local door, beside the same upstream asked directly, and beside peers.

Writes the raw results and docs/benchmarks.md. A gateway and all that belongs to it runs on one core, upstream and
caller on the other. PEERS=1 installs other gateways and measures them in the same run. Fails where a limit is missed.
"""

import json
import multiprocessing
import os
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from benchmarks import page, peers, raw_endpoints
from benchmarks.raw_endpoints import Heard, Way
from local import ministack
from local.choose_upstream import Upstream
from local.cloud import Cloud

ROUNDS = 3  # of each way, by turns with the same upstream asked directly
SHORT, SHORT_TIMES = raw_endpoints.model(16), 100
LONG_CHUNKS = 1_000
LONG, LONG_TIMES = raw_endpoints.model(LONG_CHUNKS), 10
APART_MS = 20
APART, APART_TIMES = raw_endpoints.model(64, apart_ms=APART_MS), 1
BIG_CHUNKS, BIG_BYTES = 100_000, 1_000
BIG = raw_endpoints.model(BIG_CHUNKS, size=BIG_BYTES)
WARM = 20
STREAMS, EVERY = 1_000, 100
SAMPLE_S = 0.02
FIRST_MS, CHUNK_MS = 2.0, 0.05  # what may be added to the first event, and to each
GROWTH_KB = 2_048  # over the streams after the first reading
BIG_KB = 16_384  # over 100 MB: 16 pieces that wait, and what is on its way
WAIT_S = 300
DIRECT, OURS = "directly", "the local door"

Figures = dict[str, float]


def main() -> int:
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    gateway, load = (cores[0], cores[-1]) if len(cores) > 1 else (None, None)
    raw_endpoints.on_core(gateway)  # and with it all that is started from here, but for the ends
    spawn = multiprocessing.get_context("spawn")
    with (
        raw_endpoints.upstream(load) as upstream,
        ProcessPoolExecutor(1, spawn, raw_endpoints.on_core, (load,)) as caller,
    ):
        with Cloud(_only(upstream)) as cloud:
            ours = Way(cloud.port, upstream.path, f"authorization: Bearer {cloud.seeded.api_key}\r\n")
            figures = {OURS: _measured(caller, upstream, ours)}
            print(figures, flush=True)
            memory = _memory(cloud, caller, ours)
        left_out: dict[str, str] = {}
        for peer in peers.PEERS if os.environ.get("PEERS") else ():
            try:
                with peers.running(peer, upstream) as way:
                    figures[peer.name] = _measured(caller, upstream, way)
                print(peer.name, figures[peer.name], flush=True)
            except (peers.LeftOut, raw_endpoints.NoStream, OSError) as why:
                left_out[peer.name] = str(why)
                print(f"{peer.name} is left out: {why}", flush=True)
    limits = {"first_ms": FIRST_MS, "chunk_ms": CHUNK_MS, "growth_kb": GROWTH_KB, "big_kb": BIG_KB}
    told = {"is_pinned": load is not None, "figures": figures, "left_out": left_out, "memory": memory}
    command = f"{'PEERS=1 ' if os.environ.get('PEERS') else ''}python -m benchmarks.streams"
    page.keep("streams", {"command": command, "unit": "ms", "limits": limits, **told})
    missed = _missed(figures[OURS], memory)
    print(*missed, sep="\n")
    return 1 if missed else 0


def _only(upstream: Way) -> Upstream:
    """A providers.yaml with this upstream alone."""
    models = dict.fromkeys((SHORT, LONG, APART, BIG), "")
    provider = {"name": "raw", "base_url": f"http://127.0.0.1:{upstream.port}/v1", "models": models}
    return Upstream(json.dumps({"providers": [provider]}), {}, "")


def _measured(caller: ProcessPoolExecutor, upstream: Way, way: Way) -> dict[str, Figures]:
    """Figures of this way, and of the upstream asked directly in the same minute."""
    heard: dict[Way, dict[str, list[Heard]]] = {way: {}, upstream: {}}
    caller.submit(raw_endpoints.ask, way, SHORT, WARM).result(WAIT_S)
    for _ in range(ROUNDS):
        for name, times in ((SHORT, SHORT_TIMES), (LONG, LONG_TIMES), (APART, APART_TIMES)):
            for asked, streams in heard.items():
                streams.setdefault(name, []).extend(caller.submit(raw_endpoints.ask, asked, name, times).result(WAIT_S))
    return {"through": _figures(heard[way]), DIRECT: _figures(heard[upstream])}


def _figures(heard: dict[str, list[Heard]]) -> Figures:
    first = sorted(stream.first for stream in heard[SHORT])
    late = sorted(ms for stream in heard[APART] for ms in stream.late)
    return {
        "first_p50": round(statistics.median(first), 3),
        "first_p95": round(first[int(len(first) * 0.95)], 3),
        "chunk": round(statistics.median(stream.whole for stream in heard[LONG]) / LONG_CHUNKS, 4),
        "late_p50": round(statistics.median(late), 3),
        "late_p95": round(late[int(len(late) * 0.95)], 3),
        "spread": round(statistics.median(stream.spread for stream in heard[APART]), 1),
        "sent_spread": round(statistics.median(stream.sent_spread for stream in heard[APART]), 1),
    }


def _memory(cloud: Cloud, caller: ProcessPoolExecutor, way: Way) -> dict[str, Any]:
    """What the process of the chat function holds, in KB: over one large stream, and over many."""

    def held() -> int:
        (kb,) = cloud.memory_kb("chat")  # one process, or this would tell nothing
        return kb

    before = peak = held()
    big = caller.submit(_size, way, BIG)
    while not big.done():
        peak = max(peak, held())
        time.sleep(SAMPLE_S)
    told = {"bytes": big.result(), "before": before, "peak": peak, "after": held()}
    print(told, flush=True)
    readings: list[dict[str, int]] = []
    for streams in range(EVERY, STREAMS + 1, EVERY):
        caller.submit(raw_endpoints.ask, way, SHORT, EVERY).result(WAIT_S)
        readings.append({"streams": streams, "kb": held()})
        print(readings[-1], flush=True)
    return {"big": told, "readings": readings, "grew_kb": readings[-1]["kb"] - readings[0]["kb"]}


def _size(way: Way, name: str) -> int:
    (heard,) = raw_endpoints.ask(way, name, 1)
    return heard.size


def _missed(figures: dict[str, Figures], memory: dict[str, Any]) -> list[str]:
    """What is beyond its limit, in words."""
    through, direct = figures["through"], figures[DIRECT]
    big = memory["big"]
    checked = {
        "ms to the first event": (through["first_p50"] - direct["first_p50"], FIRST_MS),
        "ms for each event": (through["chunk"] - direct["chunk"], CHUNK_MS),
        "KB over many streams": (memory["grew_kb"], GROWTH_KB),
        "KB during a large one": (big["peak"] - big["before"], BIG_KB),
    }
    return [f"added {is_now:.3f} {what}: over {limit}" for what, (is_now, limit) in checked.items() if is_now > limit]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ministack.CloudFailed as failed:
        sys.exit(f"bench: {failed}")

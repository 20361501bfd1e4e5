"""Overhead of a proxied stream: through the local gateway and through peers, compared with direct calls.

Writes the raw results and docs/benchmarks.md. Each gateway and its processes run on one core, upstream and caller on
the other. PEERS=1 installs other gateways and measures them in the same run. Fails when a limit is exceeded.
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
from benchmarks.raw_endpoints import Endpoint, StreamTiming
from local import ministack
from local.choose_upstream import Upstream
from local.cloud import Cloud

ROUNDS = 3  # per gateway, alternating with direct calls to the same upstream
SHORT, SHORT_COUNT = raw_endpoints.model_name(16), 100
LONG_CHUNKS = 1_000
LONG, LONG_COUNT = raw_endpoints.model_name(LONG_CHUNKS), 10
INTERVAL_MS = 20
PACED, PACED_COUNT = raw_endpoints.model_name(64, interval_ms=INTERVAL_MS), 1
BIG_CHUNKS, BIG_BYTES = 100_000, 1_000
BIG = raw_endpoints.model_name(BIG_CHUNKS, size=BIG_BYTES)
WARMUP_STREAMS = 20
STREAMS, EVERY = 1_000, 100
SAMPLE_S = 0.02
FIRST_MS, CHUNK_MS = 2.0, 0.05  # limits of the overhead for the first event and for each event
GROWTH_KB = 2_048  # limit of the memory growth after the first reading
BIG_KB = 16_384  # limit during a stream of 100 MB: 16 buffered chunks and the data in transit
WAIT_S = 300
DIRECT, GATEWAY = "directly", "the local door"  # keys in results/streams.json

Figures = dict[str, float]


def main() -> int:
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    gateway_core, load_core = (cores[0], cores[-1]) if len(cores) > 1 else (None, None)
    raw_endpoints.pin_to_core(gateway_core)  # also all processes started from here, except upstream and caller
    spawn = multiprocessing.get_context("spawn")
    with (
        raw_endpoints.run_upstream(load_core) as upstream,
        ProcessPoolExecutor(1, spawn, raw_endpoints.pin_to_core, (load_core,)) as caller,
    ):
        with Cloud(_providers(upstream)) as cloud:
            gateway = Endpoint(cloud.port, upstream.path, f"authorization: Bearer {cloud.keys.api_key}\r\n")
            figures = {GATEWAY: _measure(caller, upstream, gateway)}
            print(figures, flush=True)
            memory = _measure_memory(cloud, caller, gateway)
        skipped_peers: dict[str, str] = {}
        for peer in peers.PEERS if os.environ.get("PEERS") else ():
            try:
                with peers.run_peer(peer, upstream) as endpoint:
                    figures[peer.name] = _measure(caller, upstream, endpoint)
                print(peer.name, figures[peer.name], flush=True)
            except (peers.PeerSkipped, raw_endpoints.InvalidStream, OSError) as reason:
                skipped_peers[peer.name] = str(reason)
                print(f"{peer.name} was skipped: {reason}", flush=True)
    limits = {"first_ms": FIRST_MS, "chunk_ms": CHUNK_MS, "growth_kb": GROWTH_KB, "big_kb": BIG_KB}
    results = {"is_pinned": load_core is not None, "figures": figures, "left_out": skipped_peers, "memory": memory}
    command = f"{'PEERS=1 ' if os.environ.get('PEERS') else ''}python -m benchmarks.streams"
    page.save("streams", {"command": command, "unit": "ms", "limits": limits, **results})
    violations = _limit_violations(figures[GATEWAY], memory)
    print(*violations, sep="\n")
    return 1 if violations else 0


def _providers(upstream: Endpoint) -> Upstream:
    """A providers.yaml with this upstream only."""
    models = dict.fromkeys((SHORT, LONG, PACED, BIG), "")
    provider = {"name": "raw", "base_url": f"http://127.0.0.1:{upstream.port}/v1", "models": models}
    return Upstream(json.dumps({"providers": [provider]}), {}, "")


def _measure(caller: ProcessPoolExecutor, upstream: Endpoint, gateway: Endpoint) -> dict[str, Figures]:
    """Figures of the gateway, and of direct calls to the upstream at the same time."""
    timings: dict[Endpoint, dict[str, list[StreamTiming]]] = {gateway: {}, upstream: {}}
    caller.submit(raw_endpoints.request_streams, gateway, SHORT, WARMUP_STREAMS).result(WAIT_S)
    for _ in range(ROUNDS):
        for model, count in ((SHORT, SHORT_COUNT), (LONG, LONG_COUNT), (PACED, PACED_COUNT)):
            for endpoint, streams in timings.items():
                future = caller.submit(raw_endpoints.request_streams, endpoint, model, count)
                streams.setdefault(model, []).extend(future.result(WAIT_S))
    return {"through": _figures(timings[gateway]), DIRECT: _figures(timings[upstream])}


def _figures(timings: dict[str, list[StreamTiming]]) -> Figures:
    first = sorted(stream.first for stream in timings[SHORT])
    delays = sorted(delay for stream in timings[PACED] for delay in stream.delays)
    return {
        "first_p50": round(statistics.median(first), 3),
        "first_p95": round(first[int(len(first) * 0.95)], 3),
        "chunk": round(statistics.median(stream.total for stream in timings[LONG]) / LONG_CHUNKS, 4),
        "late_p50": round(statistics.median(delays), 3),
        "late_p95": round(delays[int(len(delays) * 0.95)], 3),
        "spread": round(statistics.median(stream.spread for stream in timings[PACED]), 1),
        "sent_spread": round(statistics.median(stream.sent_spread for stream in timings[PACED]), 1),
    }


def _measure_memory(cloud: Cloud, caller: ProcessPoolExecutor, gateway: Endpoint) -> dict[str, Any]:
    """Memory of the chat function's process in KB: during one large stream, and over many streams."""

    def memory_kb() -> int:
        (kb,) = cloud.memory_kb("chat")  # requires exactly one process
        return kb

    before = peak = memory_kb()
    big = caller.submit(_stream_size, gateway, BIG)
    while not big.done():
        peak = max(peak, memory_kb())
        time.sleep(SAMPLE_S)
    large_stream = {"bytes": big.result(), "before": before, "peak": peak, "after": memory_kb()}
    print(large_stream, flush=True)
    readings: list[dict[str, int]] = []
    for streams in range(EVERY, STREAMS + 1, EVERY):
        caller.submit(raw_endpoints.request_streams, gateway, SHORT, EVERY).result(WAIT_S)
        readings.append({"streams": streams, "kb": memory_kb()})
        print(readings[-1], flush=True)
    return {"big": large_stream, "readings": readings, "grew_kb": readings[-1]["kb"] - readings[0]["kb"]}


def _stream_size(endpoint: Endpoint, model: str) -> int:
    (timing,) = raw_endpoints.request_streams(endpoint, model, 1)
    return timing.size


def _limit_violations(figures: dict[str, Figures], memory: dict[str, Any]) -> list[str]:
    """A line for each exceeded limit."""
    through, direct = figures["through"], figures[DIRECT]
    big = memory["big"]
    overheads = {
        "ms to the first event": (through["first_p50"] - direct["first_p50"], FIRST_MS),
        "ms for each event": (through["chunk"] - direct["chunk"], CHUNK_MS),
        "KB over many streams": (memory["grew_kb"], GROWTH_KB),
        "KB during a large one": (big["peak"] - big["before"], BIG_KB),
    }
    return [
        f"overhead {overhead:.3f} {unit}: limit {limit}"
        for unit, (overhead, limit) in overheads.items()
        if overhead > limit
    ]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ministack.CloudFailed as error:
        sys.exit(f"bench: {error}")

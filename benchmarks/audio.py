"""Cost of forms, time to the first byte of speech, and memory of a large form: writes results/audio.json and the page.

The upstream responds at once, so that times through the gateway and direct ones differ by the gateway's share.
"""

import base64
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping

import httpx

from aiserver.limits import MAX_FORM_BYTES
from aiserver.request_body import read_body
from aiserver.wire import audio_requests, forms
from aiserver.wire.forms import Part
from benchmarks import page
from local import ministack
from local.choose_upstream import build_scripted_upstream
from local.cloud import Cloud
from local.scripted import ScriptedProvider

RUNS = 15
REQUESTS = 60  # of each kind, through the gateway and directly, in turn
FORM_BYTES = (1_000_000, MAX_FORM_BYTES - 1_000)
SPEECH = ("/v1/audio/speech", {"model": "tts-1", "input": "Hello, how are you?"})
CHAT = (
    "/v1/chat/completions",
    {"model": "llama3:8b", "stream": True, "messages": [{"role": "user", "content": "Hi"}]},
)
LIMITS = {"form_ms_per_mb": 15, "first_byte_ratio": 1.5, "media_mb": 150}


def form_cost(size: int) -> dict[str, float]:
    """CPU time of each step of a form with a file of `size` bytes, in ms: the lowest of RUNS."""
    file = Part("file", os.urandom(size), "a.wav", "audio/wav")
    body, content_type = forms.encode_form([Part("model", b"whisper-1"), file])
    event = json.dumps({"body": base64.b64encode(body).decode(), "isBase64Encoded": True}).encode()
    lowest: dict[str, float] = {}
    for _ in range(RUNS):
        started = time.process_time()
        for name, run in _steps(event, content_type):
            run()
            ended = time.process_time()
            lowest[name] = min(lowest.get(name, 1e9), (ended - started) * 1000)
            started = ended
    return {name: round(ms, 2) for name, ms in lowest.items()}


def _steps(event: bytes, content_type: str) -> list[tuple[str, Callable[[], object]]]:
    """The steps that a form takes in the functions, each with the input of the step before it."""
    decoded_event = json.loads(event)
    body = read_body(decoded_event, {"content-type": content_type})
    request = audio_requests.bind_transcription(body, content_type)
    parts = forms.parse_form(request.body, request.content_type)
    return [
        ("event", lambda: json.loads(event)),
        ("base64", lambda: read_body(decoded_event, {"content-type": content_type})),
        ("bind", lambda: audio_requests.bind_transcription(body, content_type)),
        ("parse", lambda: forms.parse_form(request.body, request.content_type)),
        ("encode", lambda: forms.encode_form(forms.with_value(parts, "model", "x"))),
    ]


def first_bytes(gateway: httpx.Client, upstream: httpx.Client) -> dict[str, dict[str, float]]:
    """Median time to the first byte in ms, through the gateway and directly, of speech and of a streamed chat."""
    times: dict[str, dict[str, list[float]]] = {}
    for _ in range(REQUESTS):
        for kind, (path, body) in (("speech", SPEECH), ("chat", CHAT)):
            for name, client in (("through", gateway), ("direct", upstream)):
                times.setdefault(kind, {}).setdefault(name, []).append(_first_byte_ms(client, path, body))
    medians = {
        kind: {name: statistics.median(values[5:]) for name, values in rows.items()} for kind, rows in times.items()
    }
    return {
        kind: {**{name: round(ms, 2) for name, ms in row.items()}, "added": round(row["through"] - row["direct"], 2)}
        for kind, row in medians.items()
    }


def _first_byte_ms(client: httpx.Client, path: str, body: Mapping[str, object]) -> float:
    started = time.perf_counter()
    duration_ms = 0.0
    with client.stream("POST", path, json=body) as response:
        response.raise_for_status()
        for _ in response.iter_raw():
            duration_ms = duration_ms or (time.perf_counter() - started) * 1000
    return duration_ms


def media_memory(cloud: Cloud, gateway: httpx.Client) -> dict[str, int]:
    """Memory of the media function in MB, before and after transcribing a form of the largest size."""
    cloud.invoke("media", b'{"httpMethod": "OPTIONS", "resource": "/v1/audio/speech", "requestContext": {}}')
    before = cloud.max_memory_used_mb("media")
    form = {"model": "whisper-1", "response_format": "text"}
    file = ("a.wav", bytes(FORM_BYTES[1]), "audio/wav")
    gateway.post("/v1/audio/transcriptions", data=form, files={"file": file})
    return {"before_mb": before, "peak_mb": cloud.max_memory_used_mb("media")}


def main() -> int:
    costs = {str(size): form_cost(size) for size in FORM_BYTES}
    with ScriptedProvider() as upstream, Cloud(build_scripted_upstream(upstream)) as cloud:
        headers = {"authorization": f"Bearer {cloud.keys.api_key}"}
        with (
            httpx.Client(base_url=cloud.base_url, headers=headers, timeout=60, trust_env=False) as gateway,
            httpx.Client(base_url=upstream.base_url.removesuffix("/v1"), timeout=60, trust_env=False) as direct,
        ):
            timings = first_bytes(gateway, direct)
            memory = media_memory(cloud, gateway)
    figures = {
        "form_ms_per_mb": max(sum(row.values()) / (int(size) / 1e6) for size, row in costs.items()),
        "first_byte_ratio": timings["speech"]["added"] / timings["chat"]["added"],
        "media_mb": memory["peak_mb"],
    }
    rounded = {name: round(figure, 2) for name, figure in figures.items()}
    page.save("audio", {"forms": costs, "first_bytes": timings, "memory": memory, "figures": rounded, "limits": LIMITS})
    violations = [f"{name} {figure}: limit {LIMITS[name]}" for name, figure in rounded.items() if figure > LIMITS[name]]
    print(*violations, sep="\n")
    return 1 if violations else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ministack.CloudFailed as error:
        sys.exit(f"bench: {error}")

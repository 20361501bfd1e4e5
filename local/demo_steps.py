"""Steps of a demo, printed and checked one by one: shared by `make demo` and `make real-model`."""

import contextlib
import json
import queue
import sys
import time
from collections.abc import Callable
from typing import Any

import httpx

from local.cloud import Cloud
from local.ministack import CloudFailed
from local.receiver import Callback, Receiver
from local.signals import Interrupted, install_handlers

RESPONSE_TIMEOUT_S = 60  # a real model may need that long; the scripted provider responds at once


class StepFailed(Exception):
    """A step failed or returned an unexpected response."""


def run_steps(name: str, run: Callable[[float], None]) -> int:
    """Call `run` with the start time (monotonic seconds) and print the outcome. Returns the exit status."""
    install_handlers()
    started_at = time.monotonic()
    try:
        run(started_at)
    except Interrupted as interrupted:
        with contextlib.suppress(OSError):  # the terminal may be closed
            print(f"{name} failed: interrupted by {interrupted}", file=sys.stderr)
        return interrupted.exit_status
    except (CloudFailed, StepFailed, httpx.HTTPError) as failure:
        print(f"{name} failed: {failure}", file=sys.stderr)
        return 1
    print(f"\nAll steps passed in {time.monotonic() - started_at:.1f} s. No process is left running.")
    return 0


def create_client(cloud: Cloud) -> httpx.Client:
    """A client that calls the gateway with the first of its two API keys."""
    headers = {"authorization": f"Bearer {cloud.keys.api_key}"}
    return httpx.Client(base_url=cloud.base_url, headers=headers, timeout=RESPONSE_TIMEOUT_S, trust_env=False)


def step(title: str) -> None:
    print(f"\n{title}", flush=True)


def expect_status(response: httpx.Response, status: int) -> Any:
    """The JSON of a response. Raises: StepFailed, when its status is not `status`."""
    if response.status_code != status:
        raise StepFailed(f"{response.request.url.path} returned {response.status_code}: {response.text[:500]}")
    return response.json()


def print_stream(http: httpx.Client, request: dict[str, Any]) -> None:
    """Print a streamed chat as it arrives. Raises: StepFailed, when the response is not a complete stream."""
    started_at = time.monotonic()
    arrivals_s: list[float] = []
    lines: list[str] = []
    with http.stream("POST", "/v1/chat/completions", json={**request, "stream": True}) as response:
        if response.status_code != 200:
            response.read()
            raise StepFailed(f"the streamed chat returned {response.status_code}: {response.text[:500]}")
        print("   ", end="")
        for line in response.iter_lines():
            lines.append(line)
            if line.startswith("data: {"):
                event: dict[str, Any] = json.loads(line.removeprefix("data: "))
                if word := str(event["choices"][0]["delta"].get("content") or "") if event["choices"] else "":
                    arrivals_s.append(time.monotonic() - started_at)
                    print(word, end="", flush=True)
    print()
    if "data: [DONE]" not in lines or not arrivals_s:
        raise StepFailed(f"the stream ended without content or [DONE]: {lines[-3:]}")
    print(f"   {len(arrivals_s)} chunks, first after {arrivals_s[0]:.2f} s, last after {arrivals_s[-1]:.2f} s")


def receive_callback(hook: Receiver, secret: str) -> Callback:
    """The next callback. Raises: StepFailed, when none arrives or its signature is invalid."""
    try:
        callback = hook.next(RESPONSE_TIMEOUT_S)
    except queue.Empty:
        raise StepFailed(f"no callback arrived within {RESPONSE_TIMEOUT_S} s") from None
    if not callback.is_signed_by(secret):
        raise StepFailed("the callback's signature is invalid")
    return callback

"""A walk through the product, printed and judged step by step: what `make demo` and `make real-model` share."""

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

ANSWER_S = 60  # a real model may think that long; the scripted one answers at once


class StepFailed(Exception):
    """A step did not do what it should."""


def run_steps(name: str, run: Callable[[float], None]) -> int:
    """Run a walk, which is told when it began, and say how it went; the exit status."""
    install_handlers()
    started = time.monotonic()
    try:
        run(started)
    except Interrupted as interrupted:
        with contextlib.suppress(OSError):  # the terminal may be closed
            print(f"{name} failed: interrupted by {interrupted}", file=sys.stderr)
        return interrupted.exit_status
    except (CloudFailed, StepFailed, httpx.HTTPError) as failure:
        print(f"{name} failed: {failure}", file=sys.stderr)
        return 1
    print(f"\nAll of it worked, in {time.monotonic() - started:.1f} s. Nothing is left running.")
    return 0


def caller(cloud: Cloud) -> httpx.Client:
    """Calls the product with the first of its two keys."""
    headers = {"authorization": f"Bearer {cloud.seeded.api_key}"}
    return httpx.Client(base_url=cloud.base_url, headers=headers, timeout=ANSWER_S, trust_env=False)


def step(title: str) -> None:
    print(f"\n{title}", flush=True)


def expect_status(response: httpx.Response, status: int) -> Any:
    """The answer's JSON. Raises: StepFailed, where its status is another."""
    if response.status_code != status:
        raise StepFailed(f"{response.request.url.path} answered {response.status_code}: {response.text[:500]}")
    return response.json()


def print_stream(http: httpx.Client, asked: dict[str, Any]) -> None:
    """Print a streamed chat as it arrives. Raises: StepFailed, where it is no stream, or has come all at once."""
    began = time.monotonic()
    came: list[float] = []
    lines: list[str] = []
    with http.stream("POST", "/v1/chat/completions", json={**asked, "stream": True}) as response:
        if response.status_code != 200:
            response.read()
            raise StepFailed(f"a streamed chat answered {response.status_code}: {response.text[:500]}")
        print("   ", end="")
        for line in response.iter_lines():
            lines.append(line)
            if line.startswith("data: {"):
                told: dict[str, Any] = json.loads(line.removeprefix("data: "))
                if word := str(told["choices"][0]["delta"].get("content") or "") if told["choices"] else "":
                    came.append(time.monotonic() - began)
                    print(word, end="", flush=True)
    print()
    if "data: [DONE]" not in lines or not came:
        raise StepFailed(f"the stream did not end as it should: {lines[-3:]}")
    print(f"   {len(came)} pieces, the first after {came[0]:.2f} s, the last after {came[-1]:.2f} s")


def signed_callback(hook: Receiver, secret: str) -> Callback:
    """The next callback. Raises: StepFailed, where none comes or its signature does not fit."""
    try:
        callback = hook.next(ANSWER_S)
    except queue.Empty:
        raise StepFailed("no callback arrived") from None
    if not callback.is_signed_by(secret):
        raise StepFailed("the callback's signature does not fit")
    return callback

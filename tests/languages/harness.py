"""Runs one program in each language against the gateway, with the types that the gateway serves.

Each program prints what it received as JSON. What it sent is what the providers received: the gateway's provider, and
a server of OpenAI's protocol that the program calls with the same objects.
"""

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from local.scripted import RecordedRequest, ScriptedProvider
from tests.flow.conftest import Product

PROGRAMS = Path(__file__).parent / "programs"
REF_ID = "ünï/cödé 1"
ARGUMENTS = {"city": "a"}
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["a", "b"]}, "options": {"properties": {}}},
}
PARTS = [
    {"type": "text", "text": "Describe"},
    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
]
VENDOR_CHAT = {
    "model": "llama3:8b",
    "messages": [{"role": "user", "content": "What's the capital of France?"}],
    "max_tokens": 50,
}
TOOL_CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "weather", "arguments": json.dumps(ARGUMENTS)},
}
TOOL_RESPONSE = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "llama3:8b",
    "choices": [
        {
            "index": 0,
            "finish_reason": "tool_calls",
            "message": {"role": "assistant", "content": None, "tool_calls": [TOOL_CALL]},
        }
    ],
}
CHATS_BEFORE_THE_TOOL = 3  # at the gateway's provider: by its path, by its name, and the job


@dataclass(frozen=True)
class Outcome:
    """What a program printed, and the requests that reached the gateway's provider and the other server."""

    printed: dict[str, Any]
    gateway_requests: Sequence[RecordedRequest]
    other_requests: Sequence[RecordedRequest]


def save_types(product: Product, language: str, path: Path, query: str = "") -> None:
    """Save the file of a language, as its tools fetch it: without a key."""
    response = httpx.get(f"{product.url}/types/{language}{query}", trust_env=False)
    assert response.status_code == 200, response.text
    path.write_text(response.text, encoding="utf-8")


def run_program(product: Product, command: Sequence[str], folder: Path, *, timeout_s: float = 60) -> Outcome:
    """Run a program in its folder, and check what it printed and sent."""
    chat = b'{"id":"c","object":"chat.completion","created":1,"model":"llama3:8b","choices":[{"index":0,"message":'
    chat += b'{"role":"assistant","content":"Paris"},"finish_reason":"stop"}],"usage":{"total_tokens":3}}'
    for _ in range(CHATS_BEFORE_THE_TOOL):
        product.upstream.respond_with(200, chat)
    product.upstream.respond_with(200, json.dumps(TOOL_RESPONSE).encode())
    with ScriptedProvider() as other:
        other.respond_with(200, chat)
        environment = os.environ | {
            "URL": product.url,
            "KEY": product.key,
            "ELSEWHERE": other.base_url.removesuffix("/v1"),
            "REF_ID": f"{REF_ID} {folder.name}",
        }
        completed = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False
        )
        assert completed.returncode == 0, completed.stderr + completed.stdout
        printed = json.loads(completed.stdout.strip().splitlines()[-1])
        return Outcome(printed, list(product.upstream.requests), list(other.requests))


def check_outcome(outcome: Outcome, product: Product, folder: Path) -> None:
    """What every language must have received and sent."""
    printed = outcome.printed
    assert printed["chat"] == printed["api"] == printed["elsewhere"] == printed["result"] == "Paris"
    assert printed["refId"] == f"{REF_ID} {folder.name}"
    assert printed["state"] == "Completed"
    assert printed["error"] == ["ValidationException", "'messages' must not be empty"]
    assert printed["arguments"] == ARGUMENTS
    file = httpx.get(printed["image"], follow_redirects=True, trust_env=False)
    assert file.content.startswith(b"\x89PNG")
    bodies = [json.loads(request.body) for request in outcome.gateway_requests]
    (other_request,) = outcome.other_requests
    assert bodies[:CHATS_BEFORE_THE_TOOL] == [VENDOR_CHAT] * CHATS_BEFORE_THE_TOOL
    assert json.loads(other_request.body) == VENDOR_CHAT
    assert other_request.path == "/v1/chat/completions"
    tool = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}
    expected = {"model": "llama3:8b", "messages": [{"role": "user", "content": PARTS}], "tools": [tool]}
    assert bodies[CHATS_BEFORE_THE_TOOL] == expected
    assert bodies[-1] == {"model": "gpt-image-2", "prompt": "A llama", "size": "512x512"}

"""What the scripted provider says when a test scripted nothing: answers that say what they are."""

import base64
import json
import struct
from collections.abc import Callable
from typing import Any, cast

EMBEDDING_SIZE = 4
CHARS_PER_TOKEN = 4  # a rule of thumb; nobody is billed for these


def answer(path: str, body: bytes, number: int) -> tuple[int, bytes | list[bytes]]:
    """What it says when nothing was scripted: an answer that says what it is, or an error in OpenAI's shape.

    One that is to be streamed is a list of events.
    """
    if path not in ANSWERS:
        return 404, _error(f"Unknown path {path}", "not_found")
    what, made = ANSWERS[path]
    try:
        asked = json.loads(body)
        told = made(asked, number)
        return 200, STREAMS[path](asked, told) if asked.get("stream") else json.dumps(told).encode()
    except (ValueError, KeyError, TypeError):
        return 400, _error(f"The request is not {what}", "invalid_request")


def _completion(asked: dict[str, Any], number: int) -> dict[str, Any]:
    messages = asked["messages"]
    chars = sum(len(str(message["content"])) for message in messages)
    content = (
        f"This is a scripted answer: no model is behind it. You sent {chars} characters in {len(messages)} message(s)."
    )
    used = {"prompt_tokens": chars // CHARS_PER_TOKEN, "completion_tokens": len(content) // CHARS_PER_TOKEN}
    return {
        "id": f"chatcmpl-scripted-{number}",
        "object": "chat.completion",
        "created": 0,
        "model": asked["model"],
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"},
        ],
        "usage": {**used, "total_tokens": sum(used.values())},
    }


def _embeddings(asked: dict[str, Any], _: int) -> dict[str, Any]:
    """Vectors that say but how long each text is; as base64 where that is asked for, as the SDKs do."""
    given = asked["input"]
    texts = cast(list[Any], given) if isinstance(given, list) else [given]
    vectors = [[float(len(str(text)))] * EMBEDDING_SIZE for text in texts]
    told = [_as_base64(vector) if asked.get("encoding_format") == "base64" else vector for vector in vectors]
    used = sum(len(str(text)) for text in texts) // CHARS_PER_TOKEN
    return {
        "object": "list",
        "data": [{"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(told)],
        "model": asked["model"],
        "usage": {"prompt_tokens": used, "total_tokens": used},
    }


def _as_base64(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _response(asked: dict[str, Any], number: int) -> dict[str, Any]:
    chars = len(str(asked["input"]))
    text = f"This is a scripted answer: no model is behind it. You sent {chars} characters."
    used = {"input_tokens": chars // CHARS_PER_TOKEN, "output_tokens": len(text) // CHARS_PER_TOKEN}
    said: dict[str, Any] = {"type": "output_text", "text": text, "annotations": []}
    return {
        "id": f"resp_scripted_{number}",
        "object": "response",
        "created_at": 0,
        "status": "completed",
        "error": None,
        "model": asked["model"],
        "output": [
            {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [said]},
        ],
        "usage": {**used, "total_tokens": sum(used.values())},
    }


ANSWERS: dict[str, tuple[str, Callable[[dict[str, Any], int], dict[str, Any]]]] = {
    "/v1/chat/completions": ("a chat completion", _completion),
    "/v1/embeddings": ("a request for embeddings", _embeddings),
    "/v1/responses": ("a request for a response", _response),
}


def _chunks(asked: dict[str, Any], told: dict[str, Any]) -> list[bytes]:
    """A chat word by word, as OpenAI streams it."""
    common = {name: told[name] for name in ("id", "created", "model")} | {"object": "chat.completion.chunk"}
    words = told["choices"][0]["message"]["content"].split(" ")
    deltas: list[dict[str, str]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": word if at == 0 else f" {word}"} for at, word in enumerate(words)]
    choices: list[dict[str, Any]] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": "stop"})
    events: list[dict[str, Any]] = [{**common, "choices": [choice]} for choice in choices]
    options: dict[str, Any] = asked.get("stream_options") or {}
    if options.get("include_usage"):
        events.append({**common, "choices": [], "usage": told["usage"]})
    return [*(_event(event) for event in events), b"data: [DONE]\n\n"]


def _response_events(asked: dict[str, Any], told: dict[str, Any]) -> list[bytes]:
    """A response word by word, as OpenAI streams it."""
    text = told["output"][0]["content"][0]["text"]
    begun: dict[str, Any] = {**told, "status": "in_progress", "output": [], "usage": None}
    where = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    events: list[dict[str, Any]] = [{"type": "response.created", "response": begun}]
    for word in text.split(" "):
        events.append({"type": "response.output_text.delta", **where, "delta": f"{word} "})
    events.append({"type": "response.completed", "response": told})
    numbered = [{**event, "sequence_number": number} for number, event in enumerate(events)]
    return [f"event: {event['type']}\n".encode() + _event(event) for event in numbered]


def _event(told: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(told)}\n\n".encode()


STREAMS = {"/v1/chat/completions": _chunks, "/v1/responses": _response_events}


def _error(message: str, code: str) -> bytes:
    told = {"message": message, "type": "invalid_request_error", "code": code, "param": None}
    return json.dumps({"error": told}).encode()

"""Default responses of the scripted provider: their content identifies them as scripted."""

import base64
import json
import struct
from collections.abc import Callable
from typing import Any, cast

EMBEDDING_SIZE = 4
CHARS_PER_TOKEN = 4  # a rule of thumb; these tokens are not billed


def default_response(path: str, body: bytes, number: int) -> tuple[int, bytes | list[bytes]]:
    """Status and body for a request without a scripted response: a success, or an error in OpenAI's format.

    The body of a streamed response is a list of events.
    """
    if path not in OPERATIONS:
        return 404, _error(f"Unknown path {path}", "not_found")
    description, create_response = OPERATIONS[path]
    try:
        request = json.loads(body)
        response = create_response(request, number)
        return 200, STREAMS[path](request, response) if request.get("stream") else json.dumps(response).encode()
    except (ValueError, KeyError, TypeError):
        return 400, _error(f"The request is not {description}", "invalid_request")


def _completion(request: dict[str, Any], number: int) -> dict[str, Any]:
    messages = request["messages"]
    chars = sum(len(str(message["content"])) for message in messages)
    content = (
        "This is a scripted response. It uses no real model. "
        f"You sent {chars} characters in {len(messages)} message(s)."
    )
    usage = {"prompt_tokens": chars // CHARS_PER_TOKEN, "completion_tokens": len(content) // CHARS_PER_TOKEN}
    return {
        "id": f"chatcmpl-scripted-{number}",
        "object": "chat.completion",
        "created": 0,
        "model": request["model"],
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"},
        ],
        "usage": {**usage, "total_tokens": sum(usage.values())},
    }


def _embeddings(request: dict[str, Any], _: int) -> dict[str, Any]:
    """Vectors that repeat the length of each text; in base64 if the request asks for it, as the SDKs do."""
    text_or_texts = request["input"]
    texts = cast(list[Any], text_or_texts) if isinstance(text_or_texts, list) else [text_or_texts]
    vectors = [[float(len(str(text)))] * EMBEDDING_SIZE for text in texts]
    is_base64 = request.get("encoding_format") == "base64"
    embeddings = [_as_base64(vector) if is_base64 else vector for vector in vectors]
    token_count = sum(len(str(text)) for text in texts) // CHARS_PER_TOKEN
    return {
        "object": "list",
        "data": [{"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(embeddings)],
        "model": request["model"],
        "usage": {"prompt_tokens": token_count, "total_tokens": token_count},
    }


def _as_base64(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _response(request: dict[str, Any], number: int) -> dict[str, Any]:
    chars = len(str(request["input"]))
    text = f"This is a scripted response. It uses no real model. You sent {chars} characters."
    usage = {"input_tokens": chars // CHARS_PER_TOKEN, "output_tokens": len(text) // CHARS_PER_TOKEN}
    content: dict[str, Any] = {"type": "output_text", "text": text, "annotations": []}
    return {
        "id": f"resp_scripted_{number}",
        "object": "response",
        "created_at": 0,
        "status": "completed",
        "error": None,
        "model": request["model"],
        "output": [
            {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [content]},
        ],
        "usage": {**usage, "total_tokens": sum(usage.values())},
    }


OPERATIONS: dict[str, tuple[str, Callable[[dict[str, Any], int], dict[str, Any]]]] = {
    "/v1/chat/completions": ("a chat completion", _completion),
    "/v1/embeddings": ("a request for embeddings", _embeddings),
    "/v1/responses": ("a request for a response", _response),
}


def _chat_events(request: dict[str, Any], response: dict[str, Any]) -> list[bytes]:
    """A chat completion word by word, as OpenAI streams it."""
    common = {name: response[name] for name in ("id", "created", "model")} | {"object": "chat.completion.chunk"}
    words = response["choices"][0]["message"]["content"].split(" ")
    deltas: list[dict[str, str]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": word if index == 0 else f" {word}"} for index, word in enumerate(words)]
    choices: list[dict[str, Any]] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": "stop"})
    events: list[dict[str, Any]] = [{**common, "choices": [choice]} for choice in choices]
    options: dict[str, Any] = request.get("stream_options") or {}
    if options.get("include_usage"):
        events.append({**common, "choices": [], "usage": response["usage"]})
    return [*(_encode_event(event) for event in events), b"data: [DONE]\n\n"]


def _response_events(_request: dict[str, Any], response: dict[str, Any]) -> list[bytes]:
    """A response word by word, as OpenAI streams it."""
    text = response["output"][0]["content"][0]["text"]
    in_progress: dict[str, Any] = {**response, "status": "in_progress", "output": [], "usage": None}
    position = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    events: list[dict[str, Any]] = [{"type": "response.created", "response": in_progress}]
    for word in text.split(" "):
        events.append({"type": "response.output_text.delta", **position, "delta": f"{word} "})
    events.append({"type": "response.completed", "response": response})
    numbered_events = [{**event, "sequence_number": number} for number, event in enumerate(events)]
    return [f"event: {event['type']}\n".encode() + _encode_event(event) for event in numbered_events]


def _encode_event(event: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(event)}\n\n".encode()


STREAMS = {"/v1/chat/completions": _chat_events, "/v1/responses": _response_events}


def _error(message: str, code: str) -> bytes:
    error = {"message": message, "type": "invalid_request_error", "code": code, "param": None}
    return json.dumps({"error": error}).encode()

"""Default responses of the scripted provider: their content identifies them as scripted."""

import base64
import io
import json
import math
import struct
import wave
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from aiserver.errors import InvalidRequest
from aiserver.wire import forms

JSON, EVENT_STREAM, TEXT, WAV = "application/json", "text/event-stream", "text/plain; charset=utf-8", "audio/wav"
EMBEDDING_SIZE = 4
SAMPLE_RATE = 8000
SECONDS_PER_CHAR = 0.02  # of a scripted tone, which takes the place of speech
TEXT_FORMATS = ("text", "srt", "vtt")
TOKENS_PER_IMAGE = 1000
CHARS_PER_TOKEN = 4  # a rule of thumb; these tokens are not billed


@dataclass(frozen=True)
class DefaultResponse:
    """A success, or an error in OpenAI's format. The content of a streamed response is a list of events."""

    status: int
    content: bytes | list[bytes]
    content_type: str = JSON


def default_response(path: str, content_type: str, body: bytes, number: int) -> DefaultResponse:
    """The response to a request without a scripted response."""
    try:
        if path in TRANSCRIPTS:
            return _transcript(body, content_type)
        if path in IMAGES:
            return _images(path, body, content_type)
        if path == "/v1/audio/speech":
            return DefaultResponse(200, _tone(json.loads(body)["input"]), WAV)
        if path not in OPERATIONS:
            return DefaultResponse(404, _error(f"Unknown path {path}", "not_found"))
        request = json.loads(body)
        response = OPERATIONS[path](request, number)
        if request.get("stream"):
            return DefaultResponse(200, STREAMS[path](request, response), EVENT_STREAM)
        return DefaultResponse(200, json.dumps(response).encode())
    except (ValueError, KeyError, TypeError, OSError, InvalidRequest):
        return DefaultResponse(400, _error(f"The request is not valid for {path}", "invalid_request"))


def _transcript(body: bytes, content_type: str) -> DefaultResponse:
    """A sentence that names the file and its duration; a real provider would write down what it hears."""
    parts = forms.parse_form(body, content_type)
    file = next((part for part in parts if part.is_file), None)
    if file is None:
        raise ValueError("no file")
    seconds = _wav_seconds(file.content)
    text = (
        "This is a scripted transcript. It uses no real model. "
        f"You sent {file.file_name} with {seconds:.1f} seconds of audio."
    )
    format_ = forms.text_value(parts, "response_format")
    if format_ in TEXT_FORMATS:
        return DefaultResponse(200, f"{text}\n".encode(), TEXT)
    usage = {"type": "duration", "seconds": math.ceil(seconds)}
    if forms.text_value(parts, "stream") == "true":
        words = [{"type": "transcript.text.delta", "delta": f"{word} "} for word in text.split(" ")]
        done = {"type": "transcript.text.done", "text": text, "usage": usage}
        return DefaultResponse(200, [_encode_event(event) for event in (*words, done)], EVENT_STREAM)
    document: dict[str, Any] = {"text": text, "usage": usage}
    if format_ == "verbose_json":
        segment = {"id": 0, "start": 0.0, "end": seconds, "text": text}
        document |= {"task": "transcribe", "language": "english", "duration": seconds, "segments": [segment]}
    return DefaultResponse(200, json.dumps(document).encode())


def _images(path: str, body: bytes, content_type: str) -> DefaultResponse:
    """Images with the prompt written on them, always as base64; a stream first sends incomplete ones."""
    from local import drawing  # Pillow takes time to import

    parts = forms.parse_form(body, content_type) if forms.is_form(content_type) else []
    fields: dict[str, Any] = {part.name: part.text for part in parts if not part.is_file} or json.loads(body)
    files = {part.name.removesuffix("[]"): part.content for part in parts if part.is_file}
    prompt, size, output_format = fields["prompt"], drawing.parse_size(fields.get("size")), fields.get("output_format")
    count, first_seed = int(fields.get("n") or 1), int(fields.get("seed") or 0)
    if path == EDITS:
        images = [drawing.edit_image(files["image"], files.get("mask"), prompt, size)] * count
    else:
        seeds = range(first_seed, first_seed + count)
        images = [drawing.draw_prompt(prompt, size or drawing.DEFAULT_SIZE, seed) for seed in seeds]
    contents = [base64.b64encode(drawing.encode_image(image, output_format or "png")).decode() for image in images]
    tokens = {"input_tokens": len(prompt) // CHARS_PER_TOKEN, "output_tokens": TOKENS_PER_IMAGE * count}
    usage = {**tokens, "total_tokens": sum(tokens.values())}
    if str(fields.get("stream")).lower() != "true":
        document = {"created": 0, "data": [{"b64_json": content} for content in contents], "usage": usage}
        return DefaultResponse(200, json.dumps(document).encode())
    prefix = "image_edit" if path == EDITS else "image_generation"
    partial: list[dict[str, Any]] = [
        {"type": f"{prefix}.partial_image", "b64_json": contents[0], "partial_image_index": index}
        for index in range(int(fields.get("partial_images") or 0))
    ]
    completed = {"type": f"{prefix}.completed", "b64_json": contents[0], "usage": usage}
    events = [f"event: {event['type']}\n".encode() + _encode_event(event) for event in (*partial, completed)]
    return DefaultResponse(200, events, EVENT_STREAM)


def _wav_seconds(content: bytes) -> float:
    """The duration of a WAV file. Raises: ValueError, when it is none."""
    try:
        with wave.open(io.BytesIO(content)) as file:
            return file.getnframes() / file.getframerate()
    except (wave.Error, EOFError) as error:
        raise ValueError("not a WAV file") from error


def _tone(text: str) -> bytes:
    """A WAV file with a tone that lasts longer for a longer text."""
    frames = range(int(SAMPLE_RATE * SECONDS_PER_CHAR * max(1, len(text))))
    samples = [int(8000 * math.sin(2 * math.pi * 440 * frame / SAMPLE_RATE)) for frame in frames]
    target = io.BytesIO()
    with wave.open(target, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(struct.pack(f"<{len(samples)}h", *samples))
    return target.getvalue()


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


EDITS = "/v1/images/edits"
IMAGES = ("/v1/images/generations", EDITS)
TRANSCRIPTS = ("/v1/audio/transcriptions", "/v1/audio/translations")
OPERATIONS: dict[str, Callable[[dict[str, Any], int], dict[str, Any]]] = {
    "/v1/chat/completions": _completion,
    "/v1/embeddings": _embeddings,
    "/v1/responses": _response,
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

"""Requests and responses without a protocol: what both sides of a translation must agree on."""

import json
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class TextPart:
    text: str


@dataclass(frozen=True)
class MediaPart:
    """An image or a file as URL or base64. `media_type` is empty when only a URL is known."""

    source: str
    media_type: str = ""


@dataclass(frozen=True)
class ToolCall:
    """A tool call of the model; `arguments` is a JSON value."""

    id: str
    name: str
    arguments: Any


@dataclass(frozen=True)
class ToolResult:
    """The output of a tool."""

    id: str
    text: str


Part = TextPart | MediaPart | ToolCall | ToolResult


@dataclass(frozen=True)
class Turn:
    is_model: bool
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Tool:
    name: str
    description: str | None
    schema: Any


@dataclass(frozen=True)
class Request:
    """One request. `choice` is `auto`, `none`, `required`, a tool name in brackets, or None when unset."""

    model: str
    system: tuple[str, ...] = ()
    turns: tuple[Turn, ...] = ()
    tools: tuple[Tool, ...] = ()
    choice: str | None = None
    one_call_at_a_time: bool = False
    schema: Any = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    streams: bool = False


@dataclass(frozen=True)
class Usage:
    """Token counts as OpenAI defines them."""

    prompt: int = 11
    completion: int = 7
    cached: int = 3
    reasoning: int = 2


@dataclass(frozen=True)
class Response:
    """One response; `finish` is OpenAI's `finish_reason`."""

    text: str = ""
    reasoning: str = ""
    calls: tuple[ToolCall, ...] = ()
    finish: str = "stop"
    usage: Usage = field(default_factory=Usage)


def merge_turns(messages: list[tuple[bool, list[Part]]]) -> tuple[Turn, ...]:
    """Merge consecutive turns of the same side, as most vendors treat them as one."""
    merged: list[tuple[bool, list[Part]]] = []
    for is_model, parts in messages:
        if not merged or merged[-1][0] != is_model:
            merged.append((is_model, []))
        merged[-1][1].extend(parts)
    return tuple(Turn(is_model, tuple(parts)) for is_model, parts in merged)


def parse_request(body: dict[str, Any]) -> Request:
    """Parse an OpenAI chat completion request."""
    system: list[str] = []
    messages: list[tuple[bool, list[Part]]] = []
    for message in body["messages"]:
        parts = _parts(message)
        if message["role"] in ("system", "developer"):
            system += [part.text for part in parts if isinstance(part, TextPart)]
        elif message["role"] == "tool":
            text = "".join(part.text for part in parts if isinstance(part, TextPart))
            messages.append((False, [ToolResult(message["tool_call_id"], text)]))
        else:
            calls: list[Part] = [_tool_call(call) for call in message.get("tool_calls") or ()]
            messages.append((message["role"] == "assistant", [*parts, *calls]))
    choice = body.get("tool_choice")
    stop = body.get("stop")
    return Request(
        model=body["model"],
        system=tuple(system),
        turns=merge_turns(messages),
        tools=tuple(_tool(tool["function"]) for tool in body.get("tools") or ()),
        choice=f"[{choice['function']['name']}]" if isinstance(choice, dict) else choice,
        one_call_at_a_time=body.get("parallel_tool_calls") is False,
        schema=body.get("response_format", {}).get("json_schema", {}).get("schema"),
        max_tokens=body.get("max_completion_tokens", body.get("max_tokens")),
        temperature=body.get("temperature"),
        top_p=body.get("top_p"),
        stop=(stop,) if isinstance(stop, str) else tuple(stop or ()),
        streams=body.get("stream", False),
    )


def parse_completion(body: dict[str, Any]) -> Response:
    """Parse an OpenAI chat completion with one choice."""
    choice, usage = body["choices"][0], body["usage"]
    message = choice["message"]
    return Response(
        text=message["content"] or "",
        reasoning=message.get("reasoning_content") or "",
        calls=tuple(_tool_call(call) for call in message.get("tool_calls") or ()),
        finish=choice["finish_reason"],
        usage=Usage(
            usage["prompt_tokens"],
            usage["completion_tokens"],
            usage["prompt_tokens_details"]["cached_tokens"],
            usage.get("completion_tokens_details", {}).get("reasoning_tokens", 0),
        ),
    )


def parse_chunks(chunks: list[dict[str, Any]]) -> Response:
    """Assemble the chunks of a streamed OpenAI chat completion with one choice, as clients do."""
    message: dict[str, Any] = {"content": "", "reasoning_content": "", "tool_calls": []}
    finish = ""
    for chunk in chunks:
        for choice in chunk["choices"]:
            delta, finish = choice["delta"], choice["finish_reason"] or finish
            message["content"] += delta.get("content") or ""
            message["reasoning_content"] += delta.get("reasoning_content") or ""
            for call in delta.get("tool_calls") or ():
                if call["index"] == len(message["tool_calls"]):
                    function = call["function"]["name"]
                    message["tool_calls"].append({"id": call["id"], "function": {"name": function, "arguments": ""}})
                message["tool_calls"][call["index"]]["function"]["arguments"] += call["function"].get("arguments", "")
    usage = chunks[-1]["usage"]
    return parse_completion({"choices": [{"message": message, "finish_reason": finish}], "usage": usage})


def _parts(message: dict[str, Any]) -> list[Part]:
    content = message.get("content") or []
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    content_parts: list[Part] = [_part(part) for part in parts]
    if message.get("name") and message["role"] != "tool":
        first = content_parts[0] if content_parts and isinstance(content_parts[0], TextPart) else None
        name = message["name"]
        content_parts = (
            [TextPart(f"{name}: {first.text}"), *content_parts[1:]] if first else [TextPart(f"{name}:"), *content_parts]
        )
    return content_parts


def _part(part: dict[str, Any]) -> Part:
    match part["type"]:
        case "text":
            return TextPart(part["text"])
        case "refusal":
            return TextPart(part["refusal"])
        case "image_url":
            return parse_media(part["image_url"]["url"])
        case "file":
            return parse_media(part["file"]["file_data"])
        case kind:
            raise AssertionError(kind)


def parse_media(url: str) -> MediaPart:
    if url.startswith("data:"):
        head, _, data = url.partition(";base64,")
        return MediaPart(data, head.removeprefix("data:"))
    return MediaPart(url)


def _tool_call(call: dict[str, Any]) -> ToolCall:
    function = call["function"]
    return ToolCall(call["id"], function["name"], json.loads(function["arguments"] or "{}"))


def _tool(function: dict[str, Any]) -> Tool:
    empty = {"type": "object", "properties": {}}
    return Tool(function["name"], function.get("description"), function.get("parameters", empty))

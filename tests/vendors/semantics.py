"""What a request asks and an answer says, in any protocol: what must be the same on both sides of a translation."""

import json
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Words:
    text: str


@dataclass(frozen=True)
class Media:
    """An image or a file: its URL, or its base64. `media_type` is unknown where only a URL is told."""

    source: str
    media_type: str = ""


@dataclass(frozen=True)
class Called:
    """A tool that the model called; `arguments` is a JSON value."""

    id: str
    name: str
    arguments: Any


@dataclass(frozen=True)
class Result:
    """What a tool gave back."""

    id: str
    text: str


Said = Words | Media | Called | Result


@dataclass(frozen=True)
class Turn:
    is_model: bool
    said: tuple[Said, ...]


@dataclass(frozen=True)
class ToolOffered:
    name: str
    description: str | None
    schema: Any


@dataclass(frozen=True)
class Request:
    """One request. `choice` is `auto`, `none`, `required` or the name of a tool in brackets; None says nothing."""

    model: str
    system: tuple[str, ...] = ()
    turns: tuple[Turn, ...] = ()
    tools: tuple[ToolOffered, ...] = ()
    choice: str | None = None
    one_call_at_a_time: bool = False
    schema: Any = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    streams: bool = False


@dataclass(frozen=True)
class Spent:
    """Tokens in OpenAI's sense."""

    prompt: int = 11
    completion: int = 7
    cached: int = 3
    reasoning: int = 2


@dataclass(frozen=True)
class Answer:
    """One answer; `finish` in OpenAI's words."""

    text: str = ""
    reasoning: str = ""
    calls: tuple[Called, ...] = ()
    finish: str = "stop"
    spent: Spent = field(default_factory=Spent)


def turns(said: list[tuple[bool, list[Said]]]) -> tuple[Turn, ...]:
    """Turns of one side in a row are one: most vendors hear no difference."""
    joined: list[tuple[bool, list[Said]]] = []
    for is_model, parts in said:
        if not joined or joined[-1][0] != is_model:
            joined.append((is_model, []))
        joined[-1][1].extend(parts)
    return tuple(Turn(is_model, tuple(parts)) for is_model, parts in joined)


def of_openai(body: dict[str, Any]) -> Request:
    """A request of OpenAI's."""
    system: list[str] = []
    said: list[tuple[bool, list[Said]]] = []
    for message in body["messages"]:
        parts = _parts(message)
        if message["role"] in ("system", "developer"):
            system += [part.text for part in parts if isinstance(part, Words)]
        elif message["role"] == "tool":
            text = "".join(part.text for part in parts if isinstance(part, Words))
            said.append((False, [Result(message["tool_call_id"], text)]))
        else:
            calls: list[Said] = [_called(call) for call in message.get("tool_calls") or ()]
            said.append((message["role"] == "assistant", [*parts, *calls]))
    choice = body.get("tool_choice")
    stop = body.get("stop")
    return Request(
        model=body["model"],
        system=tuple(system),
        turns=turns(said),
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


def of_completion(body: dict[str, Any]) -> Answer:
    """An answer of OpenAI's, of one choice."""
    choice, usage = body["choices"][0], body["usage"]
    message = choice["message"]
    return Answer(
        text=message["content"] or "",
        reasoning=message.get("reasoning_content") or "",
        calls=tuple(_called(call) for call in message.get("tool_calls") or ()),
        finish=choice["finish_reason"],
        spent=Spent(
            usage["prompt_tokens"],
            usage["completion_tokens"],
            usage["prompt_tokens_details"]["cached_tokens"],
            usage.get("completion_tokens_details", {}).get("reasoning_tokens", 0),
        ),
    )


def of_chunks(chunks: list[dict[str, Any]]) -> Answer:
    """A streamed answer of OpenAI's, of one choice, put together as its readers do."""
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
    return of_completion({"choices": [{"message": message, "finish_reason": finish}], "usage": usage})


def _parts(message: dict[str, Any]) -> list[Said]:
    content = message.get("content") or []
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    said: list[Said] = [_part(part) for part in parts]
    if message.get("name") and message["role"] != "tool":
        first = said[0] if said and isinstance(said[0], Words) else None
        name = message["name"]
        said = [Words(f"{name}: {first.text}"), *said[1:]] if first else [Words(f"{name}:"), *said]
    return said


def _part(part: dict[str, Any]) -> Said:
    match part["type"]:
        case "text":
            return Words(part["text"])
        case "refusal":
            return Words(part["refusal"])
        case "image_url":
            return media(part["image_url"]["url"])
        case "file":
            return media(part["file"]["file_data"])
        case kind:
            raise AssertionError(kind)


def media(url: str) -> Media:
    if url.startswith("data:"):
        head, _, data = url.partition(";base64,")
        return Media(data, head.removeprefix("data:"))
    return Media(url)


def _called(call: dict[str, Any]) -> Called:
    function = call["function"]
    return Called(call["id"], function["name"], json.loads(function["arguments"] or "{}"))


def _tool(function: dict[str, Any]) -> ToolOffered:
    empty = {"type": "object", "properties": {}}
    return ToolOffered(function["name"], function.get("description"), function.get("parameters", empty))

"""Anthropic as its own server speaks, made of its own SDK's types.

Source: https://platform.claude.com/docs/en/api/messages https://platform.claude.com/docs/en/build-with-claude/streaming
"""

import json
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import anthropic.types as sdk
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming, MessageCreateParamsStreaming

from aiserver.providers.anthropic import ANTHROPIC
from aiserver.providers.http import ProviderRequest
from tests.providers.fake_provider import Said
from tests.vendors import semantics
from tests.vendors.semantics import Answer, Called, Media, Request, Result, ToolOffered, Words
from tests.vendors.typeddict_validator import problems

VERSIONS = ("2023-06-01", "2026-10-21")
# Version 2026-10-21 has no words for these, nor have its SDK's types; the version before has.
SAMPLING = ("temperature", "top_p", "top_k")
STOPS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}
CHOICES = {"auto": "auto", "any": "required", "none": "none"}
PIECE = 3  # letters of a text that come at once


class AnthropicDialect:
    """dialect.Dialect"""

    type = "anthropic"
    vendor = ANTHROPIC
    model = "claude-sonnet-4-6"  # of those that may be told how to sample the youngest
    has_urls = True
    counts_reasoning = True
    stream_type = "text/event-stream; charset=utf-8"
    headers: Mapping[str, str] = MappingProxyType({"request-id": "req_1"})

    def credential(self, key: str) -> tuple[str, str]:
        return "x-api-key", key

    def listing(self, models: list[str]) -> bytes:
        told = {"type": "model", "display_name": "", "created_at": "2026-01-01T00:00:00Z"}
        listed = [sdk.ModelInfo.model_validate({**told, "id": id, "lifecycle": "active"}) for id in models]
        data = [json.loads(_dump(model)) for model in listed]
        return json.dumps({"data": data, "has_more": False, "first_id": models[0], "last_id": models[-1]}).encode()

    def read(self, asked: ProviderRequest) -> Request:
        body = json.loads(asked.body or b"")
        assert (asked.method, asked.path) == ("POST", "/v1/messages")
        samples = [name for name in SAMPLING if name in body]
        assert asked.headers["anthropic-version"] == VERSIONS[not samples]
        typed = {name: value for name, value in body.items() if name not in samples}
        kind = MessageCreateParamsStreaming if typed.get("stream") else MessageCreateParamsNonStreaming
        assert problems(typed, kind) == []
        return _request(body)

    def turns(self, sent: dict[str, Any]) -> list[Any]:
        return [turn["content"] for turn in sent["messages"] if turn["role"] == "assistant"]

    def turn(self, message: dict[str, Any]) -> Any:
        return message["content"] if message["content"][0]["type"] == "thinking" else _plain(message["content"])

    def message(self, answer: Answer) -> bytes:
        usage = sdk.Usage(input_tokens=answer.spent.prompt - answer.spent.cached, output_tokens=answer.spent.completion)
        usage.cache_read_input_tokens = answer.spent.cached
        usage.output_tokens_details = sdk.OutputTokensDetails(thinking_tokens=answer.spent.reasoning)
        return _dump(_message(list(_blocks(answer)), STOPS[answer.finish], usage))

    def events(self, answer: Answer) -> list[bytes]:
        return [_event(event) for event in _events(answer)]

    def error(self, status: int, message: str) -> Said:
        error = {"type": ERRORS.get(status, "api_error"), "message": message}
        body = {"type": "error", "error": error, "request_id": "req_1"}
        headers = {"content-type": "application/json", **self.headers} | ({"retry-after": "7"} if status == 429 else {})
        return Said(status, json.dumps(body).encode(), headers)

    def framed(self, event: bytes) -> bytes:
        return event

    def failure(self, message: str) -> bytes:
        error = {"type": "overloaded_error", "message": message}
        return b"event: error\ndata: %b\n\n" % json.dumps({"type": "error", "error": error}).encode()


def _request(body: dict[str, Any]) -> Request:
    choice = body.get("tool_choice") or {}
    kind = choice.get("type")
    return Request(
        model=body["model"],
        system=tuple(block["text"] for block in body.get("system", ())),
        turns=semantics.turns([(m["role"] == "assistant", _spoken(m["content"])) for m in body["messages"]]),
        tools=tuple(_offered(tool) for tool in body.get("tools", ()) if "input_schema" in tool),
        choice=f"[{choice['name']}]" if kind == "tool" else CHOICES.get(kind),
        one_call_at_a_time=choice.get("disable_parallel_tool_use", False),
        schema=body.get("output_config", {}).get("format", {}).get("schema"),
        max_tokens=body["max_tokens"],
        temperature=body.get("temperature"),
        top_p=body.get("top_p"),
        stop=tuple(body.get("stop_sequences", ())),
        streams=body.get("stream", False),
    )


def _offered(tool: dict[str, Any]) -> ToolOffered:
    return ToolOffered(tool["name"], tool.get("description"), tool["input_schema"])


def _spoken(content: list[dict[str, Any]]) -> list[semantics.Said]:
    """All but what is signed: OpenAI has no words for it."""
    return [_said(block) for block in content if block["type"] != "thinking"]


def _said(block: dict[str, Any]) -> semantics.Said:
    match block["type"]:
        case "text":
            return Words(block["text"])
        case "image" | "document":
            source = block["source"]
            is_url = source["type"] == "url"
            return Media(source["url"]) if is_url else Media(source["data"], source["media_type"])
        case "tool_use":
            return Called(block["id"], block["name"], block["input"])
        case "tool_result":
            content = block["content"]
            text = content if isinstance(content, str) else "".join(part["text"] for part in content)
            return Result(block["tool_use_id"], text)
        case kind:
            raise AssertionError(kind)


def _plain(content: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of blocks that OpenAI has words for, those words: what a tool is called by stays behind."""
    return [
        {name: block[name] for name in ("type", "text", "id", "name", "input") if name in block} for block in content
    ]


def _message(content: list[Any], stop_reason: str | None, usage: sdk.Usage) -> sdk.Message:
    told = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-5-20260801"}
    return sdk.Message.model_validate(
        {**told, "content": content, "stop_reason": stop_reason, "stop_sequence": None, "usage": usage}
    )


def _blocks(answer: Answer) -> Iterator[Any]:
    if answer.reasoning:
        yield sdk.ThinkingBlock(type="thinking", thinking=answer.reasoning, signature="c2lnbmVk")
    if answer.text:
        yield sdk.TextBlock(type="text", text=answer.text, citations=None)
    for call in answer.calls:
        yield sdk.ToolUseBlock(type="tool_use", id=call.id, name=call.name, input=call.arguments, caller=DIRECT)


DIRECT = sdk.DirectCaller(type="direct")


def _events(answer: Answer) -> Iterator[Any]:
    spent = answer.spent
    begun = sdk.Usage(input_tokens=spent.prompt - spent.cached, output_tokens=1, cache_read_input_tokens=spent.cached)
    yield sdk.RawMessageStartEvent(type="message_start", message=_message([], None, begun))
    for index, block in enumerate(_blocks(answer)):
        start, deltas = _pieces(block)
        yield sdk.RawContentBlockStartEvent(type="content_block_start", index=index, content_block=start)
        yield {"type": "ping"}
        for delta in deltas:
            yield sdk.RawContentBlockDeltaEvent(type="content_block_delta", index=index, delta=delta)
        yield sdk.RawContentBlockStopEvent(type="content_block_stop", index=index)
    usage = sdk.MessageDeltaUsage(output_tokens=spent.completion)
    usage.output_tokens_details = sdk.OutputTokensDetails(thinking_tokens=spent.reasoning)
    delta = sdk.raw_message_delta_event.Delta.model_validate({"stop_reason": STOPS[answer.finish]})
    yield sdk.RawMessageDeltaEvent(type="message_delta", delta=delta, usage=usage)
    yield sdk.RawMessageStopEvent(type="message_stop")


def _pieces(block: Any) -> tuple[Any, Iterator[Any]]:
    """A block as it begins, and what comes of it."""
    if isinstance(block, sdk.TextBlock):
        deltas = (sdk.TextDelta(type="text_delta", text=piece) for piece in _cut(block.text))
        return block.model_copy(update={"text": ""}), deltas
    if isinstance(block, sdk.ThinkingBlock):
        thoughts = [sdk.ThinkingDelta(type="thinking_delta", thinking=piece) for piece in _cut(block.thinking)]
        signed = sdk.SignatureDelta(type="signature_delta", signature=block.signature)
        return block.model_copy(update={"thinking": "", "signature": ""}), iter([*thoughts, signed])
    pieces = ["", *_cut(json.dumps(block.input))] if block.input else [""]
    deltas = (sdk.InputJSONDelta(type="input_json_delta", partial_json=piece) for piece in pieces)
    return block.model_copy(update={"input": {}}), deltas


def _cut(text: str) -> list[str]:
    return [text[at : at + PIECE] for at in range(0, len(text), PIECE)]


def _event(event: Any) -> bytes:
    data = _dump(event)
    return b"event: %b\ndata: %b\n\n" % (json.loads(data)["type"].encode(), data)


def _dump(made: Any) -> bytes:
    return json.dumps(made).encode() if isinstance(made, dict) else made.model_dump_json().encode()

"""Anthropic's protocol as its server speaks it, built from the types of its SDK.

Source: https://platform.claude.com/docs/en/api/messages https://platform.claude.com/docs/en/build-with-claude/streaming
"""

import json
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import anthropic.types as sdk
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming, MessageCreateParamsStreaming

from aiserver.providers.adapters.anthropic import ANTHROPIC
from aiserver.providers.request import ProviderRequest
from tests.providers.fake_provider import FakeResponse
from tests.vendors import semantics
from tests.vendors.semantics import MediaPart, Request, Response, TextPart, Tool, ToolCall, ToolResult
from tests.vendors.typeddict_validator import problems

VERSIONS = ("2023-06-01", "2026-10-21")
# Version 2026-10-21 and its SDK's types do not support these; the version before does.
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
CHUNK_CHARS = 3  # letters of a text per event


class AnthropicDialect:
    """dialect.Dialect"""

    type = "anthropic"
    translator = ANTHROPIC
    model = "claude-sonnet-4-6"  # the newest model that accepts sampling parameters
    has_urls = True
    counts_reasoning = True
    stream_type = "text/event-stream; charset=utf-8"
    headers: Mapping[str, str] = MappingProxyType({"request-id": "req_1"})

    def credential(self, key: str) -> tuple[str, str]:
        return "x-api-key", key

    def listing(self, models: list[str]) -> bytes:
        fields = {"type": "model", "display_name": "", "created_at": "2026-01-01T00:00:00Z"}
        model_infos = [sdk.ModelInfo.model_validate({**fields, "id": id, "lifecycle": "active"}) for id in models]
        data = [json.loads(_dump(model)) for model in model_infos]
        return json.dumps({"data": data, "has_more": False, "first_id": models[0], "last_id": models[-1]}).encode()

    def parse_request(self, request: ProviderRequest) -> Request:
        body = json.loads(request.body or b"")
        assert (request.method, request.path) == ("POST", "/v1/messages")
        sampling_names = [name for name in SAMPLING if name in body]
        assert request.headers["anthropic-version"] == VERSIONS[not sampling_names]
        typed_body = {name: value for name, value in body.items() if name not in sampling_names}
        params_type = MessageCreateParamsStreaming if typed_body.get("stream") else MessageCreateParamsNonStreaming
        assert problems(typed_body, params_type) == []
        return _request(body)

    def model_turns(self, body: dict[str, Any]) -> list[Any]:
        return [turn["content"] for turn in body["messages"] if turn["role"] == "assistant"]

    def model_turn(self, response: dict[str, Any]) -> Any:
        return (
            response["content"] if response["content"][0]["type"] == "thinking" else _openai_fields(response["content"])
        )

    def encode_response(self, response: Response) -> bytes:
        usage = sdk.Usage(
            input_tokens=response.usage.prompt - response.usage.cached, output_tokens=response.usage.completion
        )
        usage.cache_read_input_tokens = response.usage.cached
        usage.output_tokens_details = sdk.OutputTokensDetails(thinking_tokens=response.usage.reasoning)
        return _dump(_message(list(_blocks(response)), STOPS[response.finish], usage))

    def encode_events(self, response: Response) -> list[bytes]:
        return [_event(event) for event in _events(response)]

    def error_response(self, status: int, message: str) -> FakeResponse:
        error = {"type": ERRORS.get(status, "api_error"), "message": message}
        body = {"type": "error", "error": error, "request_id": "req_1"}
        headers = {"content-type": "application/json", **self.headers} | ({"retry-after": "7"} if status == 429 else {})
        return FakeResponse(status, json.dumps(body).encode(), headers)

    def encode_frame(self, event: bytes) -> bytes:
        return event

    def error_event(self, message: str) -> bytes:
        error = {"type": "overloaded_error", "message": message}
        return b"event: error\ndata: %b\n\n" % json.dumps({"type": "error", "error": error}).encode()


def _request(body: dict[str, Any]) -> Request:
    choice = body.get("tool_choice") or {}
    kind = choice.get("type")
    return Request(
        model=body["model"],
        system=tuple(block["text"] for block in body.get("system", ())),
        turns=semantics.merge_turns(
            [(m["role"] == "assistant", _unsigned_parts(m["content"])) for m in body["messages"]]
        ),
        tools=tuple(_tool(tool) for tool in body.get("tools", ()) if "input_schema" in tool),
        choice=f"[{choice['name']}]" if kind == "tool" else CHOICES.get(kind),
        one_call_at_a_time=choice.get("disable_parallel_tool_use", False),
        schema=body.get("output_config", {}).get("format", {}).get("schema"),
        max_tokens=body["max_tokens"],
        temperature=body.get("temperature"),
        top_p=body.get("top_p"),
        stop=tuple(body.get("stop_sequences", ())),
        streams=body.get("stream", False),
    )


def _tool(tool: dict[str, Any]) -> Tool:
    return Tool(tool["name"], tool.get("description"), tool["input_schema"])


def _unsigned_parts(content: list[dict[str, Any]]) -> list[semantics.Part]:
    """All blocks except signed ones, which OpenAI's format does not support."""
    return [_part(block) for block in content if block["type"] != "thinking"]


def _part(block: dict[str, Any]) -> semantics.Part:
    match block["type"]:
        case "text":
            return TextPart(block["text"])
        case "image" | "document":
            source = block["source"]
            is_url = source["type"] == "url"
            return MediaPart(source["url"]) if is_url else MediaPart(source["data"], source["media_type"])
        case "tool_use":
            return ToolCall(block["id"], block["name"], block["input"])
        case "tool_result":
            content = block["content"]
            text = content if isinstance(content, str) else "".join(part["text"] for part in content)
            return ToolResult(block["tool_use_id"], text)
        case kind:
            raise AssertionError(kind)


def _openai_fields(content: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The fields of each block that OpenAI's format supports: `caller` of a tool call is dropped."""
    return [
        {name: block[name] for name in ("type", "text", "id", "name", "input") if name in block} for block in content
    ]


def _message(content: list[Any], stop_reason: str | None, usage: sdk.Usage) -> sdk.Message:
    fields = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-5-20260801"}
    return sdk.Message.model_validate(
        {**fields, "content": content, "stop_reason": stop_reason, "stop_sequence": None, "usage": usage}
    )


def _blocks(response: Response) -> Iterator[Any]:
    if response.reasoning:
        yield sdk.ThinkingBlock(type="thinking", thinking=response.reasoning, signature="c2lnbmVk")
    if response.text:
        yield sdk.TextBlock(type="text", text=response.text, citations=None)
    for call in response.calls:
        yield sdk.ToolUseBlock(type="tool_use", id=call.id, name=call.name, input=call.arguments, caller=DIRECT_CALLER)


DIRECT_CALLER = sdk.DirectCaller(type="direct")


def _events(response: Response) -> Iterator[Any]:
    usage = response.usage
    initial_usage = sdk.Usage(
        input_tokens=usage.prompt - usage.cached, output_tokens=1, cache_read_input_tokens=usage.cached
    )
    yield sdk.RawMessageStartEvent(type="message_start", message=_message([], None, initial_usage))
    for index, block in enumerate(_blocks(response)):
        start, deltas = _block_deltas(block)
        yield sdk.RawContentBlockStartEvent(type="content_block_start", index=index, content_block=start)
        yield {"type": "ping"}
        for delta in deltas:
            yield sdk.RawContentBlockDeltaEvent(type="content_block_delta", index=index, delta=delta)
        yield sdk.RawContentBlockStopEvent(type="content_block_stop", index=index)
    final_usage = sdk.MessageDeltaUsage(output_tokens=usage.completion)
    final_usage.output_tokens_details = sdk.OutputTokensDetails(thinking_tokens=usage.reasoning)
    delta = sdk.raw_message_delta_event.Delta.model_validate({"stop_reason": STOPS[response.finish]})
    yield sdk.RawMessageDeltaEvent(type="message_delta", delta=delta, usage=final_usage)
    yield sdk.RawMessageStopEvent(type="message_stop")


def _block_deltas(block: Any) -> tuple[Any, Iterator[Any]]:
    """The block at its start event, and its deltas."""
    if isinstance(block, sdk.TextBlock):
        deltas = (sdk.TextDelta(type="text_delta", text=chunk) for chunk in _split_text(block.text))
        return block.model_copy(update={"text": ""}), deltas
    if isinstance(block, sdk.ThinkingBlock):
        thoughts = [sdk.ThinkingDelta(type="thinking_delta", thinking=chunk) for chunk in _split_text(block.thinking)]
        signature = sdk.SignatureDelta(type="signature_delta", signature=block.signature)
        return block.model_copy(update={"thinking": "", "signature": ""}), iter([*thoughts, signature])
    json_chunks = ["", *_split_text(json.dumps(block.input))] if block.input else [""]
    deltas = (sdk.InputJSONDelta(type="input_json_delta", partial_json=chunk) for chunk in json_chunks)
    return block.model_copy(update={"input": {}}), deltas


def _split_text(text: str) -> list[str]:
    return [text[start : start + CHUNK_CHARS] for start in range(0, len(text), CHUNK_CHARS)]


def _event(event: Any) -> bytes:
    data = _dump(event)
    return b"event: %b\ndata: %b\n\n" % (json.loads(data)["type"].encode(), data)


def _dump(model: Any) -> bytes:
    return json.dumps(model).encode() if isinstance(model, dict) else model.model_dump_json().encode()

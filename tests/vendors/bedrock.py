"""Amazon Bedrock's protocol as the service speaks it, validated by botocore's model.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html
"""

import json
import re
import zlib
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any
from urllib.parse import quote, unquote

import botocore.session

from aiserver.providers.adapters.bedrock import BEDROCK
from aiserver.providers.request import ProviderRequest
from aiserver.wire import sse
from tests.providers.fake_provider import FakeResponse
from tests.vendors import semantics
from tests.vendors.botocore_validator import problems
from tests.vendors.semantics import MediaPart, Request, Response, TextPart, Tool, ToolCall, ToolResult

API = botocore.session.get_session().get_service_model("bedrock-runtime")
REQUEST_SHAPE = API.operation_model("Converse").input_shape
RESPONSE_SHAPE = API.operation_model("Converse").output_shape
STREAM_SHAPE = API.operation_model("ConverseStream").output_shape
STOPS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "content_filtered"}
ERRORS = {
    error.metadata["error"]["httpStatusCode"]: error.name for error in API.operation_model("Converse").error_shapes
}
MEDIA = {"png": "image/png", "jpeg": "image/jpeg", "gif": "image/gif", "webp": "image/webp", "pdf": "application/pdf"}
CHOICES = {"auto": "auto", "any": "required"}
CHUNK_CHARS = 3  # letters of a text per event


class BedrockDialect:
    """dialect.Dialect"""

    type = "bedrock"
    translator = BEDROCK
    model = "us.anthropic.claude-sonnet-4-6"
    has_urls = False
    counts_reasoning = False
    stream_type = "application/vnd.amazon.eventstream"
    headers: Mapping[str, str] = MappingProxyType({"x-amzn-requestid": "req_1"})

    def credential(self, key: str) -> tuple[str, str]:
        return "authorization", f"Bearer {key}"

    def listing(self, models: list[str]) -> bytes:
        raise NotImplementedError

    def parse_request(self, request: ProviderRequest) -> Request:
        path = re.fullmatch(r"/model/([^/]+)/converse(-stream)?", request.path)
        assert (request.method, path is not None) == ("POST", True)
        assert path
        model, body = unquote(path[1]), json.loads(request.body or b"")
        assert path[1] == quote(model, safe="")
        assert problems({"modelId": model, **body}, REQUEST_SHAPE) == []
        assert not path[2] or request.headers["accept"] == self.stream_type
        return _request(model, body, streams=bool(path[2]))

    def model_turns(self, body: dict[str, Any]) -> list[Any]:
        return [turn["content"] for turn in body["messages"] if turn["role"] == "assistant"]

    def model_turn(self, response: dict[str, Any]) -> Any:
        return response["output"]["message"]["content"]

    def encode_response(self, response: Response) -> bytes:
        body = {
            "output": {"message": {"role": "assistant", "content": list(_blocks(response))}},
            "stopReason": STOPS[response.finish],
            "usage": _usage(response),
            "metrics": {"latencyMs": 12},
        }
        assert problems(body, RESPONSE_SHAPE) == []
        return json.dumps(body).encode()

    def encode_events(self, response: Response) -> list[bytes]:
        """Each event contains padding (`p`), as Bedrock sends it."""
        events = [{name: {**payload, "p": "abcdefgh"}} for name, payload in _events(response)]
        for (name, payload), *_ in (event.items() for event in events):
            assert problems({"stream": {name: {k: v for k, v in payload.items() if k != "p"}}}, STREAM_SHAPE) == []
        return [sse.format_event(json.dumps(event).encode()) for event in events]

    def encode_frame(self, event: bytes) -> bytes:
        """An invalid event is framed as `contentBlockDelta`."""
        try:
            ((name, payload),) = json.loads(sse.event_data(event)).items()
        except (ValueError, AttributeError):
            name, payload = "contentBlockDelta", sse.event_data(event)
        kind = ("exception", ":exception-type") if sse.is_error_event(event) else ("event", ":event-type")
        return frame({":message-type": kind[0], kind[1]: name, ":content-type": "application/json"}, payload)

    def error_response(self, status: int, message: str) -> FakeResponse:
        kind = ERRORS.get(status, "UnknownException")
        headers = {
            "content-type": "application/json",
            "x-amzn-errortype": f"{kind}:http://amazonaws.com/",
            **self.headers,
        }
        wait = {"retry-after": "7"} if status == 429 else {}
        return FakeResponse(status, json.dumps({"message": message}).encode(), headers | wait)

    def error_event(self, message: str) -> bytes:
        exception = {"serviceUnavailableException": {"message": message}}
        assert problems({"stream": exception}, STREAM_SHAPE) == []
        return b"event: error\n" + sse.format_event(json.dumps(exception).encode())


def frame(headers: Mapping[str, str], payload: Any) -> bytes:
    """https://smithy.io/2.0/aws/amazon-eventstream.html"""
    header_block = b"".join(
        bytes([len(name)]) + name.encode() + b"\x07" + len(value).to_bytes(2, "big") + value.encode()
        for name, value in headers.items()
    )
    payload_bytes = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    prelude = (16 + len(header_block) + len(payload_bytes)).to_bytes(4, "big") + len(header_block).to_bytes(4, "big")
    head = prelude + zlib.crc32(prelude).to_bytes(4, "big") + header_block + payload_bytes
    return head + zlib.crc32(head).to_bytes(4, "big")


def _request(model: str, body: dict[str, Any], *, streams: bool) -> Request:
    config, inference = body.get("toolConfig", {}), body.get("inferenceConfig", {})
    claude = body.get("additionalModelRequestFields", {}).get("tool_choice", {})
    form = body.get("outputConfig", {}).get("textFormat")
    return Request(
        model=model,
        system=tuple(block["text"] for block in body.get("system", ())),
        turns=semantics.merge_turns(
            [(m["role"] == "assistant", _unsigned_parts(m["content"])) for m in body["messages"]]
        ),
        tools=tuple(_tool(tool["toolSpec"]) for tool in config.get("tools", ())),
        choice=_choice(config.get("toolChoice"), claude),
        one_call_at_a_time=claude.get("disable_parallel_tool_use", False),
        schema=json.loads(form["structure"]["jsonSchema"]["schema"]) if form else None,
        max_tokens=inference.get("maxTokens"),
        temperature=inference.get("temperature"),
        top_p=inference.get("topP"),
        stop=tuple(inference.get("stopSequences", ())),
        streams=streams,
    )


def _choice(tool_choice: dict[str, Any] | None, claude: dict[str, Any]) -> str | None:
    assert not (tool_choice and claude), "the additional field tool_choice/type conflicts with toolConfig.toolChoice"
    kind = next(iter(tool_choice), None) if tool_choice else claude.get("type")
    name = (tool_choice or {}).get("tool", claude).get("name")
    return f"[{name}]" if kind == "tool" else CHOICES.get(kind or "")


def _tool(spec: dict[str, Any]) -> Tool:
    return Tool(spec["name"], spec.get("description"), spec["inputSchema"]["json"])


def _unsigned_parts(content: list[dict[str, Any]]) -> list[semantics.Part]:
    """All blocks except reasoning, which OpenAI's format does not support."""
    return [_part(block) for block in content if "reasoningContent" not in block]


def _part(block: dict[str, Any]) -> semantics.Part:
    ((kind, content),) = block.items()
    match kind:
        case "text":
            return TextPart(content)
        case "image" | "document":
            return MediaPart(content["source"]["bytes"], MEDIA[content["format"]])
        case "toolUse":
            return ToolCall(content["toolUseId"], content["name"], content["input"])
        case "toolResult":
            return ToolResult(content["toolUseId"], "".join(part["text"] for part in content["content"]))
        case _:
            raise AssertionError(kind)


def _blocks(response: Response) -> Iterator[dict[str, Any]]:
    if response.reasoning:
        yield {"reasoningContent": {"reasoningText": {"text": response.reasoning, "signature": "c2lnbmVk"}}}
    if response.text:
        yield {"text": response.text}
    for call in response.calls:
        yield {"toolUse": {"toolUseId": call.id, "name": call.name, "input": call.arguments}}


def _usage(response: Response) -> dict[str, Any]:
    usage = response.usage
    input_usage = {"inputTokens": usage.prompt - usage.cached, "cacheReadInputTokens": usage.cached}
    return input_usage | {"outputTokens": usage.completion, "totalTokens": usage.prompt + usage.completion}


def _events(response: Response) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "messageStart", {"role": "assistant"}
    for index, block in enumerate(_blocks(response)):
        index_field = {"contentBlockIndex": index}
        ((kind, content),) = block.items()
        if kind == "toolUse":
            start = {name: content[name] for name in ("toolUseId", "name")}
            yield "contentBlockStart", {"start": {"toolUse": start}, **index_field}
        for delta in _deltas(kind, content):
            yield "contentBlockDelta", {"delta": delta, **index_field}
        yield "contentBlockStop", index_field
    yield "messageStop", {"stopReason": STOPS[response.finish]}
    yield "metadata", {"usage": _usage(response), "metrics": {"latencyMs": 12}}


def _deltas(kind: str, content: Any) -> Iterator[dict[str, Any]]:
    if kind == "text":
        yield from ({"text": chunk} for chunk in _split_text(content))
    elif kind == "toolUse":
        yield from (
            {"toolUse": {"input": chunk}}
            for chunk in (_split_text(json.dumps(content["input"])) if content["input"] else [])
        )
    else:
        reasoning = content["reasoningText"]
        yield from ({"reasoningContent": {"text": chunk}} for chunk in _split_text(reasoning["text"]))
        yield {"reasoningContent": {"signature": reasoning["signature"]}}


def _split_text(text: str) -> list[str]:
    return [text[start : start + CHUNK_CHARS] for start in range(0, len(text), CHUNK_CHARS)]

"""Amazon Bedrock as its own service speaks, judged by botocore's own model of it.

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

from aiserver.providers.bedrock import BEDROCK
from aiserver.providers.http import ProviderRequest
from aiserver.wire import sse
from tests.providers.fake_provider import Said
from tests.vendors import semantics
from tests.vendors.botocore_validator import problems
from tests.vendors.semantics import Answer, Called, Media, Request, Result, ToolOffered, Words

API = botocore.session.get_session().get_service_model("bedrock-runtime")
ASKED = API.operation_model("Converse").input_shape
ANSWERED = API.operation_model("Converse").output_shape
STREAMED = API.operation_model("ConverseStream").output_shape
STOPS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "content_filtered"}
ERRORS = {
    error.metadata["error"]["httpStatusCode"]: error.name for error in API.operation_model("Converse").error_shapes
}
MEDIA = {"png": "image/png", "jpeg": "image/jpeg", "gif": "image/gif", "webp": "image/webp", "pdf": "application/pdf"}
CHOICES = {"auto": "auto", "any": "required"}
PIECE = 3  # letters of a text that come at once


class BedrockDialect:
    """dialect.Dialect"""

    type = "bedrock"
    vendor = BEDROCK
    model = "us.anthropic.claude-sonnet-4-6"
    has_urls = False
    counts_reasoning = False
    stream_type = "application/vnd.amazon.eventstream"
    headers: Mapping[str, str] = MappingProxyType({"x-amzn-requestid": "req_1"})

    def credential(self, key: str) -> tuple[str, str]:
        return "authorization", f"Bearer {key}"

    def listing(self, models: list[str]) -> bytes:
        raise NotImplementedError

    def read(self, asked: ProviderRequest) -> Request:
        path = re.fullmatch(r"/model/([^/]+)/converse(-stream)?", asked.path)
        assert (asked.method, path is not None) == ("POST", True)
        assert path
        model, body = unquote(path[1]), json.loads(asked.body or b"")
        assert path[1] == quote(model, safe="")
        assert problems({"modelId": model, **body}, ASKED) == []
        assert not path[2] or asked.headers["accept"] == self.stream_type
        return _request(model, body, streams=bool(path[2]))

    def turns(self, sent: dict[str, Any]) -> list[Any]:
        return [turn["content"] for turn in sent["messages"] if turn["role"] == "assistant"]

    def turn(self, message: dict[str, Any]) -> Any:
        return message["output"]["message"]["content"]

    def message(self, answer: Answer) -> bytes:
        told = {
            "output": {"message": {"role": "assistant", "content": list(_blocks(answer))}},
            "stopReason": STOPS[answer.finish],
            "usage": _usage(answer),
            "metrics": {"latencyMs": 12},
        }
        assert problems(told, ANSWERED) == []
        return json.dumps(told).encode()

    def events(self, answer: Answer) -> list[bytes]:
        """Each is filled up, as Bedrock does it."""
        told = [{name: {**said, "p": "abcdefgh"}} for name, said in _events(answer)]
        for (name, said), *_ in (event.items() for event in told):
            assert problems({"stream": {name: {k: v for k, v in said.items() if k != "p"}}}, STREAMED) == []
        return [sse.format_event(json.dumps(event).encode()) for event in told]

    def framed(self, event: bytes) -> bytes:
        """What is no event of Bedrock's stands in a frame that says it is one."""
        try:
            ((name, said),) = json.loads(sse.event_data(event)).items()
        except (ValueError, AttributeError):
            name, said = "contentBlockDelta", sse.event_data(event)
        kind = ("exception", ":exception-type") if sse.is_error_event(event) else ("event", ":event-type")
        return frame({":message-type": kind[0], kind[1]: name, ":content-type": "application/json"}, said)

    def error(self, status: int, message: str) -> Said:
        kind = ERRORS.get(status, "UnknownException")
        headers = {
            "content-type": "application/json",
            "x-amzn-errortype": f"{kind}:http://amazonaws.com/",
            **self.headers,
        }
        wait = {"retry-after": "7"} if status == 429 else {}
        return Said(status, json.dumps({"message": message}).encode(), headers | wait)

    def failure(self, message: str) -> bytes:
        failed = {"serviceUnavailableException": {"message": message}}
        assert problems({"stream": failed}, STREAMED) == []
        return b"event: error\n" + sse.format_event(json.dumps(failed).encode())


def frame(headers: Mapping[str, str], said: Any) -> bytes:
    """https://smithy.io/2.0/aws/amazon-eventstream.html"""
    told = b"".join(
        bytes([len(name)]) + name.encode() + b"\x07" + len(value).to_bytes(2, "big") + value.encode()
        for name, value in headers.items()
    )
    payload = said if isinstance(said, bytes) else json.dumps(said).encode()
    prelude = (16 + len(told) + len(payload)).to_bytes(4, "big") + len(told).to_bytes(4, "big")
    head = prelude + zlib.crc32(prelude).to_bytes(4, "big") + told + payload
    return head + zlib.crc32(head).to_bytes(4, "big")


def _request(model: str, body: dict[str, Any], *, streams: bool) -> Request:
    config, inference = body.get("toolConfig", {}), body.get("inferenceConfig", {})
    claude = body.get("additionalModelRequestFields", {}).get("tool_choice", {})
    form = body.get("outputConfig", {}).get("textFormat")
    return Request(
        model=model,
        system=tuple(block["text"] for block in body.get("system", ())),
        turns=semantics.turns([(m["role"] == "assistant", _spoken(m["content"])) for m in body["messages"]]),
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


def _choice(said: dict[str, Any] | None, claude: dict[str, Any]) -> str | None:
    assert not (said and claude), "the additional field tool_choice/type conflicts with toolConfig.toolChoice"
    kind = next(iter(said), None) if said else claude.get("type")
    name = (said or {}).get("tool", claude).get("name")
    return f"[{name}]" if kind == "tool" else CHOICES.get(kind or "")


def _tool(spec: dict[str, Any]) -> ToolOffered:
    return ToolOffered(spec["name"], spec.get("description"), spec["inputSchema"]["json"])


def _spoken(content: list[dict[str, Any]]) -> list[semantics.Said]:
    """All but what is signed: OpenAI has no words for it."""
    return [_said(block) for block in content if "reasoningContent" not in block]


def _said(block: dict[str, Any]) -> semantics.Said:
    ((kind, said),) = block.items()
    match kind:
        case "text":
            return Words(said)
        case "image" | "document":
            return Media(said["source"]["bytes"], MEDIA[said["format"]])
        case "toolUse":
            return Called(said["toolUseId"], said["name"], said["input"])
        case "toolResult":
            return Result(said["toolUseId"], "".join(part["text"] for part in said["content"]))
        case _:
            raise AssertionError(kind)


def _blocks(answer: Answer) -> Iterator[dict[str, Any]]:
    if answer.reasoning:
        yield {"reasoningContent": {"reasoningText": {"text": answer.reasoning, "signature": "c2lnbmVk"}}}
    if answer.text:
        yield {"text": answer.text}
    for call in answer.calls:
        yield {"toolUse": {"toolUseId": call.id, "name": call.name, "input": call.arguments}}


def _usage(answer: Answer) -> dict[str, Any]:
    spent = answer.spent
    counted = {"inputTokens": spent.prompt - spent.cached, "cacheReadInputTokens": spent.cached}
    return counted | {"outputTokens": spent.completion, "totalTokens": spent.prompt + spent.completion}


def _events(answer: Answer) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "messageStart", {"role": "assistant"}
    for index, block in enumerate(_blocks(answer)):
        place = {"contentBlockIndex": index}
        ((kind, said),) = block.items()
        if kind == "toolUse":
            start = {name: said[name] for name in ("toolUseId", "name")}
            yield "contentBlockStart", {"start": {"toolUse": start}, **place}
        for delta in _deltas(kind, said):
            yield "contentBlockDelta", {"delta": delta, **place}
        yield "contentBlockStop", place
    yield "messageStop", {"stopReason": STOPS[answer.finish]}
    yield "metadata", {"usage": _usage(answer), "metrics": {"latencyMs": 12}}


def _deltas(kind: str, said: Any) -> Iterator[dict[str, Any]]:
    if kind == "text":
        yield from ({"text": piece} for piece in _cut(said))
    elif kind == "toolUse":
        yield from (
            {"toolUse": {"input": piece}} for piece in (_cut(json.dumps(said["input"])) if said["input"] else [])
        )
    else:
        thought = said["reasoningText"]
        yield from ({"reasoningContent": {"text": piece}} for piece in _cut(thought["text"]))
        yield {"reasoningContent": {"signature": thought["signature"]}}


def _cut(text: str) -> list[str]:
    return [text[at : at + PIECE] for at in range(0, len(text), PIECE)]

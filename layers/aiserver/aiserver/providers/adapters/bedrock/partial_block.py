"""Rebuilds a content block from the deltas of a stream, as in a complete message, so that clients can send it back.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ContentBlockDelta.html
"""

import base64
import binascii
from typing import Any

import msgspec
from msgspec import Raw

from aiserver.providers.adapters.base.messages import decode_members
from aiserver.providers.adapters.base.nulls import is_absent, null_tolerant_decoder
from aiserver.providers.adapters.bedrock.response import Members, ToolUse


class Delta(msgspec.Struct):
    """The part of a delta that OpenAI's format contains."""

    text: str = ""
    reasoning: str = ""
    input: str = ""


class _ReasoningDelta(msgspec.Struct, rename="camel"):
    text: str = ""
    signature: str = ""
    redacted_content: str = ""


class _Input(msgspec.Struct):
    input: str = ""


_reasoning_delta = null_tolerant_decoder(_ReasoningDelta)
_input = null_tolerant_decoder(_Input)
_tool = null_tolerant_decoder(ToolUse)
_text = msgspec.json.Decoder(str)
_list = msgspec.json.Decoder(list[Raw])


class PartialBlock:
    """A content block, as received so far. `tool` is the caller's tool call, `call_index` its index among all calls.

    `is_dropped` marks tool calls after the first one when the caller wants a single tool call.
    """

    def __init__(self) -> None:
        self.tool: ToolUse | None = None
        self.call_index: int | None = None
        self.is_closed = False
        self.is_dropped = False
        self._kind = "text"
        self._start: Members = {}
        self._deltas: dict[str, list[str]] = {}
        self._parts: list[Raw] = []  # citations, or results of a tool that Bedrock runs

    def start(self, start: Members) -> None:
        for kind, raw in start.items():
            if is_absent(raw):
                continue
            self._kind = kind
            self._start = {name: value for name, value in decode_members(raw).items() if not is_absent(value)}
            if kind == "toolUse" and "type" not in self._start:
                self.tool = _tool(raw)

    def append(self, delta: Members) -> Delta:
        for kind, raw in delta.items():
            match kind if not is_absent(raw) else None:
                case "text":
                    return Delta(text=self._append_text("text", _text.decode(raw)))
                case "toolUse":
                    return Delta(input=self._append_text("input", _input(raw).input))
                case "reasoningContent":
                    return self._append_reasoning(_reasoning_delta(raw))
                case "citation":
                    self._kind = "citationsContent"
                    self._parts.append(raw)
                case "toolResult":
                    self._parts += _list.decode(raw)
                case "image":
                    self._append_image(decode_members(raw))
                case _:  # a kind that Bedrock adds
                    pass
        return Delta()

    @property
    def has_input(self) -> bool:
        return bool(self._text_of("input"))

    @property
    def is_empty(self) -> bool:
        """Whether nothing can be sent back: no text, or a tool input that is incomplete JSON."""
        return not self._text_of("text") if self._kind == "text" else self._kind == "toolUse" and self._is_truncated

    @property
    def _is_truncated(self) -> bool:
        try:
            decode_members(self._text_of("input") or "{}")
        except msgspec.DecodeError:
            return True
        return False

    @property
    def is_plain(self) -> bool:
        """Whether OpenAI's format contains the complete block."""
        is_known = self._kind == "text" or self.tool is not None or self._kind == "reasoningContent"
        return is_known and not (self._text_of("signature") or self._text_of("redactedContent"))

    @property
    def to_block(self) -> dict[str, Any]:
        """The block as in a complete message."""
        match self._kind:
            case "reasoningContent":
                return {self._kind: self._reasoning_content}
            case "citationsContent":
                return {self._kind: {"content": [{"text": self._text_of("text")}], "citations": self._parts}}
            case "toolUse":
                return {self._kind: self._start | {"input": Raw(self._text_of("input").encode() or b"{}")}}
            case "toolResult":
                return {self._kind: {**self._start, "content": self._parts}}
            case "image":
                source = {"source": {"bytes": self._join_base64("image")}} if "image" in self._deltas else {}
                return {self._kind: {**self._start, **source}}
            case _:
                return {"text": self._text_of("text")}

    @property
    def _reasoning_content(self) -> dict[str, Any]:
        if "redactedContent" in self._deltas:
            return {"redactedContent": self._join_base64("redactedContent")}
        signature = self._text_of("signature")
        return {"reasoningText": {"text": self._text_of("text")} | ({"signature": signature} if signature else {})}

    def _append_reasoning(self, delta: _ReasoningDelta) -> Delta:
        self._kind = "reasoningContent"
        self._append_text("signature", delta.signature)
        self._append_text("redactedContent", delta.redacted_content)
        return Delta(reasoning=self._append_text("text", delta.text))

    def _append_image(self, image: Members) -> None:
        source = decode_members(image.pop("source", b"{}"))
        if "bytes" in source:
            self._append_text("image", _text.decode(source.pop("bytes")))
        self._start |= image | ({"source": Raw(msgspec.json.encode(source))} if source else {})

    def _append_text(self, name: str, text: str) -> str:
        if text:
            self._deltas.setdefault(name, []).append(text)
        return text

    def _text_of(self, name: str) -> str:
        return "".join(self._deltas.get(name, ()))

    def _join_base64(self, name: str) -> str:
        """Join chunks that are base64-encoded, and padded, one by one."""
        try:
            decoded = b"".join(base64.b64decode(chunk) for chunk in self._deltas[name])
        except binascii.Error:
            raise msgspec.DecodeError("invalid base64") from None
        return base64.b64encode(decoded).decode()

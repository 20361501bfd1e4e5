"""A block of content that comes in pieces, as it would stand in a whole message: so it can be sent back.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ContentBlockDelta.html
"""

import base64
import binascii
from typing import Any

import msgspec
from msgspec import Raw

from aiserver.providers.bedrock.response import Members, ToolUse
from aiserver.providers.translation.messages import members
from aiserver.providers.translation.nulls import is_absent, reader


class Piece(msgspec.Struct):
    """What OpenAI has words for in a piece."""

    text: str = ""
    reasoning: str = ""
    input: str = ""


class _Thought(msgspec.Struct, rename="camel"):
    text: str = ""
    signature: str = ""
    redacted_content: str = ""


class _Input(msgspec.Struct):
    input: str = ""


_thought = reader(_Thought)
_input = reader(_Input)
_tool = reader(ToolUse)
_text = msgspec.json.Decoder(str)
_list = msgspec.json.Decoder(list[Raw])


class Open:
    """A block till now. `tool` is what the caller is to call by it, `call` the place of that among all calls.

    One is dropped that calls beyond the first where the caller wants one call.
    """

    def __init__(self) -> None:
        self.tool: ToolUse | None = None
        self.call: int | None = None
        self.is_closed = False
        self.is_dropped = False
        self._kind = "text"
        self._start: Members = {}
        self._said: dict[str, list[str]] = {}
        self._parts: list[Raw] = []  # citations, or what a tool that Bedrock runs gave back

    def begin(self, start: Members) -> None:
        for kind, raw in start.items():
            if is_absent(raw):
                continue
            self._kind = kind
            self._start = {name: value for name, value in members(raw).items() if not is_absent(value)}
            if kind == "toolUse" and "type" not in self._start:
                self.tool = _tool(raw)

    def add(self, delta: Members) -> Piece:
        for kind, raw in delta.items():
            match kind if not is_absent(raw) else None:
                case "text":
                    return Piece(text=self._heard("text", _text.decode(raw)))
                case "toolUse":
                    return Piece(input=self._heard("input", _input(raw).input))
                case "reasoningContent":
                    return self._think(_thought(raw))
                case "citation":
                    self._kind = "citationsContent"
                    self._parts.append(raw)
                case "toolResult":
                    self._parts += _list.decode(raw)
                case "image":
                    self._see(members(raw))
                case _:  # what Bedrock adds
                    pass
        return Piece()

    @property
    def has_input(self) -> bool:
        return bool(self._joined("input"))

    @property
    def is_empty(self) -> bool:
        """Whether it says nothing that could be sent back: a tool's input that breaks off is no JSON."""
        return not self._joined("text") if self._kind == "text" else self._kind == "toolUse" and self._is_cut

    @property
    def _is_cut(self) -> bool:
        try:
            members(self._joined("input") or "{}")
        except msgspec.DecodeError:
            return True
        return False

    @property
    def is_plain(self) -> bool:
        """Whether OpenAI's words say all of it."""
        is_known = self._kind == "text" or self.tool is not None or self._kind == "reasoningContent"
        return is_known and not (self._joined("signature") or self._joined("redactedContent"))

    @property
    def told(self) -> dict[str, Any]:
        """The block as it would stand in a whole message."""
        match self._kind:
            case "reasoningContent":
                return {self._kind: self._thought}
            case "citationsContent":
                return {self._kind: {"content": [{"text": self._joined("text")}], "citations": self._parts}}
            case "toolUse":
                return {self._kind: self._start | {"input": Raw(self._joined("input").encode() or b"{}")}}
            case "toolResult":
                return {self._kind: {**self._start, "content": self._parts}}
            case "image":
                seen = {"source": {"bytes": self._bytes("image")}} if "image" in self._said else {}
                return {self._kind: {**self._start, **seen}}
            case _:
                return {"text": self._joined("text")}

    @property
    def _thought(self) -> dict[str, Any]:
        if "redactedContent" in self._said:
            return {"redactedContent": self._bytes("redactedContent")}
        signature = self._joined("signature")
        return {"reasoningText": {"text": self._joined("text")} | ({"signature": signature} if signature else {})}

    def _think(self, thought: _Thought) -> Piece:
        self._kind = "reasoningContent"
        self._heard("signature", thought.signature)
        self._heard("redactedContent", thought.redacted_content)
        return Piece(reasoning=self._heard("text", thought.text))

    def _see(self, image: Members) -> None:
        source = members(image.pop("source", b"{}"))
        if "bytes" in source:
            self._heard("image", _text.decode(source.pop("bytes")))
        self._start |= image | ({"source": Raw(msgspec.json.encode(source))} if source else {})

    def _heard(self, name: str, piece: str) -> str:
        if piece:
            self._said.setdefault(name, []).append(piece)
        return piece

    def _joined(self, name: str) -> str:
        return "".join(self._said.get(name, ()))

    def _bytes(self, name: str) -> str:
        """Pieces in base64, each with an end of its own, as one."""
        try:
            whole = b"".join(base64.b64decode(piece) for piece in self._said[name])
        except binascii.Error:
            raise msgspec.DecodeError("no base64") from None
        return base64.b64encode(whole).decode()

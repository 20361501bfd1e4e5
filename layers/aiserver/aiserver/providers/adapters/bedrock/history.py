"""Content blocks of earlier Converse responses, changed where Converse would reject them.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ContentBlock.html
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Raw

from aiserver.providers.adapters.base.messages import ToolCall, decode_members
from aiserver.providers.adapters.base.nulls import null_tolerant_decoder
from aiserver.providers.adapters.base.tool_call_ids import restore_call_ids


class _ToolUse(msgspec.Struct, rename="camel"):
    tool_use_id: str = ""
    name: str = ""
    type: str | None = None


class _Document(msgspec.Struct):
    name: str | None = None


class _Block(msgspec.Struct, rename="camel"):
    text: str | None = None
    tool_use: _ToolUse | None = None
    document: _Document | None = None

    @property
    def call(self) -> _ToolUse | None:
        """A call of one of the caller's tools, not of a tool that Bedrock runs."""
        return self.tool_use if self.tool_use and self.tool_use.type is None else None


_block = null_tolerant_decoder(_Block)


def restore_blocks(content: list[Raw], calls: Sequence[ToolCall]) -> list[Any]:
    """The blocks without blank texts, which Bedrock rejects; a call gets the id that its result has in this request."""
    blocks = [_decode_block(raw) for raw in content]
    ids = restore_call_ids([(block.call.name, block.call.tool_use_id) for block in blocks if block.call], calls)
    restored: list[Any] = []
    for raw, block in zip(content, blocks, strict=True):
        id = next(ids) if block.call else ""
        if block.call and id != block.call.tool_use_id:
            restored.append({"toolUse": decode_members(decode_members(raw)["toolUse"]) | {"toolUseId": id}})
        elif block.text is None or block.text.strip():
            restored.append(raw)
    return restored


def document_name(raw: Raw) -> str | None:
    """The name of a document block; None for other blocks."""
    document = _decode_block(raw).document
    return document.name if document else None


def _decode_block(raw: Raw) -> _Block:
    try:
        return _block(raw)
    except msgspec.ValidationError:
        return _Block()  # Bedrock reports the error

"""Blocks of content as Converse said them, sent back: what of them must change for Converse to take them.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ContentBlock.html
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Raw

from aiserver.providers.translation.messages import ToolCall, decode_members
from aiserver.providers.translation.nulls import null_tolerant_decoder
from aiserver.providers.translation.tool_call_ids import restore_call_ids


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
        """A call of one of the caller's tools, not of one that Bedrock runs."""
        return self.tool_use if self.tool_use and self.tool_use.type is None else None


_block = null_tolerant_decoder(_Block)


def restore_blocks(content: list[Raw], calls: Sequence[ToolCall]) -> list[Any]:
    """The blocks less blank texts, which Bedrock does not take back; a call has the id that its result has here."""
    read = [_decode_block(raw) for raw in content]
    ids = restore_call_ids([(one.call.name, one.call.tool_use_id) for one in read if one.call], calls)
    kept: list[Any] = []
    for raw, one in zip(content, read, strict=True):
        id = next(ids) if one.call else ""
        if one.call and id != one.call.tool_use_id:
            kept.append({"toolUse": decode_members(decode_members(raw)["toolUse"]) | {"toolUseId": id}})
        elif one.text is None or one.text.strip():
            kept.append(raw)
    return kept


def document_name(raw: Raw) -> str | None:
    """The name of the document that a block is."""
    document = _decode_block(raw).document
    return document.name if document else None


def _decode_block(raw: Raw) -> _Block:
    try:
        return _block(raw)
    except msgspec.ValidationError:
        return _Block()  # Bedrock says what is wrong with it

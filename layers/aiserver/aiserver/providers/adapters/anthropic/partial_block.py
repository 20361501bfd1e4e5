"""Rebuilds a content block from the deltas of a stream, as in a complete message, so that clients can send it back.

Source: https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from typing import Any

import msgspec
from msgspec import Raw

from aiserver.providers.adapters.anthropic.response import Block, decode_block
from aiserver.providers.adapters.base.messages import Members, decode_members, optional_members


class PartialBlock:
    """A content block, as received so far."""

    def __init__(self, raw: Raw, call_index: int | None) -> None:
        self.block: Block = decode_block(raw)
        self.call_index = call_index  # the index of the tool call among all calls
        self.start_members: dict[str, Any] = optional_members(raw)
        self._deltas: dict[str, list[str]] = {}
        self._citations: list[Raw] = []
        self._unknown_members: Members = {}

    def append(self, name: str, text: str) -> None:
        self._deltas.setdefault(name, []).append(text)

    def has_content(self, name: str) -> bool:
        return any(self._deltas.get(name, ()))

    def add_members(self, delta: Members) -> None:
        """Add the members of a delta of an unknown type to the block."""
        self._unknown_members |= {name: value for name, value in delta.items() if name != "type"}

    @property
    def is_truncated(self) -> bool:
        """Whether the tool input is incomplete JSON, as in a response that breaks off."""
        if "input" not in self.start_members:
            return False
        try:
            decode_members(self.arguments)
        except msgspec.DecodeError:
            return True
        return False

    def add_citation(self, citation: Raw) -> None:
        self._citations.append(citation)

    @property
    def is_plain(self) -> bool:
        return self.block.is_plain and not self._citations

    @property
    def arguments(self) -> str:
        """The complete arguments of the tool call, as JSON text."""
        return "".join(self._deltas.get("input", ())) or self.block.arguments

    @property
    def to_block(self) -> dict[str, Any]:
        """The block as in a complete message."""
        members: dict[str, Any] = {name: "".join(texts) for name, texts in self._deltas.items()}
        for name in ("text", "thinking"):
            if name in members:
                members[name] = getattr(self.block, name) + members[name]
        if "input" in self.start_members:
            members["input"] = Raw(self.arguments.encode())
        members |= self._unknown_members
        return self.start_members | members | ({"citations": self._citations} if self._citations else {})

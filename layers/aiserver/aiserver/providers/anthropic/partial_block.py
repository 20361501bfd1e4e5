"""A block of content that comes in pieces, as it would stand in a whole message: so it can be sent back.

Source: https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from typing import Any

import msgspec
from msgspec import Raw

from aiserver.providers.anthropic.response import Block, decode_block
from aiserver.providers.translation.messages import Members, decode_members, optional_members


class PartialBlock:
    """A block of content till now."""

    def __init__(self, raw: Raw, call: int | None) -> None:
        self.block: Block = decode_block(raw)
        self.call_index = call  # the place of the tool's call among all calls
        self.start_members: dict[str, Any] = optional_members(raw)
        self._pieces: dict[str, list[str]] = {}
        self._citations: list[Raw] = []
        self._more: Members = {}

    def append(self, name: str, piece: str) -> None:
        self._pieces.setdefault(name, []).append(piece)

    def has_content(self, name: str) -> bool:
        return any(self._pieces.get(name, ()))

    def add_members(self, delta: Members) -> None:
        """What is said by a delta that is not known here: its members are the block's."""
        self._more |= {name: value for name, value in delta.items() if name != "type"}

    @property
    def is_truncated(self) -> bool:
        """Whether a tool's input breaks off, as it may where the answer does: then it is no JSON."""
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
        """The JSON text that a tool is called with, of which all has come."""
        return "".join(self._pieces.get("input", ())) or self.block.arguments

    @property
    def to_block(self) -> dict[str, Any]:
        """The block as it would stand in a whole message."""
        said: dict[str, Any] = {name: "".join(pieces) for name, pieces in self._pieces.items()}
        for name in ("text", "thinking"):
            if name in said:
                said[name] = getattr(self.block, name) + said[name]
        if "input" in self.start_members:
            said["input"] = Raw(self.arguments.encode())
        said |= self._more
        return self.start_members | said | ({"citations": self._citations} if self._citations else {})

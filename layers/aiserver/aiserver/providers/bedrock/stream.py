"""An answer of Converse's as it streams, in OpenAI's events.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStreamOutput.html
"""

from typing import Any

import msgspec

from aiserver.providers.bedrock.capabilities import STOPS
from aiserver.providers.bedrock.partial_block import Open
from aiserver.providers.bedrock.response import Members, fail_by, own, usage
from aiserver.providers.translation.adapter import Born, Failed, NoAnswer
from aiserver.providers.translation.chat import Chat
from aiserver.providers.translation.completion import Chunks, Usage
from aiserver.providers.translation.messages import NOTHING, members, members_if_any
from aiserver.providers.translation.nulls import is_absent, reader
from aiserver.providers.translation.size_limits import check
from aiserver.wire import sse

# What fills an event up, so that its length tells nothing: https://github.com/aws/aws-sdk-js-v3/issues/6919
PADDING = "p"


class _Placed(msgspec.Struct, rename="camel"):
    """An event of one block of content."""

    content_block_index: int | None = None
    start: Members = {}
    delta: Members = {}


_placed = reader(_Placed)


class BedrockEvents:
    """vendor.Events. The answer's end waits for the metadata that comes after it, or for the end of the stream."""

    def __init__(self, chat: Chat, born: Born) -> None:
        self.usage: str | None = None
        self.pieces = 0
        self.is_whole = False
        self.is_over = False
        self.request_id: str | None = None  # it comes as a header
        self._chunks = Chunks(born.created_s, shows_usage=chat.shows_usage)
        self._chunks.id, self._chunks.model = born.id, born.model
        self._born = born
        self._blocks: dict[int, Open] = {}
        self._calls = 0
        self._root: Members = {}
        self._stop_reason = ""
        self._used: Usage | None = None

    def told(self, event: bytes) -> bytes:
        data = sse.data(event)
        if not data.strip():
            return b""
        if sse.names_error(event):
            raise Failed(data, has_begun=bool(self._blocks))
        name, payload = next(iter(members(data).items()), ("", NOTHING))
        match name:
            case "contentBlockStart":
                return self._open(_placed(payload))
            case "contentBlockDelta":
                return self._add(_placed(payload))
            case "contentBlockStop":
                return self._close(self._block(_placed(payload)))
            case "messageStop":
                return self._stop(members_if_any(payload))
            case "metadata":
                return self._finish(members_if_any(payload))
            case _:  # the message's start, which says nothing; or what Bedrock adds
                return b""

    def ended(self) -> bytes:
        """The end of the answer, whose metadata has not come."""
        return self._told_end() + self._chunks.end(self._used)

    def _block(self, said: _Placed) -> Open:
        """Only some blocks have a start."""
        block = self._blocks.setdefault(said.content_block_index or 0, Open())
        check(len(self._blocks))
        return block

    def _open(self, said: _Placed) -> bytes:
        block = self._block(said)
        block.begin(said.start)
        if block.tool is None:
            return b""
        if self._calls and self._born.one_call:
            block.is_dropped = True
            return b""
        block.call, self._calls = self._calls, self._calls + 1
        function = {"name": block.tool.name, "arguments": ""}
        called = {"id": block.tool.tool_use_id or self._born.call_id(), "type": "function", "function": function}
        return self._say(tool_calls=[{"index": block.call, **called}])

    def _add(self, said: _Placed) -> bytes:
        if said.content_block_index is None and not said.delta:
            raise NoAnswer
        block = self._block(said)
        piece = block.add(said.delta)
        if piece.text:
            return self._say(content=piece.text)
        if piece.reasoning:
            return self._say(reasoning_content=piece.reasoning)
        return self._argue(block, piece.input) if piece.input else b""

    def _close(self, block: Open) -> bytes:
        """A tool that is called with nothing has had no piece of its input told."""
        if block.is_closed:
            return b""
        block.is_closed = True
        return b"" if block.has_input else self._argue(block, "{}")

    def _argue(self, block: Open, arguments: str) -> bytes:
        if block.call is None:
            return b""
        return self._say(tool_calls=[{"index": block.call, "function": {"arguments": arguments}}])

    def _stop(self, said: Members) -> bytes:
        reason = said.pop("stopReason", NOTHING)
        self._stop_reason = "" if is_absent(reason) else msgspec.json.decode(reason, type=str)
        fail_by(self._stop_reason)
        if not self._blocks and not self._stop_reason:
            raise NoAnswer
        self._root |= said
        self.is_whole = True
        return b"".join(self._close(block) for block in self._blocks.values())

    def _finish(self, said: Members) -> bytes:
        self._root |= said
        if not is_absent(counted := said.get("usage", NOTHING)):
            self._used = usage(counted)
            self.usage = self._used.text
        self.is_over = self.is_whole
        return self.ended() if self.is_over else b""

    def _told_end(self) -> bytes:
        blocks = [self._blocks[index] for index in sorted(self._blocks) if not self._blocks[index].is_dropped]
        content = (
            [] if all(block.is_plain for block in blocks) else [block.told for block in blocks if not block.is_empty]
        )
        more: dict[str, Any] = {"bedrock": {"content": content}} if content else {}
        root: Members = {name: value for name, value in self._root.items() if name != PADDING}
        finish = STOPS.get(self._stop_reason, "stop")
        return self._chunks.delta(finish=finish, own=own(root, self._stop_reason), **more)

    def _say(self, **said: Any) -> bytes:
        self.pieces += 1
        return self._chunks.delta(**said)

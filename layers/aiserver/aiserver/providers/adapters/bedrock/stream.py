"""Maps the events of Converse's streams to OpenAI's.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStreamOutput.html
"""

from typing import Any

import msgspec

from aiserver.providers.adapters.base.adapter import ResponseContext, UnusableResponse, VendorError
from aiserver.providers.adapters.base.completion import ChunkBuilder, Usage
from aiserver.providers.adapters.base.messages import ABSENT, decode_members, optional_members
from aiserver.providers.adapters.base.nulls import is_absent, null_tolerant_decoder
from aiserver.providers.adapters.base.size_limits import check_block_count
from aiserver.providers.adapters.bedrock.capabilities import FINISH_REASONS
from aiserver.providers.adapters.bedrock.partial_block import PartialBlock
from aiserver.providers.adapters.bedrock.response import Members, map_usage, raise_for_stop_reason, vendor_extensions
from aiserver.wire import sse

# The member that pads events, so that their length reveals nothing: https://github.com/aws/aws-sdk-js-v3/issues/6919
PADDING = "p"


class _BlockEvent(msgspec.Struct, rename="camel"):
    """An event of one content block."""

    content_block_index: int | None = None
    start: Members = {}
    delta: Members = {}


_block_event = null_tolerant_decoder(_BlockEvent)


class BedrockEventMapper:
    """The EventMapper of Bedrock; the final chunk waits for the metadata event, or the end of the stream."""

    def __init__(self, context: ResponseContext) -> None:
        self.usage: str | None = None
        self.content_events = 0
        self.is_complete = False
        self.is_done = False
        self.request_id: str | None = None  # Bedrock sends it as a header
        self._chunks = ChunkBuilder(context.created_s, include_usage=context.include_usage)
        self._chunks.id, self._chunks.model = context.id, context.model
        self._context = context
        self._blocks: dict[int, PartialBlock] = {}
        self._call_count = 0
        self._root: Members = {}
        self._stop_reason = ""
        self._usage: Usage | None = None

    def on_event(self, event: bytes) -> bytes:
        data = sse.event_data(event)
        if not data.strip():
            return b""
        if sse.is_error_event(event):
            raise VendorError(data, has_content=bool(self._blocks))
        name, payload = next(iter(decode_members(data).items()), ("", ABSENT))
        match name:
            case "contentBlockStart":
                return self._on_block_start(_block_event(payload))
            case "contentBlockDelta":
                return self._on_block_delta(_block_event(payload))
            case "contentBlockStop":
                return self._on_block_stop(self._block(_block_event(payload)))
            case "messageStop":
                return self._on_message_stop(optional_members(payload))
            case "metadata":
                return self._on_metadata(optional_members(payload))
            case _:  # messageStart, which contains nothing mapped; or an event that Bedrock adds
                return b""

    def on_end(self) -> bytes:
        """The final chunk, the usage if known, and `[DONE]`."""
        return self._final_chunk() + self._chunks.end(self._usage)

    def _block(self, event: _BlockEvent) -> PartialBlock:
        """The block of an event; some blocks have no start event."""
        block = self._blocks.setdefault(event.content_block_index or 0, PartialBlock())
        check_block_count(len(self._blocks))
        return block

    def _on_block_start(self, event: _BlockEvent) -> bytes:
        block = self._block(event)
        block.start(event.start)
        if block.tool is None:
            return b""
        if self._call_count and self._context.single_tool_call:
            block.is_dropped = True
            return b""
        block.call_index, self._call_count = self._call_count, self._call_count + 1
        function = {"name": block.tool.name, "arguments": ""}
        tool_call = {
            "id": block.tool.tool_use_id or self._context.new_call_id(),
            "type": "function",
            "function": function,
        }
        return self._chunk(tool_calls=[{"index": block.call_index, **tool_call}])

    def _on_block_delta(self, event: _BlockEvent) -> bytes:
        if event.content_block_index is None and not event.delta:
            raise UnusableResponse
        block = self._block(event)
        delta = block.append(event.delta)
        if delta.text:
            return self._chunk(content=delta.text)
        if delta.reasoning:
            return self._chunk(reasoning_content=delta.reasoning)
        return self._arguments_chunk(block, delta.input) if delta.input else b""

    def _on_block_stop(self, block: PartialBlock) -> bytes:
        """Send the empty arguments of a tool call without input deltas."""
        if block.is_closed:
            return b""
        block.is_closed = True
        return b"" if block.has_input else self._arguments_chunk(block, "{}")

    def _arguments_chunk(self, block: PartialBlock, arguments: str) -> bytes:
        if block.call_index is None:
            return b""
        return self._chunk(tool_calls=[{"index": block.call_index, "function": {"arguments": arguments}}])

    def _on_message_stop(self, members: Members) -> bytes:
        reason = members.pop("stopReason", ABSENT)
        self._stop_reason = "" if is_absent(reason) else msgspec.json.decode(reason, type=str)
        raise_for_stop_reason(self._stop_reason)
        if not self._blocks and not self._stop_reason:
            raise UnusableResponse
        self._root |= members
        self.is_complete = True
        return b"".join(self._on_block_stop(block) for block in self._blocks.values())

    def _on_metadata(self, members: Members) -> bytes:
        self._root |= members
        if not is_absent(usage := members.get("usage", ABSENT)):
            self._usage = map_usage(usage)
            self.usage = self._usage.text
        self.is_done = self.is_complete
        return self.on_end() if self.is_done else b""

    def _final_chunk(self) -> bytes:
        blocks = [self._blocks[index] for index in sorted(self._blocks) if not self._blocks[index].is_dropped]
        content = (
            []
            if all(block.is_plain for block in blocks)
            else [block.to_block for block in blocks if not block.is_empty]
        )
        extensions: dict[str, Any] = {"bedrock": {"content": content}} if content else {}
        root: Members = {name: value for name, value in self._root.items() if name != PADDING}
        finish = FINISH_REASONS.get(self._stop_reason, "stop")
        return self._chunks.delta(finish=finish, extensions=vendor_extensions(root, self._stop_reason), **extensions)

    def _chunk(self, **delta: Any) -> bytes:
        self.content_events += 1
        return self._chunks.delta(**delta)

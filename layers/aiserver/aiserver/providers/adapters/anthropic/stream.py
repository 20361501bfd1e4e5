"""Maps the events of Anthropic's streams to OpenAI's.

Source: https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from typing import Any

import msgspec
from msgspec import Raw

from aiserver.providers.adapters.anthropic.capabilities import FINISH_REASONS
from aiserver.providers.adapters.anthropic.partial_block import PartialBlock
from aiserver.providers.adapters.anthropic.response import TokenUsage, decode_usage, map_usage, vendor_extensions
from aiserver.providers.adapters.base.adapter import ResponseContext, UnusableResponse, VendorError
from aiserver.providers.adapters.base.completion import ChunkBuilder
from aiserver.providers.adapters.base.messages import ABSENT, Members, optional_members
from aiserver.providers.adapters.base.nulls import is_absent, null_tolerant_decoder
from aiserver.providers.adapters.base.size_limits import check_block_count
from aiserver.wire import sse


class _Delta(msgspec.Struct):
    type: str = ""
    text: str = ""
    thinking: str = ""
    signature: str = ""
    partial_json: str = ""
    citation: Raw = ABSENT


class _Event(msgspec.Struct):
    type: str
    index: int = 0
    message: Raw = ABSENT
    content_block: Raw = ABSENT
    delta: Raw = ABSENT
    usage: Raw = ABSENT


class _MessageStart(msgspec.Struct):
    id: str = ""
    model: str = ""


MODEL_BLOCK_TYPES = ("text", "thinking", "tool_use")  # blocks of other types come from Anthropic's server tools
_event = null_tolerant_decoder(_Event)
_delta = null_tolerant_decoder(_Delta)
_message_start = null_tolerant_decoder(_MessageStart)


class AnthropicEventMapper:
    """The EventMapper of Anthropic."""

    def __init__(self, context: ResponseContext) -> None:
        self.usage: str | None = None
        self.content_events = 0
        self.is_complete = False
        self.is_done = False
        self.request_id: str | None = None
        self._chunks = ChunkBuilder(context.created_s, include_usage=context.include_usage)
        self._context = context
        self._blocks: dict[int, PartialBlock] = {}
        self._call_count = 0
        self._message: Members = {}
        self._usage_members: Members = {}
        self._usage = TokenUsage()
        self._delta: Members = {}
        self._stop_reason: str | None = None
        self._has_content = False  # also after a server tool of Anthropic's, without any text

    def on_event(self, event: bytes) -> bytes:
        data = sse.event_data(event)
        if not data.strip():
            return b""
        if sse.is_error_event(event):
            raise VendorError(data, has_content=self._has_content)
        stream_event = _event(data)
        match stream_event.type:
            case "message_start":
                return self._on_message_start(stream_event.message)
            case "content_block_start":
                return self._on_block_start(stream_event.index, stream_event.content_block)
            case "content_block_delta":
                return self._on_block_delta(self._blocks[stream_event.index], stream_event.delta)
            case "content_block_stop":
                return self._on_block_stop(self._blocks[stream_event.index])
            case "message_delta":
                return self._on_message_delta(stream_event)
            case "message_stop":
                if not self._blocks and not self._stop_reason:
                    raise UnusableResponse
                self.is_done = True
                return self.on_end()
            case "error":
                raise VendorError(data, has_content=self._has_content)
            case _:  # a ping, or an event type that Anthropic adds: https://platform.claude.com/docs/en/api/versioning
                return b""

    def on_end(self) -> bytes:
        root = self._message | self._delta | {"usage": Raw(msgspec.json.encode(self._usage_members))}
        blocks = [self._blocks[index] for index in sorted(self._blocks) if not self._blocks[index].is_truncated]
        content = [] if all(block.is_plain for block in blocks) else [block.to_block for block in blocks]
        extensions: dict[str, Any] = {"anthropic": {"content": content}} if content else {}
        finish = FINISH_REASONS.get(self._stop_reason or "", "stop")
        final_chunk = self._chunks.delta(
            finish=finish, extensions=vendor_extensions(root, self._stop_reason), **extensions
        )
        return final_chunk + self._chunks.end(map_usage(self._usage))

    def _on_message_start(self, message: Raw) -> bytes:
        start = _message_start(message)
        self._chunks.id, self._chunks.model = start.id, start.model
        self._message = optional_members(message)
        self._update_usage(self._message.get("usage", ABSENT))
        return b""

    def _on_block_start(self, index: int, raw: Raw) -> bytes:
        partial = PartialBlock(raw, None)
        self._blocks[index] = partial
        check_block_count(len(self._blocks))
        self._has_content = self._has_content or partial.block.type not in MODEL_BLOCK_TYPES
        match partial.block.type:
            case "text" if partial.block.text:
                return self._chunk(content=partial.block.text)
            case "thinking" if partial.block.thinking:
                return self._chunk(reasoning_content=partial.block.thinking)
            case "tool_use":
                partial.call_index, self._call_count = self._call_count, self._call_count + 1
                function = {"name": partial.block.name, "arguments": ""}
                tool_call = {
                    "id": partial.block.id or self._context.new_call_id(),
                    "type": "function",
                    "function": function,
                }
                return self._chunk(tool_calls=[{"index": partial.call_index, **tool_call}])
            case _:
                return b""

    def _on_block_delta(self, partial: PartialBlock, raw: Raw) -> bytes:
        delta = _delta(raw)
        self._has_content = True
        match delta.type:
            case "text_delta":
                partial.append("text", delta.text)
                return self._chunk(content=delta.text)
            case "thinking_delta":
                partial.append("thinking", delta.thinking)
                return self._chunk(reasoning_content=delta.thinking)
            case "input_json_delta":
                partial.append("input", delta.partial_json)
                return self._arguments_chunk(partial, delta.partial_json) if delta.partial_json else b""
            case "signature_delta":
                partial.append("signature", delta.signature)
            case "citations_delta":
                partial.add_citation(delta.citation)
            case _:
                partial.add_members(optional_members(raw))
        return b""

    def _on_block_stop(self, partial: PartialBlock) -> bytes:
        """Send the arguments of a tool call whose input did not come in deltas, or is empty."""
        return b"" if partial.has_content("input") else self._arguments_chunk(partial, partial.arguments)

    def _arguments_chunk(self, partial: PartialBlock, arguments: str) -> bytes:
        if partial.call_index is None:
            return b""
        return self._chunk(tool_calls=[{"index": partial.call_index, "function": {"arguments": arguments}}])

    def _on_message_delta(self, event: _Event) -> bytes:
        """There may be several, each with new members; the final chunk is sent once, at the end of the stream."""
        self._delta |= {name: value for name, value in optional_members(event.delta).items() if not is_absent(value)}
        reason = msgspec.json.decode(self._delta.pop("stop_reason", Raw(b"null")), type=str | None)
        self._stop_reason = reason or self._stop_reason
        self.is_complete = self._stop_reason is not None
        self._update_usage(event.usage)
        return b""

    def _chunk(self, **delta: Any) -> bytes:
        self.content_events += 1
        self._has_content = True
        return self._chunks.delta(**delta)

    def _update_usage(self, raw: Raw) -> None:
        members = {name: value for name, value in optional_members(raw).items() if not is_absent(value)}
        self._usage_members |= members
        self._usage = decode_usage(msgspec.json.encode(self._usage_members))
        self.usage = map_usage(self._usage).text

"""A message of Anthropic's as it streams, in OpenAI's events.

Source: https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from typing import Any

import msgspec
from msgspec import Raw

from aiserver.providers.anthropic.capabilities import FINISH_REASONS
from aiserver.providers.anthropic.partial_block import PartialBlock
from aiserver.providers.anthropic.response import TokenUsage, decode_usage, map_usage, vendor_extensions
from aiserver.providers.translation.adapter import EmptyResponse, ResponseContext, VendorError
from aiserver.providers.translation.chat import Chat
from aiserver.providers.translation.completion import ChunkBuilder
from aiserver.providers.translation.messages import ABSENT, Members, optional_members
from aiserver.providers.translation.nulls import is_absent, null_tolerant_decoder
from aiserver.providers.translation.size_limits import check_block_count
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


MODEL_BLOCK_TYPES = ("text", "thinking", "tool_use")  # a block of another type is the work of Anthropic's own tools
_event = null_tolerant_decoder(_Event)
_delta = null_tolerant_decoder(_Delta)
_message_start = null_tolerant_decoder(_MessageStart)


class AnthropicEvents:
    """vendor.Events"""

    def __init__(self, chat: Chat, context: ResponseContext) -> None:
        self.usage: str | None = None
        self.content_events = 0
        self.is_complete = False
        self.is_done = False
        self.request_id: str | None = None
        self._chunks = ChunkBuilder(context.created_s, include_usage=chat.include_usage)
        self._context = context
        self._blocks: dict[int, PartialBlock] = {}
        self._call_count = 0
        self._message: Members = {}
        self._usage_members: Members = {}
        self._usage = TokenUsage()
        self._delta: Members = {}
        self._stop_reason: str | None = None
        self._has_content = False  # a tool of Anthropic's may have run before the first word

    def on_event(self, event: bytes) -> bytes:
        data = sse.event_data(event)
        if not data.strip():
            return b""
        if sse.is_error_event(event):
            raise VendorError(data, has_begun=self._has_content)
        said = _event(data)
        match said.type:
            case "message_start":
                return self._on_message_start(said.message)
            case "content_block_start":
                return self._on_block_start(said.index, said.content_block)
            case "content_block_delta":
                return self._on_block_delta(self._blocks[said.index], said.delta)
            case "content_block_stop":
                return self._on_block_stop(self._blocks[said.index])
            case "message_delta":
                return self._on_message_delta(said)
            case "message_stop":
                if not self._blocks and not self._stop_reason:
                    raise EmptyResponse
                self.is_done = True
                return self.on_end()
            case "error":
                raise VendorError(data, has_begun=self._has_content)
            case _:  # a ping, or what Anthropic adds: https://platform.claude.com/docs/en/api/versioning
                return b""

    def on_end(self) -> bytes:
        root = self._message | self._delta | {"usage": Raw(msgspec.json.encode(self._usage_members))}
        blocks = [self._blocks[index] for index in sorted(self._blocks) if not self._blocks[index].is_truncated]
        content = [] if all(one.is_plain for one in blocks) else [one.to_block for one in blocks]
        more: dict[str, Any] = {"anthropic": {"content": content}} if content else {}
        finish = FINISH_REASONS.get(self._stop_reason or "", "stop")
        said = self._chunks.delta(finish=finish, extensions=vendor_extensions(root, self._stop_reason), **more)
        return said + self._chunks.end(map_usage(self._usage))

    def _on_message_start(self, message: Raw) -> bytes:
        begun = _message_start(message)
        self._chunks.id, self._chunks.model = begun.id, begun.model
        self._message = optional_members(message)
        self._update_usage(self._message.get("usage", ABSENT))
        return b""

    def _on_block_start(self, index: int, raw: Raw) -> bytes:
        opened = PartialBlock(raw, None)
        self._blocks[index] = opened
        check_block_count(len(self._blocks))
        self._has_content = self._has_content or opened.block.type not in MODEL_BLOCK_TYPES
        match opened.block.type:
            case "text" if opened.block.text:
                return self._chunk(content=opened.block.text)
            case "thinking" if opened.block.thinking:
                return self._chunk(reasoning_content=opened.block.thinking)
            case "tool_use":
                opened.call_index, self._call_count = self._call_count, self._call_count + 1
                function = {"name": opened.block.name, "arguments": ""}
                called = {
                    "id": opened.block.id or self._context.new_call_id(),
                    "type": "function",
                    "function": function,
                }
                return self._chunk(tool_calls=[{"index": opened.call_index, **called}])
            case _:
                return b""

    def _on_block_delta(self, opened: PartialBlock, raw: Raw) -> bytes:
        delta = _delta(raw)
        self._has_content = True
        match delta.type:
            case "text_delta":
                opened.append("text", delta.text)
                return self._chunk(content=delta.text)
            case "thinking_delta":
                opened.append("thinking", delta.thinking)
                return self._chunk(reasoning_content=delta.thinking)
            case "input_json_delta":
                opened.append("input", delta.partial_json)
                return self._arguments_chunk(opened, delta.partial_json) if delta.partial_json else b""
            case "signature_delta":
                opened.append("signature", delta.signature)
            case "citations_delta":
                opened.add_citation(delta.citation)
            case _:
                opened.add_members(optional_members(raw))
        return b""

    def _on_block_stop(self, opened: PartialBlock) -> bytes:
        """A tool that is called with nothing, or whose input came at once, has had no piece of it told."""
        return b"" if opened.has_content("input") else self._arguments_chunk(opened, opened.arguments)

    def _arguments_chunk(self, opened: PartialBlock, arguments: str) -> bytes:
        if opened.call_index is None:
            return b""
        return self._chunk(tool_calls=[{"index": opened.call_index, "function": {"arguments": arguments}}])

    def _on_message_delta(self, said: _Event) -> bytes:
        """There may be several, each of which tells what is new; the end is told once, when nothing more comes."""
        self._delta |= {name: value for name, value in optional_members(said.delta).items() if not is_absent(value)}
        reason = msgspec.json.decode(self._delta.pop("stop_reason", Raw(b"null")), type=str | None)
        self._stop_reason = reason or self._stop_reason
        self.is_complete = self._stop_reason is not None
        self._update_usage(said.usage)
        return b""

    def _chunk(self, **delta: Any) -> bytes:
        self.content_events += 1
        self._has_content = True
        return self._chunks.delta(**delta)

    def _update_usage(self, raw: Raw) -> None:
        counted = {name: value for name, value in optional_members(raw).items() if not is_absent(value)}
        self._usage_members |= counted
        self._usage = decode_usage(msgspec.json.encode(self._usage_members))
        self.usage = map_usage(self._usage).text

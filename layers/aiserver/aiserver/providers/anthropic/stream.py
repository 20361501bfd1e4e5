"""A message of Anthropic's as it streams, in OpenAI's events.

Source: https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from typing import Any

import msgspec
from msgspec import Raw

from aiserver.providers.anthropic.capabilities import STOPS
from aiserver.providers.anthropic.partial_block import Open
from aiserver.providers.anthropic.response import Used, own, usage, used
from aiserver.providers.translation.adapter import Born, Failed, NoAnswer
from aiserver.providers.translation.chat import Chat
from aiserver.providers.translation.completion import Chunks
from aiserver.providers.translation.messages import NOTHING, Members, members_if_any
from aiserver.providers.translation.nulls import is_absent, reader
from aiserver.providers.translation.size_limits import check
from aiserver.wire import sse


class _Delta(msgspec.Struct):
    type: str = ""
    text: str = ""
    thinking: str = ""
    signature: str = ""
    partial_json: str = ""
    citation: Raw = NOTHING


class _Event(msgspec.Struct):
    type: str
    index: int = 0
    message: Raw = NOTHING
    content_block: Raw = NOTHING
    delta: Raw = NOTHING
    usage: Raw = NOTHING


class _Begun(msgspec.Struct):
    id: str = ""
    model: str = ""


WORDS = ("text", "thinking", "tool_use")  # a block of another type is the work of Anthropic's own tools
_event = reader(_Event)
_delta = reader(_Delta)
_begun = reader(_Begun)


class AnthropicEvents:
    """vendor.Events"""

    def __init__(self, chat: Chat, born: Born) -> None:
        self.usage: str | None = None
        self.pieces = 0
        self.is_whole = False
        self.is_over = False
        self.request_id: str | None = None
        self._chunks = Chunks(born.created_s, shows_usage=chat.shows_usage)
        self._born = born
        self._blocks: dict[int, Open] = {}
        self._calls = 0
        self._message: Members = {}
        self._counted: Members = {}
        self._used = Used()
        self._delta: Members = {}
        self._stop_reason: str | None = None
        self._has_worked = False  # a tool of Anthropic's may have run before the first word

    def told(self, event: bytes) -> bytes:
        data = sse.data(event)
        if not data.strip():
            return b""
        if sse.names_error(event):
            raise Failed(data, has_begun=self._has_worked)
        said = _event(data)
        match said.type:
            case "message_start":
                return self._begin(said.message)
            case "content_block_start":
                return self._open(said.index, said.content_block)
            case "content_block_delta":
                return self._add(self._blocks[said.index], said.delta)
            case "content_block_stop":
                return self._close(self._blocks[said.index])
            case "message_delta":
                return self._finish(said)
            case "message_stop":
                if not self._blocks and not self._stop_reason:
                    raise NoAnswer
                self.is_over = True
                return self.ended()
            case "error":
                raise Failed(data, has_begun=self._has_worked)
            case _:  # a ping, or what Anthropic adds: https://platform.claude.com/docs/en/api/versioning
                return b""

    def ended(self) -> bytes:
        root = self._message | self._delta | {"usage": Raw(msgspec.json.encode(self._counted))}
        blocks = [self._blocks[index] for index in sorted(self._blocks) if not self._blocks[index].is_cut]
        content = [] if all(one.is_plain for one in blocks) else [one.told for one in blocks]
        more: dict[str, Any] = {"anthropic": {"content": content}} if content else {}
        finish = STOPS.get(self._stop_reason or "", "stop")
        said = self._chunks.delta(finish=finish, own=own(root, self._stop_reason), **more)
        return said + self._chunks.end(usage(self._used))

    def _begin(self, message: Raw) -> bytes:
        begun = _begun(message)
        self._chunks.id, self._chunks.model = begun.id, begun.model
        self._message = members_if_any(message)
        self._count(self._message.get("usage", NOTHING))
        return b""

    def _open(self, index: int, raw: Raw) -> bytes:
        opened = Open(raw, None)
        self._blocks[index] = opened
        check(len(self._blocks))
        self._has_worked = self._has_worked or opened.read.type not in WORDS
        match opened.read.type:
            case "text" if opened.read.text:
                return self._say(content=opened.read.text)
            case "thinking" if opened.read.thinking:
                return self._say(reasoning_content=opened.read.thinking)
            case "tool_use":
                opened.call, self._calls = self._calls, self._calls + 1
                function = {"name": opened.read.name, "arguments": ""}
                called = {"id": opened.read.id or self._born.call_id(), "type": "function", "function": function}
                return self._say(tool_calls=[{"index": opened.call, **called}])
            case _:
                return b""

    def _add(self, opened: Open, raw: Raw) -> bytes:
        delta = _delta(raw)
        self._has_worked = True
        match delta.type:
            case "text_delta":
                opened.add("text", delta.text)
                return self._say(content=delta.text)
            case "thinking_delta":
                opened.add("thinking", delta.thinking)
                return self._say(reasoning_content=delta.thinking)
            case "input_json_delta":
                opened.add("input", delta.partial_json)
                return self._argue(opened, delta.partial_json) if delta.partial_json else b""
            case "signature_delta":
                opened.add("signature", delta.signature)
            case "citations_delta":
                opened.cite(delta.citation)
            case _:
                opened.learn(members_if_any(raw))
        return b""

    def _close(self, opened: Open) -> bytes:
        """A tool that is called with nothing, or whose input came at once, has had no piece of it told."""
        return b"" if opened.has("input") else self._argue(opened, opened.arguments)

    def _argue(self, opened: Open, arguments: str) -> bytes:
        if opened.call is None:
            return b""
        return self._say(tool_calls=[{"index": opened.call, "function": {"arguments": arguments}}])

    def _finish(self, said: _Event) -> bytes:
        """There may be several, each of which tells what is new; the end is told once, when nothing more comes."""
        self._delta |= {name: value for name, value in members_if_any(said.delta).items() if not is_absent(value)}
        reason = msgspec.json.decode(self._delta.pop("stop_reason", Raw(b"null")), type=str | None)
        self._stop_reason = reason or self._stop_reason
        self.is_whole = self._stop_reason is not None
        self._count(said.usage)
        return b""

    def _say(self, **said: Any) -> bytes:
        self.pieces += 1
        self._has_worked = True
        return self._chunks.delta(**said)

    def _count(self, raw: Raw) -> None:
        counted = {name: value for name, value in members_if_any(raw).items() if not is_absent(value)}
        self._counted |= counted
        self._used = used(msgspec.json.encode(self._counted))
        self.usage = usage(self._used).text

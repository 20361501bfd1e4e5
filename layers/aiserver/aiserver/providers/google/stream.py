"""An answer of Gemini's as it streams, in OpenAI's events: each of Gemini's is a whole answer, of what is new.

Source: https://ai.google.dev/api/generate-content#method:-models.streamgeneratecontent
"""

from typing import Any

import msgspec
from msgspec import Raw

from aiserver.providers.google.candidates import (
    Candidate,
    MappedPart,
    Members,
    failure_status,
    finish_reason,
    limit_calls,
    map_candidate,
    openai_logprobs,
)
from aiserver.providers.google.errors import build_error_body
from aiserver.providers.google.response import Response, decode_response, map_usage, vendor_extensions
from aiserver.providers.translation.adapter import EmptyResponse, ResponseContext, VendorError
from aiserver.providers.translation.chat import Chat
from aiserver.providers.translation.completion import ChunkBuilder, Usage
from aiserver.providers.translation.messages import decode_members, member_object
from aiserver.providers.translation.size_limits import check_block_count, check_candidates
from aiserver.wire import json_scan, sse

# Members of which an event has one at least. https://ai.google.dev/api/generate-content#GenerateContentResponse
KNOWN = ("candidates", "promptFeedback", "usageMetadata", "modelVersion", "responseId", "modelStatus", "createTime")


class _Choice:
    """One of the answers till now. Why it ended is told last: Gemini may say so, and go on."""

    def __init__(self) -> None:
        self.calls = 0
        self.finish_reason = ""
        self.logprobs: list[dict[str, Any]] = []  # those of words that are not told yet
        self.candidate_extensions: Members = {}
        self._parts: list[tuple[MappedPart, list[str]]] = []

    @property
    def is_empty(self) -> bool:
        return not self._parts

    @property
    def extensions(self) -> dict[str, Any]:
        """The parts, where OpenAI's words do not say all of them."""
        if all(one.is_plain for one, _ in self._parts):
            return {}
        return {"google": {"parts": [one.original | self._text(one, pieces) for one, pieces in self._parts]}}

    def add(self, said: MappedPart) -> dict[str, Any]:
        """What is told of one part more. Texts after each other are one, unless one has a signature."""
        last = self._parts[-1] if self._parts else None
        if last and said.is_text and last[0].is_text and said.is_thought == last[0].is_thought:
            last[1].append(said.text)
        else:
            self._parts.append((said, [said.text]))
            check_block_count(len(self._parts))
        if said.call:
            self.calls += 1
            return {"tool_calls": [{"index": self.calls - 1, **said.call}]}
        if not said.text:
            return {}
        return {"reasoning_content" if said.is_thought else "content": said.text}

    def take_logprobs(self) -> Any:
        taken, self.logprobs = self.logprobs, []
        return openai_logprobs(taken)

    def _text(self, one: MappedPart, pieces: list[str]) -> dict[str, str]:
        return {"text": "".join(pieces)} if one.is_text else {}


class GoogleEvents:
    """vendor.Events"""

    is_done = False  # no event says so

    def __init__(self, chat: Chat, context: ResponseContext) -> None:
        self.usage: str | None = None
        self.content_events = 0
        self.request_id: str | None = None
        self._chunks = ChunkBuilder(context.created_s, include_usage=chat.include_usage)
        self._context = context
        self._choices: dict[int, _Choice] = {}
        self._root: Members = {}
        self._usage_members: Members = {}
        self._usage: Usage | None = None
        self._is_blocked = False

    @property
    def is_complete(self) -> bool:
        ended = sum(bool(choice.finish_reason) for choice in self._choices.values())
        is_empty = bool(self._root) and not self._choices
        return self._is_blocked or is_empty or (ended > 0 and ended == len(self._choices))

    @property
    def _has_content(self) -> bool:
        """Whether there was something that is paid for, told or not."""
        is_heard = any(not choice.is_empty for choice in self._choices.values())
        return is_heard or bool(self._usage and self._usage.completion)

    def on_event(self, event: bytes) -> bytes:
        data = json_scan.unwrap_single(sse.event_data(event))  # an error may come as an array of one
        if not data.strip():
            return b""
        said, root = decode_response(data), decode_members(data)
        if said.is_error:
            raise VendorError(data, has_begun=self._has_content)
        if root and not root.keys() & set(KNOWN):
            raise EmptyResponse
        check_candidates(len(said.candidates))
        self._update_response(said, root)
        return b"".join(self._map_candidate(map_candidate(raw, self._context)) for raw in said.candidates)

    def on_end(self) -> bytes:
        if self._is_blocked and not self._choices:
            return self._chunks.delta(
                finish="content_filter", extensions=vendor_extensions(self._root, [])
            ) + self._chunks.end(self._usage)
        if not self._choices:
            raise EmptyResponse
        told = [self._final_chunk(index, self._choices[index]) for index in sorted(self._choices)]
        return b"".join(told) + self._chunks.end(self._usage)

    def _update_response(self, said: Response, root: Members) -> None:
        """Keep what is told of all candidates."""
        self._root |= root
        self._chunks.id = said.response_id or self._chunks.id
        self._chunks.model = said.model_version or self._chunks.model
        self.request_id = self._chunks.id or None
        self._is_blocked = self._is_blocked or said.is_blocked
        if counted := member_object(root, "usageMetadata"):
            self._usage_members |= counted
            self._usage = map_usage(self._usage_members)
            self.usage = self._usage.text

    def _map_candidate(self, heard: Candidate) -> bytes:
        choice = self._choices.setdefault(heard.index, _Choice())
        parts = limit_calls(heard.parts, self._context, choice.calls)
        said = [told for part in parts if (told := choice.add(part))]
        if code := failure_status(heard, is_silent=choice.is_empty):
            whole = build_error_body(code, heard.finish_reason, heard.finish_message, self._root)
            raise VendorError(whole, has_begun=self._has_content, is_of_content=True)
        choice.finish_reason = heard.finish_reason or choice.finish_reason
        choice.candidate_extensions |= heard.extensions
        choice.logprobs += heard.logprobs
        return b"".join(self._chunk(heard.index, choice, told) for told in said)

    def _chunk(self, index: int, choice: _Choice, said: dict[str, Any]) -> bytes:
        self.content_events += 1
        return self._chunks.delta(index, logprobs=choice.take_logprobs(), **said)

    def _final_chunk(self, index: int, choice: _Choice) -> bytes:
        last = index == max(self._choices)
        root = self._root | {"usageMetadata": Raw(msgspec.json.encode(self._usage_members))} if last else {}
        more = vendor_extensions(root, [choice.candidate_extensions] if choice.candidate_extensions else [])
        is_blocked = self._is_blocked and not choice.finish_reason
        finish = "content_filter" if is_blocked else finish_reason(choice.finish_reason, calls=choice.calls > 0)
        return self._chunks.delta(
            index, finish=finish, logprobs=choice.take_logprobs(), extensions=more, **choice.extensions
        )

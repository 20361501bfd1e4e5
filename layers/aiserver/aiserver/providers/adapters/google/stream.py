"""Maps the events of Gemini's streams to OpenAI's; each Gemini event is a response with the new parts.

Source: https://ai.google.dev/api/generate-content#method:-models.streamgeneratecontent
"""

from typing import Any

import msgspec
from msgspec import Raw

from aiserver.providers.adapters.base.adapter import ResponseContext, UnusableResponse, VendorError
from aiserver.providers.adapters.base.completion import ChunkBuilder, Usage
from aiserver.providers.adapters.base.messages import decode_members, member_object
from aiserver.providers.adapters.base.size_limits import check_block_count, check_candidates
from aiserver.providers.adapters.google.candidates import (
    MappedPart,
    Members,
    ResponseCandidate,
    failure_status,
    finish_reason,
    limit_calls,
    map_candidate,
    openai_logprobs,
)
from aiserver.providers.adapters.google.errors import build_error_body
from aiserver.providers.adapters.google.response import GenerateResponse, decode_response, map_usage, vendor_extensions
from aiserver.wire import json_scan, sse

# An event has at least one of these members. https://ai.google.dev/api/generate-content#GenerateContentResponse
KNOWN_EVENT_MEMBERS = (
    "candidates",
    "promptFeedback",
    "usageMetadata",
    "modelVersion",
    "responseId",
    "modelStatus",
    "createTime",
)


class _Choice:
    """One choice so far. The finish reason is sent last: Gemini may send one, and continue."""

    def __init__(self) -> None:
        self.calls = 0
        self.finish_reason = ""
        self.logprobs: list[dict[str, Any]] = []  # of tokens that are not sent yet
        self.candidate_extensions: Members = {}
        self._parts: list[tuple[MappedPart, list[str]]] = []

    @property
    def is_empty(self) -> bool:
        return not self._parts

    @property
    def extensions(self) -> dict[str, Any]:
        """The parts, unless OpenAI's format contains all of them."""
        if all(part.is_plain for part, _ in self._parts):
            return {}
        return {"google": {"parts": [part.original | self._text(part, texts) for part, texts in self._parts]}}

    def add(self, part: MappedPart) -> dict[str, Any]:
        """Add a part and return its delta. Consecutive texts are merged, unless one has a signature."""
        last = self._parts[-1] if self._parts else None
        if last and part.is_text and last[0].is_text and part.is_thought == last[0].is_thought:
            last[1].append(part.text)
        else:
            self._parts.append((part, [part.text]))
            check_block_count(len(self._parts))
        if part.call:
            self.calls += 1
            return {"tool_calls": [{"index": self.calls - 1, **part.call}]}
        if not part.text:
            return {}
        return {"reasoning_content" if part.is_thought else "content": part.text}

    def take_logprobs(self) -> Any:
        logprobs, self.logprobs = self.logprobs, []
        return openai_logprobs(logprobs)

    def _text(self, part: MappedPart, texts: list[str]) -> dict[str, str]:
        return {"text": "".join(texts)} if part.is_text else {}


class GoogleEventMapper:
    """The EventMapper of Gemini."""

    is_done = False  # Gemini has no end event

    def __init__(self, context: ResponseContext) -> None:
        self.usage: str | None = None
        self.content_events = 0
        self.request_id: str | None = None
        self._chunks = ChunkBuilder(context.created_s, include_usage=context.include_usage)
        self._context = context
        self._choices: dict[int, _Choice] = {}
        self._root: Members = {}
        self._usage_members: Members = {}
        self._usage: Usage | None = None
        self._is_blocked = False

    @property
    def is_complete(self) -> bool:
        finished_count = sum(bool(choice.finish_reason) for choice in self._choices.values())
        is_empty = bool(self._root) and not self._choices
        return self._is_blocked or is_empty or (finished_count > 0 and finished_count == len(self._choices))

    @property
    def _has_content(self) -> bool:
        """Whether the model produced billable output, sent to the caller or not."""
        has_parts = any(not choice.is_empty for choice in self._choices.values())
        return has_parts or bool(self._usage and self._usage.completion)

    def on_event(self, event: bytes) -> bytes:
        data = json_scan.unwrap_single(sse.event_data(event))  # Gemini may send an error as an array of one
        if not data.strip():
            return b""
        response, root = decode_response(data), decode_members(data)
        if response.is_error:
            raise VendorError(data, has_content=self._has_content)
        if root and not root.keys() & set(KNOWN_EVENT_MEMBERS):
            raise UnusableResponse
        check_candidates(len(response.candidates))
        self._update_response(response, root)
        return b"".join(self._map_candidate(map_candidate(raw, self._context)) for raw in response.candidates)

    def on_end(self) -> bytes:
        if self._is_blocked and not self._choices:
            return self._chunks.delta(
                finish="content_filter", extensions=vendor_extensions(self._root, [])
            ) + self._chunks.end(self._usage)
        if not self._choices:
            raise UnusableResponse
        final_chunks = [self._final_chunk(index, self._choices[index]) for index in sorted(self._choices)]
        return b"".join(final_chunks) + self._chunks.end(self._usage)

    def _update_response(self, response: GenerateResponse, root: Members) -> None:
        """Update the members shared by all candidates."""
        self._root |= root
        self._chunks.id = response.response_id or self._chunks.id
        self._chunks.model = response.model_version or self._chunks.model
        self.request_id = self._chunks.id or None
        self._is_blocked = self._is_blocked or response.is_blocked
        if usage := member_object(root, "usageMetadata"):
            self._usage_members |= usage
            self._usage = map_usage(self._usage_members)
            self.usage = self._usage.text

    def _map_candidate(self, candidate: ResponseCandidate) -> bytes:
        choice = self._choices.setdefault(candidate.index, _Choice())
        parts = limit_calls(candidate.parts, self._context, choice.calls)
        deltas = [delta for part in parts if (delta := choice.add(part))]
        if code := failure_status(candidate, is_empty=choice.is_empty):
            error_body = build_error_body(code, candidate.finish_reason, candidate.finish_message, self._root)
            raise VendorError(error_body, has_content=self._has_content, is_content_error=True)
        choice.finish_reason = candidate.finish_reason or choice.finish_reason
        choice.candidate_extensions |= candidate.extensions
        choice.logprobs += candidate.logprobs
        return b"".join(self._chunk(candidate.index, choice, delta) for delta in deltas)

    def _chunk(self, index: int, choice: _Choice, delta: dict[str, Any]) -> bytes:
        self.content_events += 1
        return self._chunks.delta(index, logprobs=choice.take_logprobs(), **delta)

    def _final_chunk(self, index: int, choice: _Choice) -> bytes:
        is_last = index == max(self._choices)
        root = self._root | {"usageMetadata": Raw(msgspec.json.encode(self._usage_members))} if is_last else {}
        extensions = vendor_extensions(root, [choice.candidate_extensions] if choice.candidate_extensions else [])
        is_blocked = self._is_blocked and not choice.finish_reason
        finish = "content_filter" if is_blocked else finish_reason(choice.finish_reason, has_calls=choice.calls > 0)
        return self._chunks.delta(
            index, finish=finish, logprobs=choice.take_logprobs(), extensions=extensions, **choice.extensions
        )

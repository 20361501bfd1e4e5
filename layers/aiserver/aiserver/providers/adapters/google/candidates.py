"""Maps one candidate of a Gemini response or stream event: its parts, finish reason and logprobs.

Source: https://ai.google.dev/api/generate-content#v1beta.Candidate
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import msgspec
from msgspec import Raw

from aiserver.providers.adapters.base.adapter import ResponseContext
from aiserver.providers.adapters.base.completion import tool_call
from aiserver.providers.adapters.base.messages import ABSENT, Members, decode_members, vendor_members
from aiserver.providers.adapters.base.nulls import is_absent, null_tolerant_decoder
from aiserver.providers.adapters.google.capabilities import (
    EQUIVALENT_STOP_REASONS,
    FAILURES,
    FAILURES_WITHOUT_CONTENT,
    FINISH_REASONS,
)

MAPPED_MEMBERS = ("content", "logprobsResult")


class _Call(msgspec.Struct):
    id: str = ""
    name: str = ""
    args: Raw = Raw(b"{}")


class _Part(msgspec.Struct, rename="camel"):
    text: str | None = None
    thought: bool = False
    thought_signature: Raw = ABSENT
    function_call: Raw = ABSENT


class _Content(msgspec.Struct):
    parts: list[Members] = []


class _Candidate(msgspec.Struct, rename="camel"):
    content: _Content | None = None
    index: int | None = None
    finish_reason: str | None = None
    finish_message: str | None = None
    logprobs_result: Raw = ABSENT


class _Token(msgspec.Struct, rename="camel"):
    token: str = ""
    log_probability: Raw = Raw(b"0.0")

    @property
    def to_openai(self) -> dict[str, Any]:
        return {"token": self.token, "logprob": self.log_probability, "bytes": None}


class _Tokens(msgspec.Struct):
    candidates: list[_Token] = []


class _Logprobs(msgspec.Struct, rename="camel"):
    chosen_candidates: list[_Token] = []
    top_candidates: list[_Tokens] = []


_call = null_tolerant_decoder(_Call)
_part = null_tolerant_decoder(_Part)
_candidate = null_tolerant_decoder(_Candidate)
_logprobs = null_tolerant_decoder(_Logprobs)


@dataclass(frozen=True, slots=True)
class MappedPart:
    """`original` is Gemini's part; `is_plain` is whether OpenAI's format contains all of it."""

    original: dict[str, Any]
    text: str
    is_thought: bool
    call: dict[str, Any] | None
    is_plain: bool

    @property
    def is_text(self) -> bool:
        return self.is_plain and self.call is None

    @property
    def has_content(self) -> bool:
        return bool(self.original) and (not self.is_text or bool(self.text))


@dataclass(frozen=True)
class ResponseCandidate:
    """`extensions` are the candidate's members that OpenAI's format lacks."""

    index: int
    parts: list[MappedPart]
    finish_reason: str
    finish_message: str
    logprobs: list[dict[str, Any]]
    extensions: Members


def _map_part(members: Members, context: ResponseContext) -> MappedPart:
    original = {name: value for name, value in members.items() if not is_absent(value)}
    part, names = _part(msgspec.json.encode(original)), original.keys()
    if not part.function_call:
        is_plain = part.text is not None and names <= {"text", "thought"}
        return MappedPart(original, part.text or "", part.thought, None, is_plain)
    call = _call(part.function_call)
    id = call.id or context.new_call_id()
    signature = {"google": {"thoughtSignature": part.thought_signature}} if part.thought_signature else {}
    arguments = b"{}" if is_absent(call.args) else bytes(call.args)
    openai_call = tool_call(id, call.name, arguments.decode(), **signature)
    restored = original | {"functionCall": decode_members(part.function_call) | {"id": id}}
    return MappedPart(restored, "", False, openai_call, names <= {"functionCall", "thoughtSignature"})


def map_candidate(raw: Raw, context: ResponseContext) -> ResponseCandidate:
    candidate = _candidate(raw)
    parts = [
        _map_part(part_members, context) for part_members in (candidate.content.parts if candidate.content else ())
    ]
    reason = candidate.finish_reason or ""
    mapped_members = (*MAPPED_MEMBERS, "finishReason") if reason in EQUIVALENT_STOP_REASONS else MAPPED_MEMBERS
    extensions = vendor_members(decode_members(raw), mapped_members)
    if extensions.keys() <= {"index"}:
        extensions = {}
    content_parts = [part for part in parts if part.has_content]
    return ResponseCandidate(
        candidate.index or 0,
        content_parts,
        reason,
        candidate.finish_message or "",
        _map_logprobs(candidate.logprobs_result),
        extensions,
    )


def limit_calls(parts: list[MappedPart], context: ResponseContext, calls: int = 0) -> Iterator[MappedPart]:
    """The parts, with only the first tool call if the caller wants one. `calls` is the number of earlier calls."""
    for part in parts:
        calls += part.call is not None
        if part.call is None or calls == 1 or not context.single_tool_call:
            yield part


def failure_status(candidate: ResponseCandidate, *, is_empty: bool) -> int | None:
    """The HTTP status of a candidate whose finish reason is a failure; None for other finish reasons."""
    return FAILURES.get(candidate.finish_reason) or (
        FAILURES_WITHOUT_CONTENT.get(candidate.finish_reason) if is_empty else None
    )


def finish_reason(finish_reason: str, *, has_calls: bool) -> str:
    """The finish reason in OpenAI's format."""
    return "tool_calls" if has_calls and finish_reason in ("", "STOP") else FINISH_REASONS.get(finish_reason, "stop")


def openai_logprobs(content: list[dict[str, Any]]) -> Any:
    """https://platform.openai.com/docs/api-reference/chat/object (choices[].logprobs)"""
    return {"content": content, "refusal": None} if content else None


def _map_logprobs(logprobs: Raw) -> list[dict[str, Any]]:
    logprobs_result = _logprobs(logprobs)
    steps = zip_longest(
        logprobs_result.chosen_candidates, logprobs_result.top_candidates[: len(logprobs_result.chosen_candidates)]
    )
    return [
        chosen.to_openai | {"top_logprobs": [token.to_openai for token in top.candidates] if top else []}
        for chosen, top in steps
    ]

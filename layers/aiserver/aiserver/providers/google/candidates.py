"""One of the answers that Gemini gives, whole or as much of it as an event holds: its parts, and why it ended.

Source: https://ai.google.dev/api/generate-content#v1beta.Candidate
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import msgspec
from msgspec import Raw

from aiserver.providers.google.capabilities import (
    EQUIVALENT_STOP_REASONS,
    FAILURES,
    FAILURES_WITHOUT_CONTENT,
    FINISH_REASONS,
)
from aiserver.providers.translation.adapter import ResponseContext
from aiserver.providers.translation.completion import tool_call
from aiserver.providers.translation.messages import ABSENT, Members, decode_members, vendor_members
from aiserver.providers.translation.nulls import is_absent, null_tolerant_decoder

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
    """`whole` is how Gemini said it, `is_plain` whether OpenAI's words say all of it."""

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
class Candidate:
    """`left` are its members that OpenAI has no words for."""

    index: int
    parts: list[MappedPart]
    finish_reason: str
    finish_message: str
    logprobs: list[dict[str, Any]]
    extensions: Members


def _map_part(said: Members, born: ResponseContext) -> MappedPart:
    whole = {name: value for name, value in said.items() if not is_absent(value)}
    read, names = _part(msgspec.json.encode(whole)), whole.keys()
    if not read.function_call:
        is_plain = read.text is not None and names <= {"text", "thought"}
        return MappedPart(whole, read.text or "", read.thought, None, is_plain)
    called = _call(read.function_call)
    id = called.id or born.new_call_id()
    signature = {"google": {"thoughtSignature": read.thought_signature}} if read.thought_signature else {}
    arguments = b"{}" if is_absent(called.args) else bytes(called.args)
    made = tool_call(id, called.name, arguments.decode(), **signature)
    told = whole | {"functionCall": decode_members(read.function_call) | {"id": id}}
    return MappedPart(told, "", False, made, names <= {"functionCall", "thoughtSignature"})


def map_candidate(raw: Raw, born: ResponseContext) -> Candidate:
    read = _candidate(raw)
    parts = [_map_part(one, born) for one in (read.content.parts if read.content else ())]
    reason = read.finish_reason or ""
    told = (*MAPPED_MEMBERS, "finishReason") if reason in EQUIVALENT_STOP_REASONS else MAPPED_MEMBERS
    left = vendor_members(decode_members(raw), told)
    if left.keys() <= {"index"}:
        left = {}
    said = [part for part in parts if part.has_content]
    return Candidate(
        read.index or 0, said, reason, read.finish_message or "", _map_logprobs(read.logprobs_result), left
    )


def limit_calls(parts: list[MappedPart], born: ResponseContext, calls: int = 0) -> Iterator[MappedPart]:
    """The parts, less the calls beyond the first where the caller wants one; `calls` came before them."""
    for part in parts:
        calls += part.call is not None
        if part.call is None or calls == 1 or not born.single_tool_call:
            yield part


def failure_status(heard: Candidate, *, is_silent: bool) -> int | None:
    """The status that a candidate stands for that ended by a failure."""
    return FAILURES.get(heard.finish_reason) or (
        FAILURES_WITHOUT_CONTENT.get(heard.finish_reason) if is_silent else None
    )


def finish_reason(finish_reason: str, *, calls: bool) -> str:
    """Why it ended, as OpenAI says it."""
    return "tool_calls" if calls and finish_reason in ("", "STOP") else FINISH_REASONS.get(finish_reason, "stop")


def openai_logprobs(content: list[dict[str, Any]]) -> Any:
    """https://platform.openai.com/docs/api-reference/chat/object (choices[].logprobs)"""
    return {"content": content, "refusal": None} if content else None


def _map_logprobs(logprobs: Raw) -> list[dict[str, Any]]:
    read = _logprobs(logprobs)
    steps = zip_longest(read.chosen_candidates, read.top_candidates[: len(read.chosen_candidates)])
    return [
        one.to_openai | {"top_logprobs": [other.to_openai for other in top.candidates] if top else []}
        for one, top in steps
    ]

"""What Gemini answers, in OpenAI's words; what OpenAI has none for stands in members named `google`."""

from typing import Any

import msgspec
from msgspec import Raw

from aiserver.providers.google.candidates import (
    Candidate,
    Members,
    failure_status,
    finish_reason,
    limit_calls,
    map_candidate,
    openai_logprobs,
    vendor_members,
)
from aiserver.providers.google.errors import build_error_body
from aiserver.providers.translation.adapter import EmptyResponse, MappedResponse, ResponseContext, VendorError
from aiserver.providers.translation.completion import Choice, Usage, build_completion
from aiserver.providers.translation.messages import ABSENT, decode_members, member_object
from aiserver.providers.translation.nulls import is_absent, null_tolerant_decoder
from aiserver.providers.translation.size_limits import check_candidates, check_response_size

MAPPED_MEMBERS = ("candidates", "modelVersion", "responseId", "usageMetadata")
MAPPED_USAGE_MEMBERS = (
    "promptTokenCount",
    "toolUsePromptTokenCount",
    "candidatesTokenCount",
    "thoughtsTokenCount",
    "cachedContentTokenCount",
    "totalTokenCount",
)


class TokenUsage(msgspec.Struct, rename="camel"):
    """Tokens; in a stream each event tells all till then."""

    prompt_token_count: int = 0
    tool_use_prompt_token_count: int = 0
    candidates_token_count: int = 0
    thoughts_token_count: int | None = None
    cached_content_token_count: int | None = None


class Feedback(msgspec.Struct, rename="camel"):
    block_reason: str | None = None


class Response(msgspec.Struct, rename="camel"):
    """A whole answer, or one event of it."""

    candidates: list[Raw] = []
    prompt_feedback: Feedback | None = None
    response_id: str = ""
    model_version: str = ""
    error: Raw = ABSENT

    @property
    def is_error(self) -> bool:
        return not is_absent(self.error)

    @property
    def is_blocked(self) -> bool:
        """Whether it says why it does not answer."""
        return not self.candidates and self.prompt_feedback is not None and bool(self.prompt_feedback.block_reason)


decode_response = null_tolerant_decoder(Response)
_decode_usage = null_tolerant_decoder(TokenUsage)


def map_response(body: bytes, context: ResponseContext) -> MappedResponse:
    """Its candidates as choices.

    Raises: Failed, where it is an error; NoAnswer, or msgspec.DecodeError, where it is neither.
    """
    check_response_size(body, _response_type)
    said, root = decode_response(body), decode_members(body)
    if said.is_error:
        raise VendorError(body, has_begun=True)
    check_candidates(len(said.candidates))
    heard = sorted((map_candidate(raw, context) for raw in said.candidates), key=lambda one: one.index)
    if not said.is_blocked and not any(one.parts or one.finish_reason for one in heard):
        raise EmptyResponse
    choices = [_map_choice(one, context, root) for one in heard] or [Choice(finish="content_filter")]
    counted = map_usage(member_object(root, "usageMetadata"))
    more = vendor_extensions(root, [one.extensions for one in heard])
    told = build_completion(said.response_id, said.model_version, context.created_s, choices, counted, more)
    return MappedResponse(told, counted.text, said.response_id or None)


def _response_type(part: type[msgspec.Struct]) -> Any:
    content = msgspec.defstruct("Content", [("parts", list[part] | None, None)])
    candidate = msgspec.defstruct("Counted", [("content", content | None, None)])
    return msgspec.defstruct("Shape", [("candidates", list[candidate] | None, None)])


def map_usage(counted: Members) -> Usage:
    used = _decode_usage(msgspec.json.encode(counted))
    return Usage(
        prompt=used.prompt_token_count + used.tool_use_prompt_token_count,
        completion=used.candidates_token_count + (used.thoughts_token_count or 0),
        cached=used.cached_content_token_count,
        reasoning=used.thoughts_token_count,
    )


def vendor_extensions(root: Members, candidates: list[Members]) -> dict[str, Any]:
    """The members of an answer that only Gemini has, where Gemini has them."""
    told: dict[str, Any] = vendor_members(root, MAPPED_MEMBERS)
    if any(candidates):
        told["candidates"] = candidates
    if counted := vendor_members(member_object(root, "usageMetadata"), MAPPED_USAGE_MEMBERS):
        told["usageMetadata"] = counted
    return {"google": told} if told else {}


def _map_choice(heard: Candidate, born: ResponseContext, root: Members) -> Choice:
    """Raises: Failed, where the candidate is none."""
    if code := failure_status(heard, is_silent=not heard.parts):
        whole = build_error_body(code, heard.finish_reason, heard.finish_message, root)
        raise VendorError(whole, has_begun=True, is_of_content=True)
    choice = Choice(logprobs=openai_logprobs(heard.logprobs))
    parts = list(limit_calls(heard.parts, born))
    for one in parts:
        if one.call:
            choice.tool_calls.append(one.call)
        elif one.text:
            (choice.reasoning if one.is_thought else choice.content).append(one.text)
    choice.finish = finish_reason(heard.finish_reason, calls=bool(choice.tool_calls))
    if not all(one.is_plain for one in parts):
        choice.extensions = {"google": {"parts": [one.original for one in parts]}}
    return choice

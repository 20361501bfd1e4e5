"""Maps Gemini's responses to OpenAI's format; members without a mapping go into `google`."""

from typing import Any

import msgspec
from msgspec import Raw

from aiserver.providers.adapters.base.adapter import MappedResponse, ResponseContext, UnusableResponse, VendorError
from aiserver.providers.adapters.base.completion import Choice, Usage, build_completion
from aiserver.providers.adapters.base.messages import ABSENT, decode_members, member_object
from aiserver.providers.adapters.base.nulls import is_absent, null_tolerant_decoder
from aiserver.providers.adapters.base.size_limits import check_candidates, check_response_size
from aiserver.providers.adapters.google.candidates import (
    Members,
    ResponseCandidate,
    failure_status,
    finish_reason,
    limit_calls,
    map_candidate,
    openai_logprobs,
    vendor_members,
)
from aiserver.providers.adapters.google.errors import build_error_body

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
    """Token counts; in a stream each event contains the totals so far."""

    prompt_token_count: int = 0
    tool_use_prompt_token_count: int = 0
    candidates_token_count: int = 0
    thoughts_token_count: int | None = None
    cached_content_token_count: int | None = None


class Feedback(msgspec.Struct, rename="camel"):
    block_reason: str | None = None


class GenerateResponse(msgspec.Struct, rename="camel"):
    """A complete response, or one event of a stream."""

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
        """Whether the prompt was blocked."""
        return not self.candidates and self.prompt_feedback is not None and bool(self.prompt_feedback.block_reason)


decode_response = null_tolerant_decoder(GenerateResponse)
_decode_usage = null_tolerant_decoder(TokenUsage)


def map_response(body: bytes, context: ResponseContext) -> MappedResponse:
    """Map a response to a completion, its candidates to choices.

    Raises: VendorError, when the body is an error; UnusableResponse or msgspec.DecodeError, when it is neither.
    """
    check_response_size(body, _response_type)
    response, root = decode_response(body), decode_members(body)
    if response.is_error:
        raise VendorError(body, has_content=True)
    check_candidates(len(response.candidates))
    candidates = sorted(
        (map_candidate(raw, context) for raw in response.candidates), key=lambda candidate: candidate.index
    )
    if not response.is_blocked and not any(candidate.parts or candidate.finish_reason for candidate in candidates):
        raise UnusableResponse
    choices = [_map_choice(candidate, context, root) for candidate in candidates] or [Choice(finish="content_filter")]
    usage = map_usage(member_object(root, "usageMetadata"))
    extensions = vendor_extensions(root, [candidate.extensions for candidate in candidates])
    completion = build_completion(
        response.response_id, response.model_version, context.created_s, choices, usage, extensions
    )
    return MappedResponse(completion, usage.text, response.response_id or None)


def _response_type(part: type[msgspec.Struct]) -> Any:
    content = msgspec.defstruct("Content", [("parts", list[part] | None, None)])
    candidate = msgspec.defstruct("Counted", [("content", content | None, None)])
    return msgspec.defstruct("Shape", [("candidates", list[candidate] | None, None)])


def map_usage(members: Members) -> Usage:
    tokens = _decode_usage(msgspec.json.encode(members))
    return Usage(
        prompt=tokens.prompt_token_count + tokens.tool_use_prompt_token_count,
        completion=tokens.candidates_token_count + (tokens.thoughts_token_count or 0),
        cached=tokens.cached_content_token_count,
        reasoning=tokens.thoughts_token_count,
    )


def vendor_extensions(root: Members, candidates: list[Members]) -> dict[str, Any]:
    """The members of a response that only Gemini has."""
    extensions: dict[str, Any] = vendor_members(root, MAPPED_MEMBERS)
    if any(candidates):
        extensions["candidates"] = candidates
    if usage := vendor_members(member_object(root, "usageMetadata"), MAPPED_USAGE_MEMBERS):
        extensions["usageMetadata"] = usage
    return {"google": extensions} if extensions else {}


def _map_choice(candidate: ResponseCandidate, context: ResponseContext, root: Members) -> Choice:
    """Raises: VendorError, when the finish reason is a failure."""
    if code := failure_status(candidate, is_empty=not candidate.parts):
        error_body = build_error_body(code, candidate.finish_reason, candidate.finish_message, root)
        raise VendorError(error_body, has_content=True, is_content_error=True)
    choice = Choice(logprobs=openai_logprobs(candidate.logprobs))
    parts = list(limit_calls(candidate.parts, context))
    for part in parts:
        if part.call:
            choice.tool_calls.append(part.call)
        elif part.text:
            (choice.reasoning if part.is_thought else choice.content).append(part.text)
    choice.finish = finish_reason(candidate.finish_reason, has_calls=bool(choice.tool_calls))
    if not all(part.is_plain for part in parts):
        choice.extensions = {"google": {"parts": [part.original for part in parts]}}
    return choice

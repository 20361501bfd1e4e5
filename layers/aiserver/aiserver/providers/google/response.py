"""What Gemini answers, in OpenAI's words; what OpenAI has none for stands in members named `google`."""

from typing import Any

import msgspec
from msgspec import Raw

from aiserver.providers.google.candidates import Candidate, Members, candidate, given, kept, logprobs, refused, word
from aiserver.providers.google.errors import failure
from aiserver.providers.translation.adapter import Born, Failed, NoAnswer, Told
from aiserver.providers.translation.completion import Choice, Usage, completion
from aiserver.providers.translation.messages import NOTHING, held, members
from aiserver.providers.translation.nulls import is_absent, reader
from aiserver.providers.translation.size_limits import check_candidates, check_count

TRANSLATED = ("candidates", "modelVersion", "responseId", "usageMetadata")
COUNTED = (
    "promptTokenCount",
    "toolUsePromptTokenCount",
    "candidatesTokenCount",
    "thoughtsTokenCount",
    "cachedContentTokenCount",
    "totalTokenCount",
)


class Used(msgspec.Struct, rename="camel"):
    """Tokens; in a stream each event tells all till then."""

    prompt_token_count: int = 0
    tool_use_prompt_token_count: int = 0
    candidates_token_count: int = 0
    thoughts_token_count: int | None = None
    cached_content_token_count: int | None = None


class Feedback(msgspec.Struct, rename="camel"):
    block_reason: str | None = None


class Answer(msgspec.Struct, rename="camel"):
    """A whole answer, or one event of it."""

    candidates: list[Raw] = []
    prompt_feedback: Feedback | None = None
    response_id: str = ""
    model_version: str = ""
    error: Raw = NOTHING

    @property
    def is_error(self) -> bool:
        return not is_absent(self.error)

    @property
    def is_blocked(self) -> bool:
        """Whether it says why it does not answer."""
        return not self.candidates and self.prompt_feedback is not None and bool(self.prompt_feedback.block_reason)


read = reader(Answer)
_used = reader(Used)


def answer(body: bytes, born: Born) -> Told:
    """Its candidates as choices.

    Raises: Failed, where it is an error; NoAnswer, or msgspec.DecodeError, where it is neither.
    """
    check_count(body, _shape)
    said, root = read(body), members(body)
    if said.is_error:
        raise Failed(body, has_begun=True)
    check_candidates(len(said.candidates))
    heard = sorted((candidate(raw, born) for raw in said.candidates), key=lambda one: one.index)
    if not said.is_blocked and not any(one.parts or one.finish_reason for one in heard):
        raise NoAnswer
    choices = [_choice(one, born, root) for one in heard] or [Choice(finish="content_filter")]
    counted = usage(held(root, "usageMetadata"))
    more = own(root, [one.left for one in heard])
    told = completion(said.response_id, said.model_version, born.created_s, choices, counted, more)
    return Told(told, counted.text, said.response_id or None)


def _shape(part: type[msgspec.Struct]) -> Any:
    content = msgspec.defstruct("Content", [("parts", list[part] | None, None)])
    candidate = msgspec.defstruct("Counted", [("content", content | None, None)])
    return msgspec.defstruct("Shape", [("candidates", list[candidate] | None, None)])


def usage(counted: Members) -> Usage:
    used = _used(msgspec.json.encode(counted))
    return Usage(
        prompt=used.prompt_token_count + used.tool_use_prompt_token_count,
        completion=used.candidates_token_count + (used.thoughts_token_count or 0),
        cached=used.cached_content_token_count,
        reasoning=used.thoughts_token_count,
    )


def own(root: Members, candidates: list[Members]) -> dict[str, Any]:
    """The members of an answer that only Gemini has, where Gemini has them."""
    told: dict[str, Any] = given(root, TRANSLATED)
    if any(candidates):
        told["candidates"] = candidates
    if counted := given(held(root, "usageMetadata"), COUNTED):
        told["usageMetadata"] = counted
    return {"google": told} if told else {}


def _choice(heard: Candidate, born: Born, root: Members) -> Choice:
    """Raises: Failed, where the candidate is none."""
    if code := refused(heard, is_silent=not heard.parts):
        whole = failure(code, heard.finish_reason, heard.finish_message, root)
        raise Failed(whole, has_begun=True, is_of_content=True)
    choice = Choice(logprobs=logprobs(heard.logprobs))
    parts = list(kept(heard.parts, born))
    for one in parts:
        if one.call:
            choice.calls.append(one.call)
        elif one.text:
            (choice.reasoning if one.is_thought else choice.content).append(one.text)
    choice.finish = word(heard.finish_reason, calls=bool(choice.calls))
    if not all(one.is_plain for one in parts):
        choice.own = {"google": {"parts": [one.whole for one in parts]}}
    return choice

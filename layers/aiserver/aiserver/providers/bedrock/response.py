"""What Converse answers, in OpenAI's words; what OpenAI has none for stands in members named `bedrock`.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html#API_runtime_Converse_ResponseSyntax
"""

from typing import Any

import msgspec
from msgspec import Raw

from aiserver.errors import UpstreamAnswer
from aiserver.providers.bedrock.capabilities import (
    FAILURES,
    NO_SUCH_MODEL,
    NOT_US,
    OPENAI_SAYS_IT,
    OTHERWISE,
    STATUSES,
    STOPS,
)
from aiserver.providers.bedrock.request import ERROR_TYPE
from aiserver.providers.translation.adapter import Born, Failed, NoAnswer, Told
from aiserver.providers.translation.completion import Choice, Usage, call, completion, error_body
from aiserver.providers.translation.messages import NOTHING, Members, given, held, members
from aiserver.providers.translation.nulls import is_absent, reader
from aiserver.providers.translation.size_limits import check_count

TRANSLATED = ("output", "stopReason", "usage")
TRANSLATED_USAGE = ("inputTokens", "outputTokens", "totalTokens", "cacheReadInputTokens")


class ToolUse(msgspec.Struct, rename="camel"):
    """`type` is told of a tool that Bedrock runs by itself."""

    tool_use_id: str = ""
    name: str = ""
    input: Raw = NOTHING
    type: str | None = None

    @property
    def arguments(self) -> str:
        """The JSON text that it is called with."""
        return "{}" if is_absent(self.input) else bytes(self.input).decode()


class _Thought(msgspec.Struct):
    text: str = ""
    signature: str | None = None


class _Reasoning(msgspec.Struct, rename="camel"):
    reasoning_text: _Thought | None = None


class _Words(msgspec.Struct):
    text: str = ""


class _Cited(msgspec.Struct):
    content: list[_Words] = []


class _Block(msgspec.Struct, rename="camel"):
    """What is read of a block of content; it is one of these, or another."""

    text: str | None = None
    reasoning_content: _Reasoning | None = None
    tool_use: ToolUse | None = None
    citations_content: _Cited | None = None

    @property
    def words(self) -> str | None:
        """What it says to a reader, with or without its sources."""
        if self.citations_content:
            return "".join(part.text for part in self.citations_content.content)
        return self.text

    @property
    def thought(self) -> _Thought | None:
        return self.reasoning_content.reasoning_text if self.reasoning_content else None

    @property
    def is_call(self) -> bool:
        return self.tool_use is not None and self.tool_use.type is None

    @property
    def is_plain(self) -> bool:
        """Whether OpenAI's words say all of it."""
        if self.tool_use:
            return self.is_call
        return self.text is not None or (self.thought is not None and self.thought.signature is None)


class _Used(msgspec.Struct, rename="camel"):
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int | None = None
    cache_write_input_tokens: int | None = None


class _Message(msgspec.Struct):
    content: Raw = NOTHING


class _Output(msgspec.Struct):
    message: _Message | None = None


class _Answer(msgspec.Struct, rename="camel"):
    output: _Output | None = None
    stop_reason: str = ""


class _Error(msgspec.Struct):
    message: str = ""
    shouted: str = msgspec.field(name="Message", default="")
    original: str = msgspec.field(name="originalMessage", default="")


_answer = reader(_Answer)
_blocks = reader(list[_Block], b"[]")
_raws = msgspec.json.Decoder(list[Raw])
_used = reader(_Used)
_error = msgspec.json.Decoder(_Error)


def answer(body: bytes, born: Born) -> Told:
    """An answer as a completion.

    Raises: Failed, where the model failed; NoAnswer, or msgspec.DecodeError, where it is none.
    """
    check_count(body, _shape)
    said = _answer(body)
    fail_by(said.stop_reason)
    if said.output is None or said.output.message is None:
        raise NoAnswer
    content, blocks = _kept(said.output.message.content, born)
    if not said.stop_reason and all(block.text == "" for block in blocks):
        raise NoAnswer
    choice = Choice(finish=STOPS.get(said.stop_reason, "stop"))
    for one in blocks:
        if one.words is not None:
            choice.content.append(one.words)
        elif one.thought:
            choice.reasoning.append(one.thought.text)
        elif one.is_call and (used := one.tool_use):
            choice.calls.append(call(used.tool_use_id or born.call_id(), used.name, used.arguments))
    if not all(one.is_plain for one in blocks):
        choice.own = {"bedrock": {"content": content}}
    root = members(body)
    counted = usage(root["usage"]) if held(root, "usage") else None
    told = completion(born.id, born.model, born.created_s, [choice], counted, own(root, said.stop_reason))
    return Told(told, counted.text if counted else None)


def _kept(content: Raw, born: Born) -> tuple[Raw | list[Raw], list[_Block]]:
    """The content, less the calls beyond the first where the caller wants one."""
    blocks = _blocks(content)
    calls = [place for place, block in enumerate(blocks) if block.is_call]
    if not born.one_call or len(calls) < 2:
        return content, blocks
    dropped = set(calls[1:])
    raws = [raw for place, raw in enumerate(_raws.decode(content)) if place not in dropped]
    return raws, [block for place, block in enumerate(blocks) if place not in dropped]


def _shape(block: type[msgspec.Struct]) -> Any:
    message = msgspec.defstruct("Message", [("content", list[block] | None, None)])
    output = msgspec.defstruct("Output", [("message", message | None, None)])
    return msgspec.defstruct("Shape", [("output", output | None, None)])


def fail_by(stop_reason: str) -> None:
    """Raises: Failed, where the model wrote what is no answer; it has been at work for it."""
    if why := FAILURES.get(stop_reason):
        raise Failed(msgspec.json.encode({stop_reason: {"message": why}}), has_begun=True, is_of_content=True)


def usage(raw: Raw) -> Usage:
    """What was read from a cache, or written to one, is not among the input tokens.

    https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html
    """
    used = _used(raw)
    read, written = used.cache_read_input_tokens, used.cache_write_input_tokens
    return Usage(used.input_tokens + (read or 0) + (written or 0), used.output_tokens, cached=read)


def own(root: Members, stop_reason: str) -> dict[str, Any]:
    """The members of an answer that only Bedrock has."""
    told: dict[str, Any] = given(root, TRANSLATED)
    if stop_reason and stop_reason not in OPENAI_SAYS_IT:
        told["stopReason"] = stop_reason
    if counted := given(held(root, "usage"), TRANSLATED_USAGE):
        told["usage"] = counted
    return {"bedrock": told} if told else {}


def error(said: UpstreamAnswer) -> UpstreamAnswer:
    """An error in OpenAI's shape; what is no error of Bedrock's stays as it came.

    Its type stands in a header. In a stream it is `{"<its type>": {…}}`, and the type begins with a small letter.
    """
    headers = {name: value for name, value in said.headers.items() if name != ERROR_TYPE}
    type, status, body = said.headers.get(ERROR_TYPE, "").partition(":")[0], said.status, said.body
    try:
        if said.is_success:
            ((name, body),) = members(body).items()
            type = name if name in FAILURES else name[:1].upper() + name[1:]
            status = STATUSES.get(type, 500)
        status = 403 if type in NOT_US else status
        told = _error.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return UpstreamAnswer(said.status, headers, said.body)
    message = told.message or told.shouted or told.original
    if status == 400 and message.startswith(NO_SUCH_MODEL):
        status = 404
    error = error_body(message, type, None, {"bedrock": Raw(said.body)})
    return UpstreamAnswer(OTHERWISE.get(status, status), headers, error)

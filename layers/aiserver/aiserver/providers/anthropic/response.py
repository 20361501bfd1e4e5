"""What Anthropic answers, in OpenAI's words; what OpenAI has none for stands in members named `anthropic`."""

from typing import Any

import msgspec
from msgspec import Raw

from aiserver.errors import UpstreamAnswer
from aiserver.providers.anthropic.capabilities import OPENAI_SAYS_IT, STATUSES, STOPS
from aiserver.providers.translation.adapter import Born, Failed, NoAnswer, Told
from aiserver.providers.translation.completion import Choice, Usage, call, completion, error_body
from aiserver.providers.translation.messages import NOTHING, Members, given, held, members, says_nothing
from aiserver.providers.translation.nulls import is_absent, reader
from aiserver.providers.translation.size_limits import check_count

NAMED_BY_CALLER = ("File ", "Container ")  # how an error begins of what only a caller can have named
TRANSLATED = ("id", "type", "role", "model", "content", "stop_reason", "usage")
TRANSLATED_USAGE = ("input_tokens", "output_tokens", "cache_read_input_tokens", "output_tokens_details")


class _Caller(msgspec.Struct):
    type: str = ""


class Block(msgspec.Struct):
    """What is read of a block of content, of any type."""

    type: str = ""
    text: str = ""
    thinking: str = ""
    id: str = ""
    name: str = ""
    input: Raw = NOTHING
    citations: Raw = NOTHING
    caller: _Caller | None = None
    toolset_name: str | None = None

    @property
    def is_plain(self) -> bool:
        """Whether OpenAI's words say all of it."""
        if self.type == "tool_use":
            return self.toolset_name is None and (self.caller is None or self.caller.type == "direct")
        return self.type == "text" and says_nothing(self.citations)

    @property
    def arguments(self) -> str:
        """The JSON text that a tool is called with."""
        return "{}" if is_absent(self.input) else bytes(self.input).decode()


class Thought(msgspec.Struct):
    thinking_tokens: int = 0


class Used(msgspec.Struct):
    """Tokens; in a stream each event tells all till then, and only what it knows."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    output_tokens_details: Thought | None = None


class _Message(msgspec.Struct):
    content: Raw = NOTHING
    id: str = ""
    type: str = ""
    model: str = ""
    stop_reason: str | None = None
    usage: Raw = NOTHING


class _Model(msgspec.Struct):
    id: str
    lifecycle: str = ""


class _Listed(msgspec.Struct):
    data: list[_Model]
    has_more: bool = False
    last_id: str | None = None


class _Error(msgspec.Struct):
    message: str = ""
    type: str = ""


class _Refused(msgspec.Struct):
    error: _Error
    request_id: str | None = None


block = reader(Block)
used = reader(Used)
_blocks = reader(list[Block], b"[]")
_message = reader(_Message)
_listed = msgspec.json.Decoder(_Listed)
_refused = msgspec.json.Decoder(_Refused)


def answer(body: bytes, born: Born) -> Told:
    """A message as a completion.

    Raises: Failed, where it is an error; NoAnswer, or msgspec.DecodeError, where it is neither. Servers that speak
    Anthropic's protocol may leave out the reason for the end, or the content, but not both.
    """
    root = members(body)
    if root.get("type") == Raw(b'"error"'):
        raise Failed(body, has_begun=True)
    check_count(body, _shape)
    message = _message(body)
    blocks = _blocks(message.content)
    if not message.stop_reason and all(one.type in ("", "text") and not one.text for one in blocks):
        raise NoAnswer
    choice = Choice(finish=STOPS.get(message.stop_reason or "", "stop"))
    for one in blocks:
        if one.type == "text":
            choice.content.append(one.text)
        elif one.type == "thinking":
            choice.reasoning.append(one.thinking)
        elif one.type == "tool_use":
            choice.calls.append(call(one.id or born.call_id(), one.name, one.arguments))
    if not all(one.is_plain for one in blocks):
        choice.own = {"anthropic": {"content": message.content}}
    counted = usage(used(message.usage))
    told = completion(message.id, message.model, born.created_s, [choice], counted, own(root, message.stop_reason))
    return Told(told, counted.text)


def _shape(block: type[msgspec.Struct]) -> Any:
    return msgspec.defstruct("Shape", [("content", list[block] | None, None)])


def usage(used: Used) -> Usage:
    cached, written = used.cache_read_input_tokens, used.cache_creation_input_tokens
    thought = used.output_tokens_details
    return Usage(
        prompt=(used.input_tokens or 0) + (cached or 0) + (written or 0),
        completion=used.output_tokens or 0,
        cached=cached,
        reasoning=thought.thinking_tokens if thought else None,
    )


def own(root: Members, stop_reason: str | None) -> dict[str, Any]:
    """The members of an answer that only Anthropic has."""
    told: dict[str, Any] = given(root, TRANSLATED)
    if stop_reason not in OPENAI_SAYS_IT and stop_reason is not None:
        told["stop_reason"] = stop_reason
    if counted := given(held(root, "usage"), TRANSLATED_USAGE):
        told["usage"] = counted
    return {"anthropic": told} if told else {}


def error(said: UpstreamAnswer) -> UpstreamAnswer:
    """An error in OpenAI's shape. Raises: msgspec.DecodeError, where it is none of Anthropic's."""
    refused = _refused.decode(said.body)
    told = refused.error
    status = STATUSES.get(told.type, 500) if said.is_success else said.status
    headers = ({"x-request-id": refused.request_id} if refused.request_id else {}) | said.headers
    return UpstreamAnswer(status, headers, _error(told, Raw(said.body)))


def _error(told: _Error, whole: Raw) -> bytes:
    is_named = told.message.startswith(NAMED_BY_CALLER)
    return error_body(told.message, told.type, None, {"anthropic": whole}, param="anthropic" if is_named else None)


def listed(page: bytes) -> tuple[list[str], str | None]:
    """The models that can be asked for, and after which the next page begins."""
    told = _listed.decode(page)
    return [model.id for model in told.data if model.lifecycle != "retired"], told.last_id if told.has_more else None

"""What Converse answers, in OpenAI's words; what OpenAI has none for stands in members named `bedrock`.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html#API_runtime_Converse_ResponseSyntax
"""

from typing import Any

import msgspec
from msgspec import Raw

from aiserver.errors import ProviderResponse
from aiserver.providers.bedrock.capabilities import (
    CONTENT_FAILURES,
    CREDENTIAL_ERRORS,
    EQUIVALENT_STOP_REASONS,
    FINISH_REASONS,
    STATUS_OVERRIDES,
    STATUSES,
    UNKNOWN_MODEL_PREFIXES,
)
from aiserver.providers.bedrock.request import ERROR_TYPE_HEADER
from aiserver.providers.translation.adapter import EmptyResponse, MappedResponse, ResponseContext, VendorError
from aiserver.providers.translation.completion import Choice, Usage, build_completion, build_error, tool_call
from aiserver.providers.translation.messages import ABSENT, Members, decode_members, member_object, vendor_members
from aiserver.providers.translation.nulls import is_absent, null_tolerant_decoder
from aiserver.providers.translation.size_limits import check_response_size

MAPPED_MEMBERS = ("output", "stopReason", "usage")
MAPPED_USAGE_MEMBERS = ("inputTokens", "outputTokens", "totalTokens", "cacheReadInputTokens")


class ToolUse(msgspec.Struct, rename="camel"):
    """`type` is told of a tool that Bedrock runs by itself."""

    tool_use_id: str = ""
    name: str = ""
    input: Raw = ABSENT
    type: str | None = None

    @property
    def arguments(self) -> str:
        """The JSON text that it is called with."""
        return "{}" if is_absent(self.input) else bytes(self.input).decode()


class _ReasoningText(msgspec.Struct):
    text: str = ""
    signature: str | None = None


class _Reasoning(msgspec.Struct, rename="camel"):
    reasoning_text: _ReasoningText | None = None


class _CitedText(msgspec.Struct):
    text: str = ""


class _Citations(msgspec.Struct):
    content: list[_CitedText] = []


class _Block(msgspec.Struct, rename="camel"):
    """What is read of a block of content; it is one of these, or another."""

    text: str | None = None
    reasoning_content: _Reasoning | None = None
    tool_use: ToolUse | None = None
    citations_content: _Citations | None = None

    @property
    def visible_text(self) -> str | None:
        """What it says to a reader, with or without its sources."""
        if self.citations_content:
            return "".join(part.text for part in self.citations_content.content)
        return self.text

    @property
    def reasoning(self) -> _ReasoningText | None:
        return self.reasoning_content.reasoning_text if self.reasoning_content else None

    @property
    def is_call(self) -> bool:
        return self.tool_use is not None and self.tool_use.type is None

    @property
    def is_plain(self) -> bool:
        """Whether OpenAI's words say all of it."""
        if self.tool_use:
            return self.is_call
        return self.text is not None or (self.reasoning is not None and self.reasoning.signature is None)


class _TokenUsage(msgspec.Struct, rename="camel"):
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int | None = None
    cache_write_input_tokens: int | None = None


class _Message(msgspec.Struct):
    content: Raw = ABSENT


class _Output(msgspec.Struct):
    message: _Message | None = None


class _Response(msgspec.Struct, rename="camel"):
    output: _Output | None = None
    stop_reason: str = ""


class _Error(msgspec.Struct):
    message: str = ""
    shouted: str = msgspec.field(name="Message", default="")
    original: str = msgspec.field(name="originalMessage", default="")


_decode_response = null_tolerant_decoder(_Response)
_blocks = null_tolerant_decoder(list[_Block], b"[]")
_raws = msgspec.json.Decoder(list[Raw])
_decode_usage = null_tolerant_decoder(_TokenUsage)
_error = msgspec.json.Decoder(_Error)


def map_response(body: bytes, context: ResponseContext) -> MappedResponse:
    """An answer as a completion.

    Raises: Failed, where the model failed; NoAnswer, or msgspec.DecodeError, where it is none.
    """
    check_response_size(body, _response_type)
    said = _decode_response(body)
    raise_for_stop_reason(said.stop_reason)
    if said.output is None or said.output.message is None:
        raise EmptyResponse
    content, blocks = _apply_single_call(said.output.message.content, context)
    if not said.stop_reason and all(block.text == "" for block in blocks):
        raise EmptyResponse
    choice = Choice(finish=FINISH_REASONS.get(said.stop_reason, "stop"))
    for one in blocks:
        if one.visible_text is not None:
            choice.content.append(one.visible_text)
        elif one.reasoning:
            choice.reasoning.append(one.reasoning.text)
        elif one.is_call and (used := one.tool_use):
            choice.tool_calls.append(tool_call(used.tool_use_id or context.new_call_id(), used.name, used.arguments))
    if not all(one.is_plain for one in blocks):
        choice.extensions = {"bedrock": {"content": content}}
    root = decode_members(body)
    counted = map_usage(root["usage"]) if member_object(root, "usage") else None
    told = build_completion(
        context.id, context.model, context.created_s, [choice], counted, vendor_extensions(root, said.stop_reason)
    )
    return MappedResponse(told, counted.text if counted else None)


def _apply_single_call(content: Raw, born: ResponseContext) -> tuple[Raw | list[Raw], list[_Block]]:
    """The content, less the calls beyond the first where the caller wants one."""
    blocks = _blocks(content)
    calls = [place for place, block in enumerate(blocks) if block.is_call]
    if not born.single_tool_call or len(calls) < 2:
        return content, blocks
    dropped = set(calls[1:])
    raws = [raw for place, raw in enumerate(_raws.decode(content)) if place not in dropped]
    return raws, [block for place, block in enumerate(blocks) if place not in dropped]


def _response_type(block: type[msgspec.Struct]) -> Any:
    message = msgspec.defstruct("Message", [("content", list[block] | None, None)])
    output = msgspec.defstruct("Output", [("message", message | None, None)])
    return msgspec.defstruct("Shape", [("output", output | None, None)])


def raise_for_stop_reason(stop_reason: str) -> None:
    """Raises: Failed, where the model wrote what is no answer; it has been at work for it."""
    if why := CONTENT_FAILURES.get(stop_reason):
        raise VendorError(msgspec.json.encode({stop_reason: {"message": why}}), has_begun=True, is_of_content=True)


def map_usage(raw: Raw) -> Usage:
    """What was read from a cache, or written to one, is not among the input tokens.

    https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html
    """
    used = _decode_usage(raw)
    read, written = used.cache_read_input_tokens, used.cache_write_input_tokens
    return Usage(used.input_tokens + (read or 0) + (written or 0), used.output_tokens, cached=read)


def vendor_extensions(root: Members, stop_reason: str) -> dict[str, Any]:
    """The members of an answer that only Bedrock has."""
    told: dict[str, Any] = vendor_members(root, MAPPED_MEMBERS)
    if stop_reason and stop_reason not in EQUIVALENT_STOP_REASONS:
        told["stopReason"] = stop_reason
    if counted := vendor_members(member_object(root, "usage"), MAPPED_USAGE_MEMBERS):
        told["usage"] = counted
    return {"bedrock": told} if told else {}


def map_error(response: ProviderResponse) -> ProviderResponse:
    """An error in OpenAI's shape; what is no error of Bedrock's stays as it came.

    Its type stands in a header. In a stream it is `{"<its type>": {…}}`, and the type begins with a small letter.
    """
    headers = {name: value for name, value in response.headers.items() if name != ERROR_TYPE_HEADER}
    type, status, body = response.headers.get(ERROR_TYPE_HEADER, "").partition(":")[0], response.status, response.body
    try:
        if response.is_success:
            ((name, body),) = decode_members(body).items()
            type = name if name in CONTENT_FAILURES else name[:1].upper() + name[1:]
            status = STATUSES.get(type, 500)
        status = 403 if type in CREDENTIAL_ERRORS else status
        told = _error.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return ProviderResponse(response.status, headers, response.body)
    message = told.message or told.shouted or told.original
    if status == 400 and message.startswith(UNKNOWN_MODEL_PREFIXES):
        status = 404
    error = build_error(message, type, None, {"bedrock": Raw(response.body)})
    return ProviderResponse(STATUS_OVERRIDES.get(status, status), headers, error)

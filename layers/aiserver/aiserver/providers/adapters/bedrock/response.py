"""Maps Converse's responses to OpenAI's format; members without a mapping go into `bedrock`.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html#API_runtime_Converse_ResponseSyntax
"""

from typing import Any

import msgspec
from msgspec import Raw

from aiserver.providers.adapters.base.adapter import MappedResponse, ResponseContext, UnusableResponse, VendorError
from aiserver.providers.adapters.base.completion import Choice, Usage, build_completion, tool_call
from aiserver.providers.adapters.base.messages import ABSENT, Members, decode_members, member_object, vendor_members
from aiserver.providers.adapters.base.nulls import is_absent, null_tolerant_decoder
from aiserver.providers.adapters.base.size_limits import check_response_size
from aiserver.providers.adapters.bedrock.capabilities import (
    CONTENT_FAILURES,
    EQUIVALENT_STOP_REASONS,
    FINISH_REASONS,
)

MAPPED_MEMBERS = ("output", "stopReason", "usage")
MAPPED_USAGE_MEMBERS = ("inputTokens", "outputTokens", "totalTokens", "cacheReadInputTokens")


class ToolUse(msgspec.Struct, rename="camel"):
    """`type` is set for a tool that Bedrock itself runs."""

    tool_use_id: str = ""
    name: str = ""
    input: Raw = ABSENT
    type: str | None = None

    @property
    def arguments(self) -> str:
        """The arguments, as JSON text."""
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
    """The mapped members of a content block; at most one is set."""

    text: str | None = None
    reasoning_content: _Reasoning | None = None
    tool_use: ToolUse | None = None
    citations_content: _Citations | None = None

    @property
    def visible_text(self) -> str | None:
        """The visible text, with or without citations."""
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
        """Whether OpenAI's format contains the complete block."""
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


_decode_response = null_tolerant_decoder(_Response)
_blocks = null_tolerant_decoder(list[_Block], b"[]")
_raws = msgspec.json.Decoder(list[Raw])
_decode_usage = null_tolerant_decoder(_TokenUsage)


def map_response(body: bytes, context: ResponseContext) -> MappedResponse:
    """Map a response to a completion.

    Raises: VendorError, when the model failed; UnusableResponse or msgspec.DecodeError, when there is no completion.
    """
    check_response_size(body, _response_type)
    response = _decode_response(body)
    raise_for_stop_reason(response.stop_reason)
    if response.output is None or response.output.message is None:
        raise UnusableResponse
    content, blocks = _apply_single_call(response.output.message.content, context)
    if not response.stop_reason and all(block.text == "" for block in blocks):
        raise UnusableResponse
    choice = Choice(finish=FINISH_REASONS.get(response.stop_reason, "stop"))
    for block in blocks:
        if block.visible_text is not None:
            choice.content.append(block.visible_text)
        elif block.reasoning:
            choice.reasoning.append(block.reasoning.text)
        elif block.is_call and (tool_use := block.tool_use):
            choice.tool_calls.append(
                tool_call(tool_use.tool_use_id or context.new_call_id(), tool_use.name, tool_use.arguments)
            )
    if not all(block.is_plain for block in blocks):
        choice.extensions = {"bedrock": {"content": content}}
    root = decode_members(body)
    usage = map_usage(root["usage"]) if member_object(root, "usage") else None
    completion = build_completion(
        context.id, context.model, context.created_s, [choice], usage, vendor_extensions(root, response.stop_reason)
    )
    return MappedResponse(completion, usage.text if usage else None)


def _apply_single_call(content: Raw, context: ResponseContext) -> tuple[Raw | list[Raw], list[_Block]]:
    """The content; without the tool calls after the first one, when the caller wants a single tool call."""
    blocks = _blocks(content)
    calls = [index for index, block in enumerate(blocks) if block.is_call]
    if not context.single_tool_call or len(calls) < 2:
        return content, blocks
    dropped_indexes = set(calls[1:])
    raws = [raw for index, raw in enumerate(_raws.decode(content)) if index not in dropped_indexes]
    return raws, [block for index, block in enumerate(blocks) if index not in dropped_indexes]


def _response_type(block: type[msgspec.Struct]) -> Any:
    message = msgspec.defstruct("Message", [("content", list[block] | None, None)])
    output = msgspec.defstruct("Output", [("message", message | None, None)])
    return msgspec.defstruct("Shape", [("output", output | None, None)])


def raise_for_stop_reason(stop_reason: str) -> None:
    """Raises: VendorError, when the model's output is unusable; it may be billed."""
    if message := CONTENT_FAILURES.get(stop_reason):
        raise VendorError(
            msgspec.json.encode({stop_reason: {"message": message}}), has_content=True, is_content_error=True
        )


def map_usage(raw: Raw) -> Usage:
    """Bedrock's input tokens exclude cache reads and cache writes; OpenAI's include them.

    https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html
    """
    tokens = _decode_usage(raw)
    cache_read, cache_write = tokens.cache_read_input_tokens, tokens.cache_write_input_tokens
    return Usage(tokens.input_tokens + (cache_read or 0) + (cache_write or 0), tokens.output_tokens, cached=cache_read)


def vendor_extensions(root: Members, stop_reason: str) -> dict[str, Any]:
    """The members of a response that only Bedrock has."""
    extensions: dict[str, Any] = vendor_members(root, MAPPED_MEMBERS)
    if stop_reason and stop_reason not in EQUIVALENT_STOP_REASONS:
        extensions["stopReason"] = stop_reason
    if usage := vendor_members(member_object(root, "usage"), MAPPED_USAGE_MEMBERS):
        extensions["usage"] = usage
    return {"bedrock": extensions} if extensions else {}

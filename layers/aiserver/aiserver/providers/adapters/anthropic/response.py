"""Maps Anthropic's responses to OpenAI's format; members without a mapping go into `anthropic`."""

from typing import Any

import msgspec
from msgspec import Raw

from aiserver.providers.adapters.anthropic.capabilities import EQUIVALENT_STOP_REASONS, FINISH_REASONS
from aiserver.providers.adapters.base.adapter import MappedResponse, ResponseContext, UnusableResponse, VendorError
from aiserver.providers.adapters.base.completion import Choice, Usage, build_completion, tool_call
from aiserver.providers.adapters.base.messages import (
    ABSENT,
    Members,
    decode_members,
    is_empty,
    member_object,
    vendor_members,
)
from aiserver.providers.adapters.base.nulls import is_absent, null_tolerant_decoder
from aiserver.providers.adapters.base.size_limits import check_response_size

MAPPED_MEMBERS = ("id", "type", "role", "model", "content", "stop_reason", "usage")
MAPPED_USAGE_MEMBERS = ("input_tokens", "output_tokens", "cache_read_input_tokens", "output_tokens_details")


class _Caller(msgspec.Struct):
    type: str = ""


class Block(msgspec.Struct):
    """The mapped members of a content block, of any type."""

    type: str = ""
    text: str = ""
    thinking: str = ""
    id: str = ""
    name: str = ""
    input: Raw = ABSENT
    citations: Raw = ABSENT
    caller: _Caller | None = None
    toolset_name: str | None = None

    @property
    def is_plain(self) -> bool:
        """Whether OpenAI's format contains the complete block."""
        if self.type == "tool_use":
            return self.toolset_name is None and (self.caller is None or self.caller.type == "direct")
        return self.type == "text" and is_empty(self.citations)

    @property
    def arguments(self) -> str:
        """The arguments of the tool call, as JSON text."""
        return "{}" if is_absent(self.input) else bytes(self.input).decode()


class _ThinkingTokens(msgspec.Struct):
    thinking_tokens: int = 0


class TokenUsage(msgspec.Struct):
    """Token counts; in a stream each event contains totals so far, and may omit some."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    output_tokens_details: _ThinkingTokens | None = None


class _Message(msgspec.Struct):
    content: Raw = ABSENT
    id: str = ""
    type: str = ""
    model: str = ""
    stop_reason: str | None = None
    usage: Raw = ABSENT


class _Model(msgspec.Struct):
    id: str
    lifecycle: str = ""


class _ModelPage(msgspec.Struct):
    data: list[_Model]
    has_more: bool = False
    last_id: str | None = None


decode_block = null_tolerant_decoder(Block)
decode_usage = null_tolerant_decoder(TokenUsage)
_blocks = null_tolerant_decoder(list[Block], b"[]")
_message = null_tolerant_decoder(_Message)
_model_page = msgspec.json.Decoder(_ModelPage)


def map_response(body: bytes, context: ResponseContext) -> MappedResponse:
    """Map a message to a completion.

    Compatible servers may omit the stop reason or the content, but not both.
    Raises: VendorError, when the body is an error; UnusableResponse or msgspec.DecodeError, when it is neither.
    """
    root = decode_members(body)
    if root.get("type") == Raw(b'"error"'):
        raise VendorError(body, has_content=True)
    check_response_size(body, _response_type)
    message = _message(body)
    blocks = _blocks(message.content)
    if not message.stop_reason and all(block.type in ("", "text") and not block.text for block in blocks):
        raise UnusableResponse
    choice = Choice(finish=FINISH_REASONS.get(message.stop_reason or "", "stop"))
    for block in blocks:
        if block.type == "text":
            choice.content.append(block.text)
        elif block.type == "thinking":
            choice.reasoning.append(block.thinking)
        elif block.type == "tool_use":
            choice.tool_calls.append(tool_call(block.id or context.new_call_id(), block.name, block.arguments))
    if not all(block.is_plain for block in blocks):
        choice.extensions = {"anthropic": {"content": message.content}}
    usage = map_usage(decode_usage(message.usage))
    completion = build_completion(
        message.id, message.model, context.created_s, [choice], usage, vendor_extensions(root, message.stop_reason)
    )
    return MappedResponse(completion, usage.text)


def _response_type(block: type[msgspec.Struct]) -> Any:
    return msgspec.defstruct("Shape", [("content", list[block] | None, None)])


def map_usage(usage: TokenUsage) -> Usage:
    cached, cache_write = usage.cache_read_input_tokens, usage.cache_creation_input_tokens
    details = usage.output_tokens_details
    return Usage(
        prompt=(usage.input_tokens or 0) + (cached or 0) + (cache_write or 0),
        completion=usage.output_tokens or 0,
        cached=cached,
        reasoning=details.thinking_tokens if details else None,
    )


def vendor_extensions(root: Members, stop_reason: str | None) -> dict[str, Any]:
    """The members of a response that only Anthropic has."""
    extensions: dict[str, Any] = vendor_members(root, MAPPED_MEMBERS)
    if stop_reason not in EQUIVALENT_STOP_REASONS and stop_reason is not None:
        extensions["stop_reason"] = stop_reason
    if usage := vendor_members(member_object(root, "usage"), MAPPED_USAGE_MEMBERS):
        extensions["usage"] = usage
    return {"anthropic": extensions} if extensions else {}


def parse_models(page: bytes) -> tuple[list[str], str | None]:
    """The ids of the available models, and the token of the next page."""
    model_page = _model_page.decode(page)
    return [
        model.id for model in model_page.data if model.lifecycle != "retired"
    ], model_page.last_id if model_page.has_more else None

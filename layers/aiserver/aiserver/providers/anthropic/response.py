"""What Anthropic answers, in OpenAI's words; what OpenAI has none for stands in members named `anthropic`."""

from typing import Any

import msgspec
from msgspec import Raw

from aiserver.errors import ProviderResponse
from aiserver.providers.anthropic.capabilities import EQUIVALENT_STOP_REASONS, FINISH_REASONS, STATUSES
from aiserver.providers.translation.adapter import EmptyResponse, MappedResponse, ResponseContext, VendorError
from aiserver.providers.translation.completion import Choice, Usage, build_completion, build_error, tool_call
from aiserver.providers.translation.messages import (
    ABSENT,
    Members,
    decode_members,
    is_empty,
    member_object,
    vendor_members,
)
from aiserver.providers.translation.nulls import is_absent, null_tolerant_decoder
from aiserver.providers.translation.size_limits import check_response_size

CALLER_RESOURCE_PREFIXES = ("File ", "Container ")  # how an error begins of what only a caller can have named
MAPPED_MEMBERS = ("id", "type", "role", "model", "content", "stop_reason", "usage")
MAPPED_USAGE_MEMBERS = ("input_tokens", "output_tokens", "cache_read_input_tokens", "output_tokens_details")


class _Caller(msgspec.Struct):
    type: str = ""


class Block(msgspec.Struct):
    """What is read of a block of content, of any type."""

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
        """Whether OpenAI's words say all of it."""
        if self.type == "tool_use":
            return self.toolset_name is None and (self.caller is None or self.caller.type == "direct")
        return self.type == "text" and is_empty(self.citations)

    @property
    def arguments(self) -> str:
        """The JSON text that a tool is called with."""
        return "{}" if is_absent(self.input) else bytes(self.input).decode()


class _ThinkingTokens(msgspec.Struct):
    thinking_tokens: int = 0


class TokenUsage(msgspec.Struct):
    """Tokens; in a stream each event tells all till then, and only what it knows."""

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


class _Error(msgspec.Struct):
    message: str = ""
    type: str = ""


class _ErrorBody(msgspec.Struct):
    error: _Error
    request_id: str | None = None


decode_block = null_tolerant_decoder(Block)
decode_usage = null_tolerant_decoder(TokenUsage)
_blocks = null_tolerant_decoder(list[Block], b"[]")
_message = null_tolerant_decoder(_Message)
_model_page = msgspec.json.Decoder(_ModelPage)
_error_body = msgspec.json.Decoder(_ErrorBody)


def map_response(body: bytes, context: ResponseContext) -> MappedResponse:
    """A message as a completion.

    Raises: Failed, where it is an error; NoAnswer, or msgspec.DecodeError, where it is neither. Servers that speak
    Anthropic's protocol may leave out the reason for the end, or the content, but not both.
    """
    root = decode_members(body)
    if root.get("type") == Raw(b'"error"'):
        raise VendorError(body, has_begun=True)
    check_response_size(body, _response_type)
    message = _message(body)
    blocks = _blocks(message.content)
    if not message.stop_reason and all(one.type in ("", "text") and not one.text for one in blocks):
        raise EmptyResponse
    choice = Choice(finish=FINISH_REASONS.get(message.stop_reason or "", "stop"))
    for one in blocks:
        if one.type == "text":
            choice.content.append(one.text)
        elif one.type == "thinking":
            choice.reasoning.append(one.thinking)
        elif one.type == "tool_use":
            choice.tool_calls.append(tool_call(one.id or context.new_call_id(), one.name, one.arguments))
    if not all(one.is_plain for one in blocks):
        choice.extensions = {"anthropic": {"content": message.content}}
    counted = map_usage(decode_usage(message.usage))
    told = build_completion(
        message.id, message.model, context.created_s, [choice], counted, vendor_extensions(root, message.stop_reason)
    )
    return MappedResponse(told, counted.text)


def _response_type(block: type[msgspec.Struct]) -> Any:
    return msgspec.defstruct("Shape", [("content", list[block] | None, None)])


def map_usage(usage: TokenUsage) -> Usage:
    cached, written = usage.cache_read_input_tokens, usage.cache_creation_input_tokens
    thought = usage.output_tokens_details
    return Usage(
        prompt=(usage.input_tokens or 0) + (cached or 0) + (written or 0),
        completion=usage.output_tokens or 0,
        cached=cached,
        reasoning=thought.thinking_tokens if thought else None,
    )


def vendor_extensions(root: Members, stop_reason: str | None) -> dict[str, Any]:
    """The members of an answer that only Anthropic has."""
    told: dict[str, Any] = vendor_members(root, MAPPED_MEMBERS)
    if stop_reason not in EQUIVALENT_STOP_REASONS and stop_reason is not None:
        told["stop_reason"] = stop_reason
    if counted := vendor_members(member_object(root, "usage"), MAPPED_USAGE_MEMBERS):
        told["usage"] = counted
    return {"anthropic": told} if told else {}


def map_error(response: ProviderResponse) -> ProviderResponse:
    """An error in OpenAI's shape. Raises: msgspec.DecodeError, where it is none of Anthropic's."""
    refused = _error_body.decode(response.body)
    told = refused.error
    status = STATUSES.get(told.type, 500) if response.is_success else response.status
    headers = ({"x-request-id": refused.request_id} if refused.request_id else {}) | response.headers
    return ProviderResponse(status, headers, _error(told, Raw(response.body)))


def _error(told: _Error, whole: Raw) -> bytes:
    is_named = told.message.startswith(CALLER_RESOURCE_PREFIXES)
    return build_error(told.message, told.type, None, {"anthropic": whole}, param="anthropic" if is_named else None)


def parse_models(page: bytes) -> tuple[list[str], str | None]:
    """The models that can be asked for, and after which the next page begins."""
    told = _model_page.decode(page)
    return [model.id for model in told.data if model.lifecycle != "retired"], told.last_id if told.has_more else None

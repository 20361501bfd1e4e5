"""A chat request in OpenAI's format, parsed for translation.

Source: https://platform.openai.com/docs/api-reference/chat/create
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import Raw

from aiserver.errors import InvalidRequest
from aiserver.providers.adapters.base.capabilities import Capabilities, PassThrough
from aiserver.providers.adapters.base.messages import (
    AssistantMessage,
    JsonFormat,
    Message,
    SchemaFormat,
    StreamOptions,
    TextFormat,
    ToolChoice,
    ToolDefinition,
    UserMessage,
    decode_members,
)
from aiserver.providers.adapters.base.nulls import is_absent, strip_nulls
from aiserver.providers.adapters.base.tool_call_ids import assign_call_ids
from aiserver.wire.validation import invalid_field

UNKNOWN_FIELD = "unknown field"
RESERVED_MEMBERS = ("model", "messages", "stream")  # they route the request and select the response format
Read = TypeVar("Read")

_list = msgspec.json.Decoder(list[Raw])
_ERROR_PATH = re.compile(r" - at `\$(.*)`$")
_UNKNOWN = re.compile(r"^Object contains unknown field `(.*)`$")


class Chat:
    """One request for one vendor; validate.parse_chat creates it."""

    def __init__(self, body: bytes, capabilities: Capabilities, model: str | None = None) -> None:
        """`model` replaces the model that the body names.

        Raises: InvalidRequest, which names the field and the vendor, when a field has the wrong type.
        """
        self.capabilities = capabilities
        self.members = {name: value for name, value in decode_members(body).items() if not is_absent(value)}
        if model is not None:
            self.members["model"] = Raw(msgspec.json.encode(model))
        self.model = self.get_typed("model", str) or ""
        self.messages: list[Message] = self.get_typed("messages", list[Message]) or []
        for i in assign_call_ids(self.messages, capabilities.normalize_call_id):
            raise self.invalid(f"messages[{i}].tool_call_id", "must be the id of a preceding tool call")
        self.tools: list[ToolDefinition] = self.get_typed("tools", list[ToolDefinition]) or []
        self.response_format = self.get_typed("response_format", TextFormat | JsonFormat | SchemaFormat)
        self.tool_choice = self.get_typed("tool_choice", Literal["none", "auto", "required"] | ToolChoice)
        self.single_tool_call = self.get_typed("parallel_tool_calls", bool) is False
        self.stop = _as_list(self.get_typed("stop", str | list[str]))
        self.stream = bool(self.get_typed("stream", bool))
        options = self.get_typed("stream_options", StreamOptions)
        self.include_usage = bool(options and options.include_usage)
        if options and options.include_obfuscation:
            raise self.unsupported("stream_options.include_obfuscation", "stream events are not padded")
        self.extensions: dict[str, Raw] = self.get_typed(capabilities.extension_member, dict[str, Raw]) or {}
        for name in RESERVED_MEMBERS:
            if name in self.extensions:
                raise self.unsupported(
                    f"{capabilities.extension_member}.{name}", f"set '{name}' in the request instead"
                )

    def get_typed(self, name: str, kind: Any) -> Any:
        """The field, decoded as `kind`; None when it is absent. Raises: InvalidRequest, when its type is wrong."""
        if name not in self.members:
            return None
        try:
            return _decode(self.members[name], kind)
        except msgspec.ValidationError as error:
            message = str(error)
            path_match = _ERROR_PATH.search(message)
            path, reason = name + (path_match[1] if path_match else ""), _ERROR_PATH.sub("", message)
            if unknown := _UNKNOWN.match(reason):
                raise self.unsupported(f"{path}.{unknown[1]}", UNKNOWN_FIELD) from None
            raise self._decode_error(path, reason) from None

    def pass_through(self) -> Iterator[tuple[str, Raw]]:
        """The target path and the JSON text of each field that is sent unchanged."""
        for name, value in self.members.items():
            rule = self.capabilities.rules.get(name)
            if isinstance(rule, PassThrough):
                yield rule.target, value

    def unsupported(self, path: str, reason: str = "") -> InvalidRequest:
        """The error for a field that the vendor does not support."""
        return self._error(path, "is not supported by", reason)

    def invalid(self, path: str, constraint: str, reason: str = "") -> InvalidRequest:
        """The error for a supported field with a wrong value; `constraint` follows the field: "must be at most 1"."""
        return self._error(path, f"{constraint} for", reason)

    def _decode_error(self, path: str, reason: str) -> InvalidRequest:
        return self.invalid(path, "is not valid", reason[:1].lower() + reason[1:])

    def _error(self, path: str, problem: str, reason: str) -> InvalidRequest:
        message = f"'{path}' {problem} {self.capabilities.vendor}" + (f": {reason}" if reason else "")
        return invalid_field("NotSupported", path, message)

    @property
    def lacks_reasoning(self) -> bool:
        """Whether the last turn calls tools, and the request lacks the vendor-specific blocks with its reasoning."""
        last = next((m for m in reversed(self.messages) if isinstance(m, UserMessage | AssistantMessage)), None)
        return (
            isinstance(last, AssistantMessage)
            and bool(last.tool_calls)
            and not last.for_vendor(self.capabilities.extension_member)
        )

    @property
    def max_tokens(self) -> int | None:
        return self.alias("max_completion_tokens", "max_tokens", int)

    def alias(self, name: str, alternative: str, kind: Any = str) -> Any:
        """The value of a field with two names. Raises: InvalidRequest, when both are set and differ."""
        preferred, fallback = self.get_typed(name, kind), self.get_typed(alternative, kind)
        if preferred is not None and fallback not in (None, preferred):
            raise self.invalid(alternative, f"must equal '{name}'")
        return fallback if preferred is None else preferred

    def map_value(self, name: str, value: str, mapping: Mapping[str, Read]) -> Read:
        """The vendor's value for `value`. Raises: InvalidRequest, when `mapping` does not contain it."""
        if value not in mapping:
            raise self.invalid(name, f"must be one of {', '.join(mapping)}", f"'{value}' is not supported")
        return mapping[value]

    def take_extension(self, extensions: dict[str, Raw], name: str, kind: Any, path: str = "") -> Any:
        """Remove and return a vendor-specific field. Raises: InvalidRequest, when its type is wrong."""
        if name not in extensions:
            return None
        try:
            return msgspec.json.decode(extensions.pop(name), type=kind)
        except msgspec.ValidationError as error:
            extension_path = f"{path}.{self.capabilities.extension_member}.{name}".lstrip(".")
            raise self._decode_error(extension_path, _ERROR_PATH.sub("", str(error))) from None

    def reject_extensions(self, extensions: Mapping[str, Raw], path: str) -> None:
        """Raises: InvalidRequest, when vendor-specific fields are left that the adapter does not send."""
        for name in extensions:
            extension_path = f"{path}.{self.capabilities.extension_member}.{name}"
            raise self.unsupported(extension_path, "unknown vendor-specific field")

    def merge(self, request: dict[str, Any], extensions: Mapping[str, Raw], path: str = "") -> dict[str, Any]:
        """Add the vendor-specific fields to the vendor's object for `path`; an empty path is the request itself.

        Raises: InvalidRequest, when a field is set already.
        """
        self._merge(request, extensions, f"{path}.{self.capabilities.extension_member}".lstrip("."))
        return request

    def _merge(self, target: dict[str, Any], extensions: Mapping[str, Raw], path: str) -> None:
        for name, value in extensions.items():
            existing: Any = target.get(name)
            try:
                if existing is None:
                    target[name] = value
                elif isinstance(existing, dict):
                    self._merge(existing, decode_members(value), f"{path}.{name}")  # pyright: ignore[reportUnknownArgumentType]
                else:
                    target[name] = existing + _list.decode(value)
            except (TypeError, msgspec.ValidationError):
                raise self.invalid(f"{path}.{name}", "must not override another request field") from None


def _decode(value: Raw, kind: Any) -> Any:
    try:
        return msgspec.json.decode(value, type=kind)
    except msgspec.ValidationError:
        return msgspec.json.decode(msgspec.json.encode(strip_nulls(value, kind)), type=kind)


def _as_list(stop: str | list[str] | None) -> list[str]:
    return [stop] if isinstance(stop, str) else stop or []

"""A chat request of OpenAI's, read so that it can be said in another vendor's words; what has no words is refused.

Source: https://platform.openai.com/docs/api-reference/chat/create
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import Raw

from aiserver.errors import InvalidRequest
from aiserver.providers.translation.capabilities import Capabilities, PassThrough
from aiserver.providers.translation.messages import (
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
from aiserver.providers.translation.nulls import is_absent, strip_nulls
from aiserver.providers.translation.tool_call_ids import assign_call_ids
from aiserver.providers.translation.validate import UNKNOWN_FIELD, check_supported
from aiserver.wire.validation import invalid_field

RESERVED_MEMBERS = ("model", "messages", "stream")  # by which a caller is answered, and another provider asked
Read = TypeVar("Read")

_list = msgspec.json.Decoder(list[Raw])
_PLACE = re.compile(r" - at `\$(.*)`$")
_UNKNOWN = re.compile(r"^Object contains unknown field `(.*)`$")


class Chat:
    """One request, as one vendor's `words` can say it."""

    def __init__(self, body: bytes, capabilities: Capabilities) -> None:
        """Raises: InvalidRequest, that names the member and the vendor, where there are no words for it."""
        self.capabilities = capabilities
        given = decode_members(body)
        self.members = {name: value for name, value in given.items() if not is_absent(value)}
        self.model = self.get_typed("model", str) or ""
        self.messages: list[Message] = self.get_typed("messages", list[Message]) or []
        for i in assign_call_ids(self.messages, capabilities.normalize_call_id):
            raise self.unsupported(f"messages[{i}].tool_call_id", "it must be the id of a call before it")
        self.tools: list[ToolDefinition] = self.get_typed("tools", list[ToolDefinition]) or []
        self.response_format = self.get_typed("response_format", TextFormat | JsonFormat | SchemaFormat)
        self.tool_choice = self.get_typed("tool_choice", Literal["none", "auto", "required"] | ToolChoice)
        self.single_tool_call = self.get_typed("parallel_tool_calls", bool) is False
        self.stop = _as_list(self.get_typed("stop", str | list[str]))
        self.stream = bool(self.get_typed("stream", bool))
        options = self.get_typed("stream_options", StreamOptions)
        self.include_usage = bool(options and options.include_usage)
        if options and options.include_obfuscation:
            raise self.unsupported("stream_options.include_obfuscation", "events are not padded here")
        self.extensions: dict[str, Raw] = self.get_typed(capabilities.extension_member, dict[str, Raw]) or {}
        for name in RESERVED_MEMBERS:
            if name in self.extensions:
                raise self.unsupported(f"{capabilities.extension_member}.{name}", f"'{name}' of the request says it")
        check_supported(self)

    def get_typed(self, name: str, kind: Any) -> Any:
        """The member of that name, if it is there. Raises: InvalidRequest, where it is something else."""
        if name not in self.members:
            return None
        try:
            return _decode(self.members[name], kind)
        except msgspec.ValidationError as error:
            said = str(error)
            place = _PLACE.search(said)
            path, why = name + (place[1] if place else ""), _PLACE.sub("", said)
            if unknown := _UNKNOWN.match(why):
                path, why = f"{path}.{unknown[1]}", UNKNOWN_FIELD
            raise self.unsupported(path, why) from None

    def pass_through(self) -> Iterator[tuple[str, Raw]]:
        """The path and the text of each member that goes out as it came."""
        for name, value in self.members.items():
            rule = self.capabilities.rules.get(name)
            if isinstance(rule, PassThrough):
                yield rule.target, value

    def unsupported(self, path: str, reason: str = "") -> InvalidRequest:
        """The error to raise for a member that has no words at this vendor."""
        message = f"{self.capabilities.vendor} cannot be told '{path}'" + (f": {reason}" if reason else "")
        return invalid_field("NotSupported", path, message)

    @property
    def lacks_reasoning(self) -> bool:
        """Whether the model called tools just now, and what it thought before is not here in the vendor's own words."""
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
        """The one of two names for one thing that is given. Raises: InvalidRequest, where they differ."""
        one, two = self.get_typed(name, kind), self.get_typed(alternative, kind)
        if one is not None and two not in (None, one):
            raise self.unsupported(alternative, f"'{name}' says something else")
        return two if one is None else one

    def map_value(self, name: str, value: str, mapping: Mapping[str, Read]) -> Read:
        """What a word stands for. Raises: InvalidRequest, where it is none of those known."""
        if value not in mapping:
            raise self.unsupported(name, f"'{value}' is none of {', '.join(mapping)}")
        return mapping[value]

    def take_extension(self, extensions: dict[str, Raw], name: str, kind: Any, path: str = "") -> Any:
        """Take a member that is the vendor's own out of those. Raises: InvalidRequest, where it is something else."""
        if name not in extensions:
            return None
        try:
            return msgspec.json.decode(extensions.pop(name), type=kind)
        except msgspec.ValidationError as error:
            raise self.unsupported(
                f"{path}.{self.capabilities.extension_member}.{name}".lstrip("."), _PLACE.sub("", str(error))
            ) from None

    def reject_extensions(self, extensions: Mapping[str, Raw], path: str) -> None:
        """Raises: InvalidRequest, where there are members of the vendor's that nothing is made of."""
        for name in extensions:
            raise self.unsupported(f"{path}.{self.capabilities.extension_member}.{name}", "nothing is made of it there")

    def merge(self, request: dict[str, Any], extensions: Mapping[str, Raw], path: str = "") -> dict[str, Any]:
        """The vendor's object for what stands at `path`, by itself the request, with the vendor's own members.

        Raises: InvalidRequest, where one says what is said.
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
                raise self.unsupported(f"{path}.{name}", "another member of the request says it already") from None


def _decode(value: Raw, kind: Any) -> Any:
    try:
        return msgspec.json.decode(value, type=kind)
    except msgspec.ValidationError:
        return msgspec.json.decode(msgspec.json.encode(strip_nulls(value, kind)), type=kind)


def _as_list(stop: str | list[str] | None) -> list[str]:
    return [stop] if isinstance(stop, str) else stop or []

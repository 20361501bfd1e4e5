"""A chat request of OpenAI's, read so that it can be said in another vendor's words; what has no words is refused.

Source: https://platform.openai.com/docs/api-reference/chat/create
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import Raw

from aiserver.errors import InvalidRequest
from aiserver.providers.translation.messages import (
    NOTHING,
    Assistant,
    Call,
    Chosen,
    File,
    Image,
    JsonFormat,
    Message,
    Own,
    Part,
    Refusal,
    SchemaFormat,
    StreamOptions,
    System,
    Text,
    TextFormat,
    ToolDefinition,
    User,
    arguments,
    members,
)
from aiserver.providers.translation.words import Passes, Refused, Words
from aiserver.wire.model import VENDORS
from aiserver.wire.validation import invalid

NOT_KNOWN = "it is no member of OpenAI's that is known here"
SAID_ABOVE = ("model", "messages", "stream")  # by which a caller is answered, and another provider asked
NOBODY = "nobody says a word in them but the system"
Read = TypeVar("Read")

_list = msgspec.json.Decoder(list[Raw])
_objects = msgspec.json.Decoder(list[dict[str, Raw]])
_PLACE = re.compile(r" - at `\$(.*)`$")
_UNKNOWN = re.compile(r"^Object contains unknown field `(.*)`$")


class Chat:
    """One request, as one vendor's `words` can say it."""

    def __init__(self, body: bytes, words: Words) -> None:
        """Raises: InvalidRequest, that names the member and the vendor, where there are no words for it."""
        self._words = words
        given = members(body)
        self._given = {name: value for name, value in given.items() if bytes(value) != b"null"}
        self.model = self.read("model", str) or ""
        if b"null" in bytes(self._given.get("messages", NOTHING)):
            self._given["messages"] = _less_nulls(self._given["messages"])
        self.messages: list[Message] = self.read("messages", list[Message]) or []
        self.tools: list[ToolDefinition] = self.read("tools", list[ToolDefinition]) or []
        self.format = self.read("response_format", TextFormat | JsonFormat | SchemaFormat)
        self.choice = self.read("tool_choice", Literal["none", "auto", "required"] | Chosen)
        self.one_call = self.read("parallel_tool_calls", bool) is False
        self.stop = _listed(self.read("stop", str | list[str]))
        self.streams = bool(self.read("stream", bool))
        options = self.read("stream_options", StreamOptions)
        self.shows_usage = bool(options and options.include_usage)
        if options and options.include_obfuscation:
            raise self.refusal("stream_options.include_obfuscation", "events are not padded here")
        self.own: dict[str, Raw] = self.read(words.member, dict[str, Raw]) or {}
        for name in SAID_ABOVE:
            if name in self.own:
                raise self.refusal(f"{words.member}.{name}", f"'{name}' of the request says it")
        self._check()

    def read(self, name: str, kind: Any) -> Any:
        """The member of that name, if it is there. Raises: InvalidRequest, where it is something else."""
        if name not in self._given:
            return None
        try:
            return msgspec.json.decode(self._given[name], type=kind)
        except msgspec.ValidationError as error:
            said = str(error)
            place = _PLACE.search(said)
            path, why = name + (place[1] if place else ""), _PLACE.sub("", said)
            if unknown := _UNKNOWN.match(why):
                path, why = f"{path}.{unknown[1]}", NOT_KNOWN
            raise self.refusal(path, why) from None

    def passed(self) -> Iterator[tuple[str, Raw]]:
        """The path and the text of each member that goes out as it came."""
        for name, value in self._given.items():
            rule = self._words.rules.get(name)
            if isinstance(rule, Passes):
                yield rule.to, value

    def refusal(self, path: str, why: str = "") -> InvalidRequest:
        """The error to raise for a member that has no words at this vendor."""
        message = f"{self._words.vendor} cannot be told '{path}'" + (f": {why}" if why else "")
        return invalid("NotSupported", path, message)

    @property
    def has_lost_reasoning(self) -> bool:
        """Whether the model called tools just now, and what it thought before is not here in the vendor's own words."""
        last = next((m for m in reversed(self.messages) if isinstance(m, User | Assistant)), None)
        return isinstance(last, Assistant) and bool(last.tool_calls) and not last.of(self._words.member)

    @property
    def max_tokens(self) -> int | None:
        return self.either("max_completion_tokens", "max_tokens", int)

    def either(self, name: str, other: str, kind: Any = str) -> Any:
        """The one of two names for one thing that is given. Raises: InvalidRequest, where they differ."""
        one, two = self.read(name, kind), self.read(other, kind)
        if one is not None and two not in (None, one):
            raise self.refusal(other, f"'{name}' says something else")
        return two if one is None else one

    def one_of(self, name: str, said: str, known: Mapping[str, Read]) -> Read:
        """What a word stands for. Raises: InvalidRequest, where it is none of those known."""
        if said not in known:
            raise self.refusal(name, f"'{said}' is none of {', '.join(known)}")
        return known[said]

    def read_own(self, own: dict[str, Raw], name: str, kind: Any, path: str = "") -> Any:
        """Take a member that is the vendor's own out of those. Raises: InvalidRequest, where it is something else."""
        if name not in own:
            return None
        try:
            return msgspec.json.decode(own.pop(name), type=kind)
        except msgspec.ValidationError as error:
            raise self.refusal(f"{path}.{self._words.member}.{name}".lstrip("."), _PLACE.sub("", str(error))) from None

    def nothing_left(self, own: Mapping[str, Raw], path: str) -> None:
        """Raises: InvalidRequest, where there are members of the vendor's that nothing is made of."""
        for name in own:
            raise self.refusal(f"{path}.{self._words.member}.{name}", "nothing is made of it there")

    def merged(self, request: dict[str, Any], own: Mapping[str, Raw], path: str = "") -> dict[str, Any]:
        """The vendor's object for what stands at `path`, by itself the request, with the vendor's own members.

        Raises: InvalidRequest, where one says what is said.
        """
        self._merge(request, own, f"{path}.{self._words.member}".lstrip("."))
        return request

    def _merge(self, into: dict[str, Any], own: Mapping[str, Raw], path: str) -> None:
        for name, value in own.items():
            there: Any = into.get(name)
            try:
                if there is None:
                    into[name] = value
                elif isinstance(there, dict):
                    self._merge(there, members(value), f"{path}.{name}")  # pyright: ignore[reportUnknownArgumentType]
                else:
                    into[name] = there + _list.decode(value)
            except (TypeError, msgspec.ValidationError):
                raise self.refusal(f"{path}.{name}", "another member of the request says it already") from None

    def _check(self) -> None:
        for name, value in self._given.items():
            if name not in VENDORS:
                self._allow(name, name, value)
        for i, message in enumerate(self.messages):
            self._check_message(f"messages[{i}]", message)
        for i, tool in enumerate(self.tools):
            self._check_own(f"tools[{i}]", tool)
            if tool.cache_control:
                self._allow("tools[].cache_control", f"tools[{i}].cache_control")
            if tool.function.strict:
                self._allow("tools[].function.strict", f"tools[{i}].function.strict")

    def _check_message(self, path: str, message: Message) -> None:
        self._check_own(path, message)
        role = str(message.__struct_config__.tag)
        self._allow(f"messages[].role: {role}", f"{path}.role")
        if message.name:
            self._allow("messages[].name", f"{path}.name")
        if isinstance(message, Assistant):
            for name in ("function_call", "audio"):
                if getattr(message, name) is not None:
                    self._allow(f"messages[].{name}", f"{path}.{name}")
            for i, call in enumerate(message.tool_calls or ()):
                self._check_own(f"{path}.tool_calls[{i}]", call)
                _arguments(self, f"{path}.tool_calls[{i}].function.arguments", call)
        if isinstance(message.content, list):
            for i, part in enumerate(message.content):
                self._check_part(f"{path}.content[{i}]", role, part)

    def _check_part(self, path: str, role: str, part: Part) -> None:
        self._check_own(path, part)
        kind = str(part.__struct_config__.tag)
        said_by = "" if role in ("system", "developer", "user") or isinstance(part, Text | Refusal) else f" ({role})"
        self._allow(f"messages[].content[].{kind}{said_by}", f"{path}.{kind}")
        if getattr(part, "cache_control", NOTHING):
            self._allow("messages[].content[].cache_control", f"{path}.cache_control")
        if isinstance(part, Image) and part.image_url.detail not in (None, "auto"):
            self._allow("messages[].content[].image_url.detail", f"{path}.image_url.detail")
        if isinstance(part, File) and part.file.file_id:
            self._allow("messages[].content[].file.file_id", f"{path}.file.file_id")

    def _check_own(self, path: str, given: Own) -> None:
        try:
            given.of(self._words.member)
        except msgspec.ValidationError:
            raise self.refusal(f"{path}.{self._words.member}", "it must be an object") from None

    def _allow(self, rule_path: str, path: str, value: Raw = NOTHING) -> None:
        rule = self._words.rules.get(rule_path)
        if rule is None:
            raise self.refusal(
                path, NOT_KNOWN + f"; what is {self._words.vendor}'s own stands in '{self._words.member}'"
            )
        if isinstance(rule, Refused) and not any(_is_same(value, text) for text in rule.unless):
            raise self.refusal(path, rule.words)


def systems(chat: Chat, blocks: Callable[[Chat, str, Message], list[Any]]) -> list[Any]:
    """What the system and the developer say, in blocks of the vendor's, wherever they do."""
    said = [(f"messages[{i}]", message) for i, message in enumerate(chat.messages) if isinstance(message, System)]
    return [block for path, message in said for block in blocks(chat, path, message)]


def turns(chat: Chat, blocks: Callable[[Chat, str, Message], list[Any]]) -> list[dict[str, Any]]:
    """The turns of user and assistant, each role's in a row as one: results of calls must stand together.

    One that says nothing is none.
    """
    told: list[dict[str, Any]] = []
    for i, message in enumerate(chat.messages):
        if isinstance(message, System):
            continue
        said = blocks(chat, f"messages[{i}]", message)
        role = "assistant" if isinstance(message, Assistant) else "user"
        if said and (not told or told[-1]["role"] != role):
            told.append({"role": role, "content": []})
        if said:
            told[-1]["content"] += said
    if not told:
        raise chat.refusal("messages", NOBODY)
    return told


def schema(chat: Chat, format: SchemaFormat) -> Any:
    """The schema that is asked for, with its description. Raises: InvalidRequest."""
    told = format.json_schema
    try:
        said = members(told.schema)
    except msgspec.DecodeError:
        raise chat.refusal("response_format.json_schema.schema", "it must be an object") from None
    described = {"description": told.description} if told.description and "description" not in said else {}
    return said | described if described else told.schema


def _arguments(chat: Chat, path: str, call: Call) -> None:
    try:
        members(arguments(call))
    except msgspec.DecodeError:
        raise chat.refusal(path, "it must be the JSON text of an object") from None


def _less_nulls(messages: Raw) -> Raw:
    """The same without the members of a message that are null: many clients say so of what it does not have."""
    try:
        each = [{k: v for k, v in one.items() if bytes(v) != b"null"} for one in _objects.decode(messages)]
    except msgspec.ValidationError:
        return messages  # what is wrong is told when they are read
    return Raw(msgspec.json.encode(each))


def _is_same(value: Raw, text: str) -> bool:
    return bool(value) and msgspec.json.decode(value) == msgspec.json.decode(text)


def _listed(stop: str | list[str] | None) -> list[str]:
    return [stop] if isinstance(stop, str) else stop or []


def put(request: dict[str, Any], path: str, value: Any) -> None:
    """Set a member by its path, `inferenceConfig.maxTokens`."""
    *above, name = path.split(".")
    for step in above:
        request = request.setdefault(step, {})
    request[name] = value

"""A chat request of OpenAI's, read so that it can be said in another vendor's words; what has no words is refused.

Source: https://platform.openai.com/docs/api-reference/chat/create
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import Raw

from aiserver.errors import InvalidRequest
from aiserver.providers.translation.capabilities import Passes, Words
from aiserver.providers.translation.messages import (
    Assistant,
    Chosen,
    JsonFormat,
    Message,
    SchemaFormat,
    StreamOptions,
    TextFormat,
    ToolDefinition,
    User,
    members,
)
from aiserver.providers.translation.nulls import is_absent, without_nulls
from aiserver.providers.translation.tool_call_ids import pair
from aiserver.providers.translation.validate import NOT_KNOWN, judge
from aiserver.wire.validation import invalid

SAID_ABOVE = ("model", "messages", "stream")  # by which a caller is answered, and another provider asked
Read = TypeVar("Read")

_list = msgspec.json.Decoder(list[Raw])
_PLACE = re.compile(r" - at `\$(.*)`$")
_UNKNOWN = re.compile(r"^Object contains unknown field `(.*)`$")


class Chat:
    """One request, as one vendor's `words` can say it."""

    def __init__(self, body: bytes, words: Words) -> None:
        """Raises: InvalidRequest, that names the member and the vendor, where there are no words for it."""
        self.words = words
        given = members(body)
        self.given = {name: value for name, value in given.items() if not is_absent(value)}
        self.model = self.read("model", str) or ""
        self.messages: list[Message] = self.read("messages", list[Message]) or []
        for i in pair(self.messages, words.call_id):
            raise self.refusal(f"messages[{i}].tool_call_id", "it must be the id of a call before it")
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
        judge(self)

    def read(self, name: str, kind: Any) -> Any:
        """The member of that name, if it is there. Raises: InvalidRequest, where it is something else."""
        if name not in self.given:
            return None
        try:
            return _decode(self.given[name], kind)
        except msgspec.ValidationError as error:
            said = str(error)
            place = _PLACE.search(said)
            path, why = name + (place[1] if place else ""), _PLACE.sub("", said)
            if unknown := _UNKNOWN.match(why):
                path, why = f"{path}.{unknown[1]}", NOT_KNOWN
            raise self.refusal(path, why) from None

    def passed(self) -> Iterator[tuple[str, Raw]]:
        """The path and the text of each member that goes out as it came."""
        for name, value in self.given.items():
            rule = self.words.rules.get(name)
            if isinstance(rule, Passes):
                yield rule.to, value

    def refusal(self, path: str, why: str = "") -> InvalidRequest:
        """The error to raise for a member that has no words at this vendor."""
        message = f"{self.words.vendor} cannot be told '{path}'" + (f": {why}" if why else "")
        return invalid("NotSupported", path, message)

    @property
    def has_lost_reasoning(self) -> bool:
        """Whether the model called tools just now, and what it thought before is not here in the vendor's own words."""
        last = next((m for m in reversed(self.messages) if isinstance(m, User | Assistant)), None)
        return isinstance(last, Assistant) and bool(last.tool_calls) and not last.of(self.words.member)

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
            raise self.refusal(f"{path}.{self.words.member}.{name}".lstrip("."), _PLACE.sub("", str(error))) from None

    def nothing_left(self, own: Mapping[str, Raw], path: str) -> None:
        """Raises: InvalidRequest, where there are members of the vendor's that nothing is made of."""
        for name in own:
            raise self.refusal(f"{path}.{self.words.member}.{name}", "nothing is made of it there")

    def merged(self, request: dict[str, Any], own: Mapping[str, Raw], path: str = "") -> dict[str, Any]:
        """The vendor's object for what stands at `path`, by itself the request, with the vendor's own members.

        Raises: InvalidRequest, where one says what is said.
        """
        self._merge(request, own, f"{path}.{self.words.member}".lstrip("."))
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


def _decode(value: Raw, kind: Any) -> Any:
    try:
        return msgspec.json.decode(value, type=kind)
    except msgspec.ValidationError:
        return msgspec.json.decode(msgspec.json.encode(without_nulls(value, kind)), type=kind)


def _listed(stop: str | list[str] | None) -> list[str]:
    return [stop] if isinstance(stop, str) else stop or []

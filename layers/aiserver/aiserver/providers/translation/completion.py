"""Answers in OpenAI's words, made of what another vendor said.

Source: https://platform.openai.com/docs/api-reference/chat/object
https://platform.openai.com/docs/api-reference/chat-streaming
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from aiserver.wire import sse

DONE = sse.event(sse.DONE)


@dataclass(frozen=True)
class Usage:
    """Tokens. `prompt` holds those that were read from a cache, `completion` those that were reasoning; as OpenAI's."""

    prompt: int = 0
    completion: int = 0
    cached: int | None = None
    reasoning: int | None = None

    @property
    def told(self) -> dict[str, Any]:
        told: dict[str, Any] = {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
        }
        if self.cached is not None:
            told["prompt_tokens_details"] = {"cached_tokens": self.cached}
        if self.reasoning is not None:
            told["completion_tokens_details"] = {"reasoning_tokens": self.reasoning}
        return told

    @property
    def text(self) -> str:
        """As it is kept with a job."""
        return msgspec.json.encode(self.told).decode()


@dataclass
class Choice:
    """One answer. `own` are the members of its message that only the vendor has, by the vendor's name."""

    content: list[str] = field(default_factory=list[str])
    reasoning: list[str] = field(default_factory=list[str])
    calls: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    finish: str = "stop"
    own: dict[str, Any] = field(default_factory=dict[str, Any])
    logprobs: Any = None

    @property
    def told(self) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": "".join(self.content) if self.content else None}
        if self.reasoning:
            message["reasoning_content"] = "".join(self.reasoning)
        message["refusal"] = None
        if self.calls:
            message["tool_calls"] = self.calls
        return {"message": message | self.own, "logprobs": self.logprobs, "finish_reason": self.finish}


def call(id: str, name: str, arguments: str, **more: Any) -> dict[str, Any]:
    """A call of a tool."""
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}, **more}


def completion(
    id: str, model: str, created_s: int, choices: Sequence[Choice], usage: Usage | None, own: Mapping[str, Any]
) -> bytes:
    """A whole answer. `own` are the members that only the vendor has, by the vendor's name."""
    told: dict[str, Any] = {
        "id": id,
        "object": "chat.completion",
        "created": created_s,
        "model": model,
        "choices": [{"index": i, **choice.told} for i, choice in enumerate(choices)],
        "usage": usage.told if usage else None,
    }
    return msgspec.json.encode(told | dict(own))


class Chunks:
    """The events of one answer. Its first says that the assistant speaks, and none comes before there is a word.

    So one that fails before its first word can still be asked of another provider.
    """

    def __init__(self, created_s: int, *, shows_usage: bool) -> None:
        self.id = ""
        self.model = ""
        self._created_s = created_s
        self._shows_usage = shows_usage
        self._begun: set[int] = set()

    def delta(
        self,
        index: int = 0,
        *,
        finish: str | None = None,
        logprobs: Any = None,
        own: Mapping[str, Any] | None = None,
        **said: Any,
    ) -> bytes:
        """A piece of what is said, or why no more is. `own` are the event's members that only the vendor has."""
        if index not in self._begun:
            self._begun.add(index)
            said = {"role": "assistant", "content": None if "tool_calls" in said else ""} | said
        choice = {"index": index, "delta": said, "logprobs": logprobs, "finish_reason": finish}
        return self._event([choice], ({"usage": None} if self._shows_usage else {}) | dict(own or {}))

    def end(self, usage: Usage | None) -> bytes:
        """What comes after the last piece: the usage, if the caller asked for it."""
        return (self._event([], {"usage": usage.told}) if usage and self._shows_usage else b"") + DONE

    def _event(self, choices: list[dict[str, Any]], more: Mapping[str, Any]) -> bytes:
        told: dict[str, Any] = {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self._created_s,
            "model": self.model,
            "choices": choices,
        }
        return sse.event(msgspec.json.encode(told | dict(more)))


def error_body(message: str, type: str, code: str | None, own: Mapping[str, Any], *, param: str | None = None) -> bytes:
    """An error. `own` is the vendor's whole one, by the vendor's name; `param` the member that it is about."""
    return msgspec.json.encode({"error": {"message": message, "type": type, "code": code, "param": param}, **own})

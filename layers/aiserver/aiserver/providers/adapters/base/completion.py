"""Builds responses and stream events in OpenAI's format from another vendor's.

Source: https://platform.openai.com/docs/api-reference/chat/object
https://platform.openai.com/docs/api-reference/chat-streaming
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from aiserver.wire import sse

DONE = sse.format_event(sse.DONE)


@dataclass(frozen=True)
class Usage:
    """Token counts. As OpenAI's, `prompt` includes cached tokens, `completion` includes reasoning tokens."""

    prompt: int = 0
    completion: int = 0
    cached: int | None = None
    reasoning: int | None = None

    @property
    def to_openai(self) -> dict[str, Any]:
        usage: dict[str, Any] = {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
        }
        if self.cached is not None:
            usage["prompt_tokens_details"] = {"cached_tokens": self.cached}
        if self.reasoning is not None:
            usage["completion_tokens_details"] = {"reasoning_tokens": self.reasoning}
        return usage

    @property
    def text(self) -> str:
        """The JSON text that is stored with a job."""
        return msgspec.json.encode(self.to_openai).decode()


@dataclass
class Choice:
    """One choice. `extensions` are the vendor-specific members of its message, under the vendor's name."""

    content: list[str] = field(default_factory=list[str])
    reasoning: list[str] = field(default_factory=list[str])
    tool_calls: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    finish: str = "stop"
    extensions: dict[str, Any] = field(default_factory=dict[str, Any])
    logprobs: Any = None

    @property
    def to_openai(self) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": "".join(self.content) if self.content else None}
        if self.reasoning:
            message["reasoning_content"] = "".join(self.reasoning)
        message["refusal"] = None
        if self.tool_calls:
            message["tool_calls"] = self.tool_calls
        return {"message": message | self.extensions, "logprobs": self.logprobs, "finish_reason": self.finish}


def tool_call(id: str, name: str, arguments: str, **extensions: Any) -> dict[str, Any]:
    """A tool call in OpenAI's format; `arguments` is JSON text."""
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}, **extensions}


def build_completion(
    id: str, model: str, created_s: int, choices: Sequence[Choice], usage: Usage | None, extensions: Mapping[str, Any]
) -> bytes:
    """A complete response. `extensions` are the vendor-specific members, under the vendor's name."""
    completion: dict[str, Any] = {
        "id": id,
        "object": "chat.completion",
        "created": created_s,
        "model": model,
        "choices": [{"index": i, **choice.to_openai} for i, choice in enumerate(choices)],
        "usage": usage.to_openai if usage else None,
    }
    return msgspec.json.encode(completion | dict(extensions))


class ChunkBuilder:
    """Builds the events of one streamed response; the first event of a choice contains the role.

    No event is sent before there is content: a stream that fails earlier can still fail over to another provider.
    """

    def __init__(self, created_s: int, *, include_usage: bool) -> None:
        self.id = ""
        self.model = ""
        self._created_s = created_s
        self._include_usage = include_usage
        self._started: set[int] = set()

    def delta(
        self,
        index: int = 0,
        *,
        finish: str | None = None,
        logprobs: Any = None,
        extensions: Mapping[str, Any] | None = None,
        **delta: Any,
    ) -> bytes:
        """An event with content, or the finish reason. `extensions` are the event's vendor-specific members."""
        if index not in self._started:
            self._started.add(index)
            delta = {"role": "assistant", "content": None if "tool_calls" in delta else ""} | delta
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return self._event([choice], ({"usage": None} if self._include_usage else {}) | dict(extensions or {}))

    def end(self, usage: Usage | None) -> bytes:
        """The events after the last delta: the usage, if the caller requested it, and `[DONE]`."""
        return (self._event([], {"usage": usage.to_openai}) if usage and self._include_usage else b"") + DONE

    def _event(self, choices: list[dict[str, Any]], members: Mapping[str, Any]) -> bytes:
        chunk: dict[str, Any] = {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self._created_s,
            "model": self.model,
            "choices": choices,
        }
        return sse.format_event(msgspec.json.encode(chunk | dict(members)))


def build_error(
    message: str, type: str, code: str | None, extensions: Mapping[str, Any], *, param: str | None = None
) -> bytes:
    """An error. `extensions` is the vendor's complete error, under the vendor's name; `param` the request field."""
    return msgspec.json.encode(
        {"error": {"message": message, "type": type, "code": code, "param": param}, **extensions}
    )

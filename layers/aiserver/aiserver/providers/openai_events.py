"""What the events of an OpenAI stream mean; all but one pass as they came.

Source: https://platform.openai.com/docs/api-reference/chat-streaming
https://platform.openai.com/docs/api-reference/responses-streaming
"""

import re

import msgspec

from aiserver.providers.openai_answers import NO_ERROR, failure_within, kept_usage
from aiserver.providers.provider import Provider
from aiserver.wire import scan, sse

ENDS = ("response.completed", "response.incomplete", "response.failed")
_SAYS = re.compile(rb'"(?:content|reasoning_content|reasoning|refusal|arguments|delta)"\s*:\s*"(?!")')
_HAS_ERROR = re.compile(rb'"error"\s*:\s*[{"]')


class _Choice(msgspec.Struct):
    index: int = 0
    finish_reason: str | None = None


class _Event(msgspec.Struct):
    """What is read of an event; of a chat its choices and usage, of a response its type and the response within."""

    choices: list[_Choice] | None = None
    usage: msgspec.Raw = msgspec.Raw(b"")
    error: msgspec.Raw = msgspec.Raw(b"")
    object: str | None = None
    type: str | None = None
    response: msgspec.Raw = msgspec.Raw(b"")

    @property
    def is_error(self) -> bool:
        return bytes(self.error) not in (b"", *NO_ERROR) or "error" in (self.object, self.type)


_DECODER = msgspec.json.Decoder(_Event)


class OpenAiEvents:
    """stream.Translation of OpenAI's own events.

    With `hides_usage` the usage was not asked for by our caller, and the event that holds nothing else is kept back.
    A chat is whole once `[DONE]` has come, or each choice that began has a reason to have finished.
    """

    def __init__(self, provider: Provider, operation: str, *, hides_usage: bool, model_is_configured: bool) -> None:
        self.usage: str | None = None
        self.pieces = 0
        self.is_whole = False
        self.is_over = False
        self._provider = provider
        self._is_chat = operation == "chat.completions"
        self._hides_usage = hides_usage
        self._model_is_configured = model_is_configured
        self._unfinished: dict[int, bool] = {}  # by the index of each choice that has begun

    def told(self, event: bytes) -> bytes:
        data = sse.data(event)
        if data.strip() == sse.DONE:
            self.is_whole = self.is_over = True
            return event
        read = _read(data)
        if read is None:  # a comment, or what nobody knows
            if sse.names_error(event) or _HAS_ERROR.search(data):
                self._fail(sse.data(event, b"error") or data)
            return event
        if read.is_error or sse.names_error(event):
            self._fail(data)
        self.pieces += bool(_SAYS.search(data))
        self._see_end(read)
        if usage := kept_usage(_usage(read)):
            self.usage = usage
            if self._hides_usage and read.choices == []:
                return b""
        return event

    def _see_end(self, read: _Event) -> None:
        if not self._is_chat:
            self.is_whole = self.is_whole or read.type in ENDS
        elif read.choices:
            self._unfinished |= {choice.index: not choice.finish_reason for choice in read.choices}
            self.is_whole = not any(self._unfinished.values())

    def _fail(self, data: bytes) -> None:
        began, configured = self.pieces > 0, self._model_is_configured
        raise failure_within(self._provider, data, has_begun=began, model_is_configured=configured)


def _read(data: bytes) -> _Event | None:
    try:
        return _DECODER.decode(scan.sole(data) if data.startswith(b"[") else data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _usage(read: _Event) -> bytes:
    """Of a chat it stands in the event itself, of a response in the response within."""
    within = scan.members(bytes(read.response), "usage") if read.response else None
    return bytes(read.usage) or (within or {}).get("usage", b"")

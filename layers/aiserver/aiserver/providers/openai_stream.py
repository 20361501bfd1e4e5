"""What the events of an OpenAI stream mean; all but one pass as they came.

Source: https://platform.openai.com/docs/api-reference/chat-streaming
https://platform.openai.com/docs/api-reference/responses-streaming
"""

import re
from collections.abc import Mapping

import msgspec

from aiserver.errors import ProviderError
from aiserver.limits import MAX_CHOICES, MAX_ERROR_BYTES, MAX_EVENT_VALUES
from aiserver.providers.openai_response import NO_ERROR, failed_choice, failure_within, kept_usage, no_answer
from aiserver.providers.provider import Provider
from aiserver.wire import json_scan, sse
from aiserver.wire.json_text import count_values

READ = ("choices", "usage", "error", "object", "type", "response")
ENDS = (b'"response.completed"', b'"response.incomplete"', b'"response.failed"')
NOT_FINISHED = (b"", b"null", b'""', b"false")
_SAYS = re.compile(rb'"(?:content|reasoning_content|reasoning|refusal|arguments|delta)"\s*:\s*"(?!")')
# Of what is no JSON, as Python writes NaN: in a JSON text, what stands within a string has its quotes escaped.
_ANSWERS = re.compile(rb'"(?:choices|response\.[a-z_.]+)"')
_FINISHED = re.compile(rb'"finish_reason"\s*:\s*"(?!")')
_NO_CHOICE = re.compile(rb"(?:null|\[\s*\])?")
_INDEX_BYTES = 32  # of a choice's index, by which it is known
_BEGINS_WITH_ERROR = re.compile(rb'\s*\{\s*"error"\s*:\s*[{"\[]')


class _Choice(msgspec.Struct):
    """What is read of a choice, whatever type a server gives it."""

    index: msgspec.Raw = msgspec.Raw(b"")
    finish_reason: msgspec.Raw = msgspec.Raw(b"")
    error: msgspec.Raw = msgspec.Raw(b"")


_CHOICES = msgspec.json.Decoder(list[_Choice])


class OpenAiEvents:
    """stream.Translation of OpenAI's own events.

    With `hides_usage` the usage was not asked for by our caller, and the event that holds nothing else is kept back.
    A chat is whole once `[DONE]` has come, or each choice that began has a reason to have finished.
    Events before the first of the answer wait for it: without one, `[DONE]` ends no answer but an error.
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
        self._unfinished: dict[bytes, bool] = {}  # by the index of each choice that has begun
        self._has_begun = False
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._first = b""  # the data of the first event that held none of the answer

    def told(self, event: bytes) -> bytes:
        data = sse.data(event)
        if data.strip() == sse.DONE:
            if not self._has_begun:
                raise no_answer(self._provider, self._first, {})
            self.is_whole = self.is_over = True
            return event
        self._raise_error(event, data)
        self.pieces += bool(_SAYS.search(data))
        read = json_scan.members(json_scan.sole(data) if data.startswith(b"[") else data, *READ)
        if read is None:  # a comment, or not a JSON object
            self._has_begun = self._has_begun or bool(_ANSWERS.search(data))
            self.is_whole = self.is_whole or bool(self._is_chat and _FINISHED.search(data))
            return self._passed(event) if self._has_begun or not data.strip() else self._wait(event, data)
        self._see_end(read)
        usage = _usage(read)
        self.usage = kept_usage(usage) or self.usage
        if self._hides_usage and usage[:1] == b"{" and _NO_CHOICE.fullmatch(read.get("choices", b"")):
            return b""
        return self._passed(event) if self._has_begun else self._wait(event, data)

    def ended(self) -> bytes:
        return b""

    def _wait(self, event: bytes, data: bytes) -> bytes:
        """For the first event of the answer, as long as there is room."""
        self._first = self._first or data
        self._waiting.append(event)
        self._waiting_bytes += len(event)
        return b"" if self._waiting_bytes <= MAX_ERROR_BYTES else self._passed(b"")

    def _passed(self, event: bytes) -> bytes:
        """The event, after those that waited for it; a comment waits for none."""
        if not self._waiting or not (self._has_begun or self._waiting_bytes > MAX_ERROR_BYTES):
            return event
        waited, self._waiting, self._waiting_bytes = b"".join(self._waiting), [], 0
        return waited + event

    def _see_end(self, read: Mapping[str, bytes]) -> None:
        if not self._is_chat:
            self._has_begun = self._has_begun or read.get("type", b"").startswith(b'"response.')
            self.is_whole = self.is_whole or read.get("type") in ENDS
            return
        choices = read.get("choices", b"")
        if count_values(choices, MAX_EVENT_VALUES) > MAX_EVENT_VALUES:
            raise self._too_many()
        for choice in _choices(choices):
            if error := failed_choice(bytes(choice.finish_reason), bytes(choice.error)):
                raise self._failure(error)
            index, has_finished = bytes(choice.index)[:_INDEX_BYTES], bytes(choice.finish_reason) not in NOT_FINISHED
            self._unfinished[index] = self._unfinished.get(index, True) and not has_finished
        if len(self._unfinished) > MAX_CHOICES:
            raise self._too_many()
        self._has_begun = self._has_begun or bool(self._unfinished)
        self.is_whole = bool(self._unfinished) and not any(self._unfinished.values())

    def _too_many(self) -> ProviderError:
        return ProviderError(f"Provider {self._provider.name} sent too many choices", may_be_billed=True)

    def _raise_error(self, event: bytes, data: bytes) -> None:
        told = sse.data(event, b"error") if b"error" in event else b""
        if told or _is_error(data) or (data and sse.names_error(event)):
            raise self._failure(told or data)

    def _failure(self, data: bytes) -> ProviderError:
        began, configured = self.pieces > 0, self._model_is_configured
        return failure_within(self._provider, data, has_begun=began, model_is_configured=configured)


def _is_error(data: bytes) -> bool:
    if b"error" not in data:
        return False
    read = json_scan.members(json_scan.sole(data) if data.startswith(b"[") else data, "error", "object", "type")
    if read is None:
        return bool(_BEGINS_WITH_ERROR.match(data))
    return read.get("error", b"null") not in NO_ERROR or b'"error"' in (read.get("object"), read.get("type"))


def _choices(text: bytes) -> list[_Choice]:
    try:
        return _CHOICES.decode(text) if text else []
    except (msgspec.DecodeError, RecursionError):
        return []


def _usage(read: Mapping[str, bytes]) -> bytes:
    """Of a chat it stands in the event itself, of a response in the response within."""
    within = json_scan.members(read["response"], "usage") if "response" in read else None
    return read.get("usage") or (within or {}).get("usage", b"")

"""Checks the events of an OpenAI stream. All pass unchanged, except the usage event that only the gateway requested.

Source: https://platform.openai.com/docs/api-reference/chat-streaming
https://platform.openai.com/docs/api-reference/responses-streaming
"""

import re
from collections.abc import Callable, Mapping

import msgspec

from aiserver.errors import ProviderError
from aiserver.limits import MAX_CHOICES, MAX_ERROR_BYTES, MAX_EVENT_VALUES
from aiserver.operations import CHAT, Operation
from aiserver.providers.adapters.openai.errors import (
    EMPTY_ERRORS,
    choice_error,
    empty_response_error,
    map_stream_error,
)
from aiserver.providers.adapters.openai.response import storable_usage
from aiserver.providers.call import Upstream
from aiserver.wire import json_scan, sse
from aiserver.wire.json_text import count_values

READ_MEMBERS = ("choices", "usage", "error", "object", "type", "response")
NOT_FINISHED = (b"", b"null", b'""', b"false")
_CONTENT = re.compile(rb'"(?:content|reasoning_content|reasoning|refusal|arguments|delta)"\s*:\s*"(?!")')
# For data that is not valid JSON, such as Python's NaN. Quotes within JSON strings are escaped and never match.
_RESPONSE = re.compile(rb'"(?:choices|response\.[a-z_.]+)"')
_FINISHED = re.compile(rb'"finish_reason"\s*:\s*"(?!")')
_NO_CHOICE = re.compile(rb"(?:null|\[\s*\])?")
_INDEX_BYTES = 32  # of a choice's index, used as its key
_BEGINS_WITH_ERROR = re.compile(rb'\s*\{\s*"error"\s*:\s*[{"\[]')


class _Choice(msgspec.Struct):
    """The members of a choice that are read, of any JSON type."""

    index: msgspec.Raw = msgspec.Raw(b"")
    finish_reason: msgspec.Raw = msgspec.Raw(b"")
    error: msgspec.Raw = msgspec.Raw(b"")


_CHOICES = msgspec.json.Decoder(list[_Choice])


class OpenAiEventMapper:
    """The EventMapper of OpenAI's events.

    With `hides_usage` the caller did not request the usage, and the event that contains only usage is dropped.
    `media_usage` computes the usage of a media operation from an event with usage (b"": there was none), and the number
    of events that completed an output.
    A chat is complete after `[DONE]`, or when each choice has a finish reason.
    Events before the first content event are buffered until it arrives. A `[DONE]` without content is an error.
    """

    def __init__(
        self,
        upstream: Upstream,
        operation: Operation,
        *,
        hides_usage: bool,
        media_usage: Callable[[bytes, int], str | None] | None = None,
    ) -> None:
        self.request_id: str | None = None
        self._usage: str | None = None
        self._media_usage = media_usage
        self._usage_event = b""
        self._end_events = 0
        self.content_events = 0
        self.is_complete = False
        self.is_done = False
        self._upstream = upstream
        self._is_chat = operation is CHAT
        self._is_media = operation.is_media
        self._end_types = [f'"{type}"'.encode() for type in operation.end_events]
        self._type_prefixes = tuple(f'"{type.partition(".")[0]}.'.encode() for type in operation.end_events)
        self._hides_usage = hides_usage
        self._unfinished: dict[bytes, bool] = {}  # by the index of each choice that has begun
        self._has_content = False
        self._buffered: list[bytes] = []
        self._buffered_bytes = 0
        self._first_data = b""  # the data of the first event without content

    @property
    def usage(self) -> str | None:
        """Media count even if the stream breaks off, by what the request shows."""
        return self._media_usage(self._usage_event, self._end_events) if self._media_usage else self._usage

    def on_event(self, event: bytes) -> bytes:
        data = sse.event_data(event)
        if data.strip() == sse.DONE:
            if not self._has_content:
                raise empty_response_error(self._upstream.provider, self._first_data, {})
            self.is_complete = self.is_done = True
            return event
        self._raise_if_error(event, data)
        self.content_events += self._has_output(data)
        members = json_scan.find_members(
            json_scan.unwrap_single(data) if data.startswith(b"[") else data, *READ_MEMBERS
        )
        if members is None:  # a comment, or not a JSON object
            has_text = self._is_media and bool(data.strip())  # the segments of a transcript as plain text
            self._has_content = self._has_content or has_text or bool(_RESPONSE.search(data))
            self.is_complete = self.is_complete or bool(self._is_chat and _FINISHED.search(data))
            return self._release_buffer(event) if self._has_content or not data.strip() else self._buffer(event, data)
        self._track_completion(members)
        usage = _find_usage(members)
        self._usage = storable_usage(usage) or self._usage
        self._usage_event = data if usage else self._usage_event
        if self._hides_usage and usage[:1] == b"{" and _NO_CHOICE.fullmatch(members.get("choices", b"")):
            return b""
        return self._release_buffer(event) if self._has_content else self._buffer(event, data)

    def _has_output(self, data: bytes) -> bool:
        """Whether an event contains generated output; of media, whose events differ, every one but the last."""
        if self._is_media:
            return bool(data.strip()) and not any(type in data for type in self._end_types)
        return bool(_CONTENT.search(data))

    def on_end(self) -> bytes:
        return b""

    def _buffer(self, event: bytes, data: bytes) -> bytes:
        """Keep the event until the first content event, up to MAX_ERROR_BYTES in total."""
        self._first_data = self._first_data or data
        self._buffered.append(event)
        self._buffered_bytes += len(event)
        return self._release_buffer(b"")

    def _release_buffer(self, event: bytes) -> bytes:
        """Return the event, preceded by the buffered events once content has arrived; a comment passes at once."""
        if not self._buffered or not (self._has_content or self._buffered_bytes > MAX_ERROR_BYTES):
            return event
        buffered, self._buffered, self._buffered_bytes = b"".join(self._buffered), [], 0
        return buffered + event

    def _track_completion(self, members: Mapping[str, bytes]) -> None:
        if not self._is_chat:
            has_result = self._is_media or members.get("type", b"").startswith(self._type_prefixes)
            self._has_content = self._has_content or has_result
            self._end_events += members.get("type") in self._end_types
            self.is_complete = self._end_events > 0
            return
        choices = members.get("choices", b"")
        if count_values(choices, MAX_EVENT_VALUES) > MAX_EVENT_VALUES:
            raise self._too_many_choices()
        for choice in _decode_choices(choices):
            if error := choice_error(bytes(choice.finish_reason), bytes(choice.error)):
                raise self._map_error(error)
            index, has_finished = bytes(choice.index)[:_INDEX_BYTES], bytes(choice.finish_reason) not in NOT_FINISHED
            self._unfinished[index] = self._unfinished.get(index, True) and not has_finished
        if len(self._unfinished) > MAX_CHOICES:
            raise self._too_many_choices()
        self._has_content = self._has_content or bool(self._unfinished)
        self.is_complete = bool(self._unfinished) and not any(self._unfinished.values())

    def _too_many_choices(self) -> ProviderError:
        return ProviderError(
            f"Provider {self._upstream.provider.name}: the response has too many choices", may_be_billed=True
        )

    def _raise_if_error(self, event: bytes, data: bytes) -> None:
        error = sse.event_data(event, b"error") if b"error" in event else b""
        if error or _is_error(data) or (data and sse.is_error_event(event)):
            raise self._map_error(error or data)

    def _map_error(self, data: bytes) -> ProviderError:
        return map_stream_error(self._upstream, data, has_content=self.content_events > 0)


def _is_error(data: bytes) -> bool:
    if b"error" not in data:
        return False
    members = json_scan.find_members(
        json_scan.unwrap_single(data) if data.startswith(b"[") else data, "error", "object", "type"
    )
    if members is None:
        return bool(_BEGINS_WITH_ERROR.match(data))
    return members.get("error", b"null") not in EMPTY_ERRORS or b'"error"' in (
        members.get("object"),
        members.get("type"),
    )


def _decode_choices(text: bytes) -> list[_Choice]:
    try:
        return _CHOICES.decode(text) if text else []
    except (msgspec.DecodeError, RecursionError):
        return []


def _find_usage(members: Mapping[str, bytes]) -> bytes:
    """Return the usage of a chat event, or of the `response` object within a Responses event."""
    response = json_scan.find_members(members["response"], "usage") if "response" in members else None
    return members.get("usage") or (response or {}).get("usage", b"")

"""Requests and responses for audio: formats of transcripts, and usage in seconds of audio or characters of text.

Source: https://platform.openai.com/docs/api-reference/audio
"""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from aiserver.errors import InvalidRequest
from aiserver.operations import SPEECH
from aiserver.providers.adapters.openai.media import MediaRules, render_usage, with_settings
from aiserver.providers.adapters.openai.request import build_json, build_request
from aiserver.providers.adapters.openai.response import storable_usage
from aiserver.providers.call import ProviderCall, Upstream
from aiserver.providers.request import ProviderRequest
from aiserver.providers.response import ProviderResponse
from aiserver.wire import forms, json_scan
from aiserver.wire.forms import Part
from aiserver.wire.media_types import JSON, is_form, media_type
from aiserver.wire.validation import invalid_field

FORMAT = "response_format"
FORMATS = ("json", "text", "srt", "vtt", "verbose_json", "diarized_json")
SEGMENTS_FORMAT = "verbose_json"

PLAIN_TEXT = {"content-type": "text/plain; charset=utf-8"}
TEXT_TYPES = ("text/plain", "text/vtt")  # relayed as they come

_NUMBER = re.compile(rb"[0-9]{1,12}(?:\.[0-9]{1,12})?")

Units = Mapping[str, Any]  # the usage that a request itself shows


@dataclass(frozen=True)
class AudioExchange:
    """The MediaExchange of audio.

    `response_format` is that of a transcript; `measure` returns the usage that the request itself shows.
    """

    request: ProviderRequest
    response_format: str | None
    measure: Callable[[], Units]
    ignored: tuple[str, ...] = ()

    def map_text(self, response: ProviderResponse) -> ProviderResponse:
        return map_text(response, self.response_format)

    def usage(self, body: bytes, end_events: int) -> str | None:
        """Counted even for a stream that breaks off, by what the request shows."""
        return audio_usage(body, self.measure)


def check_audio(upstream: Upstream, call: ProviderCall) -> None:
    """Raises: InvalidRequest, when the provider is known not to support the request's `response_format`."""
    if not is_form(call.content_type):
        return
    requested = forms.text_value(forms.parse_form(call.body, call.content_type), FORMAT)
    supported = upstream.provider.catalogue_preset.formats_of(upstream.model)
    if requested in FORMATS and supported and requested not in supported:
        raise _unsupported_format(upstream, requested, supported)


def _unsupported_format(upstream: Upstream, requested: str, supported: Sequence[str]) -> InvalidRequest:
    message = (
        f"{FORMAT} '{requested}' is not supported by provider {upstream.provider.name}: use {', '.join(supported)}"
    )
    return invalid_field("InvalidType", FORMAT, message)


def prepare_audio(upstream: Upstream, call: ProviderCall) -> AudioExchange:
    """The request for a provider, with the names and settings of its model."""
    if not is_form(call.content_type):
        body = build_json(upstream, call)
        request = build_request(upstream, call, body, call.content_type)
        return AudioExchange(request, None, lambda: _count_characters(body) if call.operation is SPEECH else {})
    parts = build_form(upstream, call)
    body, content_type = forms.encode_form(parts)
    response_format = forms.text_value(parts, FORMAT)
    request = build_request(upstream, call, body, content_type, response_format)
    return AudioExchange(request, response_format, lambda: _measure_duration(parts))


def build_form(upstream: Upstream, call: ProviderCall) -> list[Part]:
    """The caller's parts in order, with the upstream's model; the settings of the model are added as further parts."""
    parts = forms.with_value(forms.parse_form(call.body, call.content_type), "model", upstream.model)
    parts = with_settings(parts, upstream.settings)
    has_segments = upstream.provider.catalogue_preset.has_format(upstream.model, SEGMENTS_FORMAT)
    if call.is_aiserver and has_segments and forms.text_value(parts, FORMAT) is None:
        parts.append(Part(FORMAT, SEGMENTS_FORMAT.encode()))
    return parts


def map_text(response: ProviderResponse, response_format: str | None) -> ProviderResponse:
    """A transcript that was requested as text, labelled as text.

    vLLM answers `text` with the JSON object of `json`, whose `text` is taken: the call has been paid for
    (https://github.com/vllm-project/vllm/issues/49095). Servers built with FastAPI may send a JSON string.
    whisper.cpp labels text as HTML, which browsers would render.
    """
    content_type = media_type(response.content_type)
    if content_type == JSON and response_format == "text":
        body = response.body.strip()
        text = body if body[:1] == b'"' else (json_scan.find_members(body, "text") or {}).get("text", b"")
        if text[:1] == b'"':
            return replace(
                response, headers=response.headers | PLAIN_TEXT, body=json.loads(text).encode(errors="replace")
            )
    is_labelled = content_type == JSON or content_type in TEXT_TYPES
    return response if is_labelled else replace(response, headers=response.headers | PLAIN_TEXT)


def _count_characters(body: bytes) -> Units:
    text = (json_scan.find_members(body, "input") or {}).get("input", b"")
    return {"characters": len(json.loads(text))} if text[:1] == b'"' else {}


def _measure_duration(parts: Sequence[Part]) -> Units:
    """The seconds of the first file; empty where its format is not known, such as WebM."""
    from aiserver.wire.audio_duration import read_duration_s  # needed only where the provider reports no duration

    file = next((part for part in parts if part.is_file), None)
    seconds = read_duration_s(file.content, file.file_name) if file else None
    return {"type": "duration", "seconds": round(seconds, 3)} if seconds else {}


def audio_usage(body: bytes, measure: Callable[[], Units]) -> str | None:
    """The usage of a response, or of an event: the provider's own, with seconds or characters if it lacks them.

    Seconds are the provider's, in the members where servers report them, else those of the file.
    """
    members = json_scan.find_members(body, "usage", "duration") or {}
    usage = members.get("usage", b"")
    reported = json_scan.find_members(usage, "seconds", "prompt_audio_seconds", "duration") or {}
    texts = [*(reported.get(name) for name in ("seconds", "prompt_audio_seconds", "duration")), members.get("duration")]
    seconds = next((number for text in texts if (number := _number(text or b"")) is not None), None)
    stored = storable_usage(usage)
    if stored and _number(reported.get("seconds", b"")) is not None:
        return stored
    units = measure() if seconds is None else {"type": "duration", "seconds": seconds}
    seconds_of_units = {"seconds": units["seconds"]} if "seconds" in units else {}  # the provider's may be null
    return render_usage(units, stored, seconds_of_units)


def _number(text: bytes) -> int | float | None:
    """A JSON number, or a string of one, as some servers send durations; None for anything else."""
    digits = text.strip(b'"')
    if not _NUMBER.fullmatch(digits):
        return None
    number = float(digits)
    return int(number) if number.is_integer() else number if math.isfinite(number) else None


AUDIO_RULES = MediaRules(check_audio, prepare_audio)

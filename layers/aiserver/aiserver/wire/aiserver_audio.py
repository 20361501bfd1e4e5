"""Binds AI Server's requests for audio: SpeechToText, TextToSpeech and their queued twins."""

import json
from collections.abc import Mapping
from dataclasses import replace

from aiserver import operations
from aiserver.wire.aiserver_members import read_members, with_options
from aiserver.wire.audio_requests import FILE
from aiserver.wire.form_requests import form_request
from aiserver.wire.forms import Part
from aiserver.wire.requests import ModelRequest, parse_options
from aiserver.wire.validation import invalid_field

TRANSCRIPTION_MODEL, SPEECH_MODEL = "speech-to-text", "text-to-speech"  # where a request names none


def bind_speech_to_text(body: bytes, content_type: str, query: Mapping[str, str], *, name: str) -> ModelRequest:
    """Bind SpeechToText or QueueSpeechToText, by `name`. Raises: InvalidRequest."""
    members = read_members(body, content_type, query)
    model = members.model(TRANSCRIPTION_MODEL)
    file = replace(members.file("audio"), name=FILE)
    request = form_request(operations.TRANSCRIPTIONS, model, [Part("model", model.encode()), file])
    return with_options(request, members, name)


def bind_text_to_speech(body: bytes, content_type: str, query: Mapping[str, str], *, name: str) -> ModelRequest:
    """Bind TextToSpeech (`input`) or QueueTextToSpeech (`text`), by `name`; both members are accepted in both.

    `model` may be `{model}:{voice}`. Raises: InvalidRequest.
    """
    members = read_members(body, content_type, query)
    member = "text" if name.startswith("Queue") else "input"
    text = members.text("input") or members.text("text")
    if not text:
        raise invalid_field("NotEmpty", member, f"'{member}' must not be empty")
    model, _, voice = members.model(SPEECH_MODEL).partition(":")
    model = model or SPEECH_MODEL
    speech = {"model": model, "input": text} | ({"voice": voice} if voice else {})
    request_body = json.dumps(speech, ensure_ascii=False, separators=(",", ":")).encode()
    ignored = tuple(hint for hint in ("seed",) if members.has(hint))
    request = ModelRequest(operations.SPEECH, request_body, model, parse_options({}), ignored=ignored)
    return with_options(request, members, name)

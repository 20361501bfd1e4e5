"""Binds OpenAI's requests for audio: forms with a file to transcribe, and texts to speak."""

from dataclasses import replace

from aiserver import operations
from aiserver.operations import Operation
from aiserver.wire import forms
from aiserver.wire.form_requests import STREAM_FIELDS, bind_form, check_is_file, missing_file
from aiserver.wire.forms import Part
from aiserver.wire.requests import ModelRequest, bind_json
from aiserver.wire.schemas import SPEECH
from aiserver.wire.validation import invalid_field

FILE = "file"
FILE_URLS = ("url", "file_url", "file_id")  # some providers accept a reference instead of a file


def bind_transcription(body: bytes, content_type: str, *, is_queued: bool = False) -> ModelRequest:
    """Bind a form of OpenAI's transcriptions. Raises: InvalidRequest."""
    return _bind_audio(operations.TRANSCRIPTIONS, body, content_type, is_queued=is_queued)


def bind_translation(body: bytes, content_type: str, *, is_queued: bool = False) -> ModelRequest:
    """Bind a form of OpenAI's translations. Raises: InvalidRequest."""
    return _bind_audio(operations.TRANSLATIONS, body, content_type, is_queued=is_queued)


def bind_speech(body: bytes, content_type: str, *, is_queued: bool = False) -> ModelRequest:
    """Bind a JSON body of OpenAI's speech. A synchronous response streams. Raises: InvalidRequest."""
    if forms.is_form(content_type):
        raise forms.invalid_form("The request body must be JSON")
    request = bind_json(operations.SPEECH, body, SPEECH, STREAM_FIELDS if is_queued else ())
    return replace(request, stream=not is_queued)


def _bind_audio(operation: Operation, body: bytes, content_type: str, *, is_queued: bool) -> ModelRequest:
    return bind_form(operation, body, content_type, _check_file, is_queued=is_queued)


def _check_file(parts: list[Part]) -> list[Part]:
    """Raises: InvalidRequest, unless there is one file that is not empty, or a reference to a file."""
    files = [part for part in parts if part.name == FILE]
    if len(files) > 1:
        raise invalid_field("Duplicate", FILE, f"'{FILE}' is given more than once")
    if files:
        check_is_file(files[0])
    elif not any(part.name in FILE_URLS for part in parts):
        raise missing_file(parts, FILE, "the audio file")
    return parts

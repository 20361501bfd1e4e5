"""Binds requests for audio: forms with a file to transcribe, and texts to speak.

Forms keep their parts in order, under the names that the caller used; only the gateway's options are removed.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace

from aiserver import operations
from aiserver.errors import InvalidRequest
from aiserver.limits import MAX_NAME_CHARS
from aiserver.operations import Operation
from aiserver.wire import forms
from aiserver.wire.forms import Part
from aiserver.wire.requests import GATEWAY_FIELDS, ModelRequest, bind_json, parse_options
from aiserver.wire.schemas import SPEECH, fold_name
from aiserver.wire.validation import invalid_field

FILE = "file"
FILE_URLS = ("url", "file_url", "file_id")  # some providers accept a reference instead of a file
STREAM_FIELDS = ("stream", "stream_format")  # a queued job cannot stream
TRUE = ("true", "1")


def bind_transcription(body: bytes, content_type: str, *, is_queued: bool = False) -> ModelRequest:
    """Bind a form of OpenAI's transcriptions. Raises: InvalidRequest."""
    return _bind_form(operations.TRANSCRIPTIONS, body, content_type, is_queued=is_queued)


def bind_translation(body: bytes, content_type: str, *, is_queued: bool = False) -> ModelRequest:
    """Bind a form of OpenAI's translations. Raises: InvalidRequest."""
    return _bind_form(operations.TRANSLATIONS, body, content_type, is_queued=is_queued)


def bind_speech(body: bytes, content_type: str, *, is_queued: bool = False) -> ModelRequest:
    """Bind a JSON body of OpenAI's speech. A synchronous response streams. Raises: InvalidRequest."""
    if forms.is_form(content_type):
        raise forms.invalid_form("The request body must be JSON")
    request = bind_json(operations.SPEECH, body, SPEECH, STREAM_FIELDS if is_queued else ())
    return replace(request, stream=not is_queued)


def form_request(operation: Operation, model: str, parts: Sequence[Part]) -> ModelRequest:
    """A request whose options are set later. `parts` include the model."""
    body, content_type = forms.encode_form(parts)
    return ModelRequest(operation, body, model, parse_options({}), content_type=content_type)


def _bind_form(operation: Operation, body: bytes, content_type: str, *, is_queued: bool) -> ModelRequest:
    parts = forms.parse_form(body, content_type)
    fields = _gateway_fields(parts)
    options = parse_options(fields)
    parts = [part for part in parts if part.is_file or fold_name(part.name) not in GATEWAY_FIELDS]
    is_stream = (forms.text_value(parts, "stream") or "").lower() in TRUE and not is_queued
    if is_queued:
        parts = [part for part in parts if part.is_file or part.name not in STREAM_FIELDS]
    model = _check_model(parts)
    _check_file(parts)
    return replace(form_request(operation, model, parts), options=options, stream=is_stream)


def _gateway_fields(parts: Sequence[Part]) -> dict[str, str]:
    """The gateway's options among the text fields, by their canonical names; an empty one is absent."""
    fields: dict[str, str] = {}
    for part in parts:
        name = None if part.is_file else GATEWAY_FIELDS.get(fold_name(part.name))
        if name in fields:
            raise invalid_field("Duplicate", name, f"'{name}' is given more than once")
        if name and part.text:
            fields[name] = part.text
    return fields


def _check_model(parts: Sequence[Part]) -> str:
    model = forms.text_value(parts, "model")
    _check_single(parts, ("model", "stream", "response_format"))
    if not model:
        raise invalid_field("NotEmpty", "model", "'model' must not be empty")
    if len(model) > MAX_NAME_CHARS:
        raise invalid_field("InvalidType", "model", f"'model' should have at most {MAX_NAME_CHARS} characters")
    return model


def _check_single(parts: Sequence[Part], names: Collection[str]) -> None:
    """Raises: InvalidRequest, for a duplicate: the gateway could check one and the provider read the other."""
    for name in names:
        if sum(part.name == name for part in parts) > 1:
            raise invalid_field("Duplicate", name, f"'{name}' is given more than once")


def _check_file(parts: Sequence[Part]) -> None:
    """Raises: InvalidRequest, unless there is one file that is not empty, or a reference to a file."""
    files = [part for part in parts if part.name == FILE]
    if len(files) > 1:
        raise invalid_field("Duplicate", FILE, f"'{FILE}' is given more than once")
    if not files:
        if any(part.name in FILE_URLS for part in parts):
            return
        names = ", ".join(dict.fromkeys(part.name for part in parts)) or "none"
        raise invalid_field("NotEmpty", FILE, f"'{FILE}' is required: the audio file (parts of the form: {names})")
    if not files[0].is_file:
        raise _not_a_file()
    if not files[0].content:
        raise invalid_field("NotEmpty", FILE, f"'{FILE}' must not be empty")


def _not_a_file() -> InvalidRequest:
    return invalid_field("InvalidForm", FILE, f"'{FILE}' must be a file: its part of the form has no file name")

"""Binds AI Server's media requests: members from the form, the query string or a JSON body, and a file of any name.

Clients differ in how they send them: names in any case, files under the name of the file or of the member
(docs/use/audio.md). Members that these requests do not have are ignored, as AI Server does.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from aiserver import operations
from aiserver.limits import MAX_NAME_CHARS
from aiserver.wire import forms
from aiserver.wire.binding import scalar_value
from aiserver.wire.forms import Part
from aiserver.wire.media_requests import FILE, form_request
from aiserver.wire.media_types import is_form
from aiserver.wire.requests import GATEWAY_FIELDS, ModelRequest, parse_options, root_members, validate_json
from aiserver.wire.schemas import fold_name
from aiserver.wire.validation import invalid_field

TRANSCRIPTION_MODEL, SPEECH_MODEL = "speech-to-text", "text-to-speech"  # where a request names none
_OPTIONS = GATEWAY_FIELDS | {"state": "state"}


@dataclass(frozen=True)
class _Members:
    """The members of a request by folded name, and its files."""

    values: Mapping[str, Any]
    files: Sequence[Part]

    def text(self, name: str) -> str:
        """A string member; "" when it is absent. Raises: InvalidRequest."""
        value = self.values.get(fold_name(name))
        if value is None:
            return ""
        if not isinstance(value, str):
            raise invalid_field("InvalidType", name, f"'{name}' must be a string")
        return value

    def file(self, name: str) -> Part:
        """The file named `name` in any case, or the only file. Raises: InvalidRequest."""
        candidates = [file for file in self.files if fold_name(file.name) == name] or list(self.files)
        if not candidates:
            raise invalid_field("NotEmpty", name, f"'{name}' is required: a file in a form")
        if len(candidates) > 1:
            raise invalid_field("InvalidForm", name, f"The form has {len(candidates)} files: name one of them '{name}'")
        if not candidates[0].content:
            raise invalid_field("NotEmpty", name, f"'{name}' must not be empty")
        return candidates[0]


def bind_speech_to_text(body: bytes, content_type: str, query: Mapping[str, str], *, name: str) -> ModelRequest:
    """Bind SpeechToText or QueueSpeechToText, by `name`. Raises: InvalidRequest."""
    members = _read_members(body, content_type, query)
    model = _check_model(members.text("model") or TRANSCRIPTION_MODEL)
    file = replace(members.file("audio"), name=FILE)
    request = form_request(operations.TRANSCRIPTIONS, model, [Part("model", model.encode()), file])
    return _with_options(request, members, name)


def bind_text_to_speech(body: bytes, content_type: str, query: Mapping[str, str], *, name: str) -> ModelRequest:
    """Bind TextToSpeech (`input`) or QueueTextToSpeech (`text`), by `name`; both members are accepted in both.

    `model` may be `{model}:{voice}`. Raises: InvalidRequest.
    """
    members = _read_members(body, content_type, query)
    member = "text" if name.startswith("Queue") else "input"
    text = members.text("input") or members.text("text")
    if not text:
        raise invalid_field("NotEmpty", member, f"'{member}' must not be empty")
    model, _, voice = (members.text("model") or SPEECH_MODEL).partition(":")
    model = model or SPEECH_MODEL
    speech = {"model": _check_model(model), "input": text} | ({"voice": voice} if voice else {})
    request_body = json.dumps(speech, ensure_ascii=False, separators=(",", ":")).encode()
    ignored = tuple(hint for hint in ("seed",) if members.values.get(hint) is not None)
    request = ModelRequest(operations.SPEECH, request_body, model, parse_options({}), ignored=ignored)
    return _with_options(request, members, name)


def _with_options(request: ModelRequest, members: _Members, name: str) -> ModelRequest:
    fields = {option: members.values[folded] for folded, option in _OPTIONS.items() if members.values.get(folded)}
    return replace(request, options=parse_options(fields), name=name)


def _check_model(model: str) -> str:
    if len(model) > MAX_NAME_CHARS:
        raise invalid_field("InvalidType", "model", f"'model' should have at most {MAX_NAME_CHARS} characters")
    return model


def _read_members(body: bytes, content_type: str, query: Mapping[str, str]) -> _Members:
    """The members of the body before those of the query string. Raises: InvalidRequest."""
    values: dict[str, Any] = {fold_name(name): value for name, value in query.items() if value}
    if is_form(content_type):
        parts = forms.parse_form(body, content_type)
        values |= {fold_name(part.name): part.text for part in parts if not part.is_file and part.content}
        return _Members(values, [part for part in parts if part.is_file])
    if body.strip():
        text = validate_json(body)
        values |= {fold_name(member.key): scalar_value(text, member) for member in root_members(text)}
    return _Members(values, [])

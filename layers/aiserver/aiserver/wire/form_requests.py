"""Binds the forms of OpenAI's media requests: the parts in order, under the names that the caller used.

Only the gateway's options are removed from the form.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from aiserver.errors import InvalidRequest
from aiserver.limits import MAX_NAME_CHARS
from aiserver.operations import Operation
from aiserver.wire import forms
from aiserver.wire.forms import Part
from aiserver.wire.requests import GATEWAY_FIELDS, ModelRequest, parse_options
from aiserver.wire.schemas import fold_name
from aiserver.wire.validation import invalid_field

STREAM_FIELDS = ("stream", "stream_format", "partial_images")  # a queued job cannot stream
TRUE = ("true", "1")


def bind_form(
    operation: Operation,
    body: bytes,
    content_type: str,
    check: Callable[[list[Part]], list[Part]],
    *,
    is_queued: bool,
) -> ModelRequest:
    """The request of a form. `check` returns the parts to send. Raises: InvalidRequest; errors of `check`."""
    parts = forms.parse_form(body, content_type)
    fields = _gateway_fields(parts)
    options = parse_options(fields)
    parts = [part for part in parts if part.is_file or fold_name(part.name) not in GATEWAY_FIELDS]
    is_stream = (forms.text_value(parts, "stream") or "").lower() in TRUE and not is_queued
    if is_queued:
        parts = [part for part in parts if part.is_file or part.name not in STREAM_FIELDS]
    model = _check_model(parts)
    return replace(form_request(operation, model, check(parts)), options=options, stream=is_stream)


def form_request(operation: Operation, model: str, parts: Sequence[Part]) -> ModelRequest:
    """A request whose options are set later. `parts` include the model."""
    body, content_type = forms.encode_form(parts)
    return ModelRequest(operation, body, model, parse_options({}), content_type=content_type)


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
    check_single(parts, ("model", "stream", "response_format"))
    if not model:
        raise invalid_field("NotEmpty", "model", "'model' must not be empty")
    if len(model) > MAX_NAME_CHARS:
        raise invalid_field("InvalidType", "model", f"'model' should have at most {MAX_NAME_CHARS} characters")
    return model


def check_single(parts: Sequence[Part], names: Collection[str]) -> None:
    """Raises: InvalidRequest, for a duplicate: the gateway could check one and the provider read the other."""
    for name in names:
        if sum(part.name == name for part in parts) > 1:
            raise invalid_field("Duplicate", name, f"'{name}' is given more than once")


def check_is_file(part: Part) -> None:
    """Raises: InvalidRequest, when a part is a text field, or an empty file."""
    if not part.is_file:
        raise _not_a_file(part.name)
    if not part.content:
        raise invalid_field("NotEmpty", part.name, f"'{part.name}' must not be empty")


def missing_file(parts: Sequence[Part], name: str, description: str) -> InvalidRequest:
    """The error for a form without the file `name`, which lists the parts that it has."""
    names = ", ".join(dict.fromkeys(part.name for part in parts)) or "none"
    return invalid_field("NotEmpty", name, f"'{name}' is required: {description} (parts of the form: {names})")


def _not_a_file(name: str) -> InvalidRequest:
    return invalid_field("InvalidForm", name, f"'{name}' must be a file: its part of the form has no file name")

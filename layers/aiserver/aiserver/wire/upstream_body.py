"""Edits a bound request body for the upstream: sets the model, requests usage, removes vendor-specific members.

All other bytes are unchanged.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from aiserver.wire import json_scan, json_text

VENDORS = ("anthropic", "google", "bedrock")  # members with vendor-specific options

# Searched first: the expression takes several times as long.
_VENDOR_KEYS = (*(f'"{vendor}"'.encode() for vendor in VENDORS), b"\\u00")
_HAS_VENDOR_MEMBER = re.compile(rb'"(?:%b)"\s*:\s*[{n]|\\u00' % "|".join(VENDORS).encode())
_OBJECT_OR_NULL = b"{n"  # the first bytes of an object and of null
_NESTED_MEMBERS: Mapping[str, Any] = {
    "messages": {"content": {}, "tool_calls": {}},
    "tools": {},
}  # positions below the root
_MODEL_KEY = re.compile(rb'"model"[ \t\n\r]*:[ \t\n\r]*')


def with_model(body: bytes, model: str) -> bytes:
    """The body with this model; the same bytes when it names the model already, in any escaping."""
    old_text = _model_text(body)
    if old_text is None or json.loads(old_text) == model:
        return body
    new_text = json.dumps(model).encode()
    return _replace_outer_model(body, old_text, new_text) or json_text.replace_member(body, "model", model)


def _replace_outer_model(body: bytes, old_text: bytes, new_text: bytes) -> bytes | None:
    """The body with its first or last `model` replaced; None when neither is the root's.

    Nearly always one of them is, which the edited body proves; finding the root's among all members takes longer.
    """
    for position in (body.find(b'"model"'), body.rfind(b'"model"')):
        key = _MODEL_KEY.match(body, max(0, position))
        if key and body.startswith(old_text, key.end()):
            edited = body[: key.end()] + new_text + body[key.end() + len(old_text) :]
            if _model_text(edited) == new_text:
                return edited
    return None


def with_default_members(body: bytes, defaults: Mapping[str, Any]) -> bytes:
    """The body with each of these members that it lacks; the same bytes when it lacks none."""
    present = {member.key for member in json_text.parse_members(body)} if defaults else set[str]()
    for name, value in defaults.items():
        if name not in present:
            body = json_text.with_member(body, name, json.dumps(value).encode())
    return body


def with_usage(body: bytes) -> bytes:
    """The body with `stream_options.include_usage` set; the same bytes when it is set already."""
    members = {member.key: member for member in json_text.parse_members(body)}
    options = members.get("stream_options")
    if options is None:
        return json_text.with_member(body, "stream_options", b'{"include_usage":true}')
    text = body[options.value_start : options.value_end]
    texts = {member.key: text[member.value_start : member.value_end] for member in json_text.parse_members(text)}
    if texts.get("include_usage") == b"true":
        return body
    new_text = json_text.with_member(
        json_text.without_members(text, ["include_usage"]) if texts else b"{}", "include_usage", b"true"
    )
    return json_text.apply_edits(body, [json_text.Edit(options.value_start, options.value_end, new_text)])


def without_vendor_members(body: bytes) -> bytes:
    """The body without vendor-specific objects and nulls; the same bytes when it contains none."""
    if any(key in body for key in _VENDOR_KEYS) and _HAS_VENDOR_MEMBER.search(body):
        return _remove_vendor_members(body, _NESTED_MEMBERS)
    return body


def _remove_vendor_members(body: bytes, nested: Mapping[str, Any]) -> bytes:
    edits = [
        json_text.Edit(start, end, _remove_vendor_members(body[start:end], nested[member.key]))
        for member in json_text.parse_members(body)
        if member.key in nested and body[member.value_start : member.value_start + 1] == b"["
        for start, end in json_text.iterate_elements(body, member.value_start)
        if body[start : start + 1] == b"{" and _HAS_VENDOR_MEMBER.search(body, start, end)
    ]
    edited = json_text.apply_edits(body, edits)
    vendor_keys = [
        m.key
        for m in json_text.parse_members(edited)
        if m.key in VENDORS and edited[m.value_start : m.value_start + 1] in _OBJECT_OR_NULL
    ]
    return json_text.without_members(edited, vendor_keys)


def _model_text(body: bytes) -> bytes | None:
    """The JSON text of the root's `model`."""
    return (json_scan.find_members(body, "model") or {}).get("model")

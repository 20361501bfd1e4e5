"""Puts into a body that was bound what the upstream is to read there, and takes out what it is not.

Every other byte stays as it is.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from aiserver.wire import json_scan, json_text

VENDORS = ("anthropic", "google", "bedrock")  # the members that hold what only one vendor has words for

_HAS_VENDOR_MEMBER = re.compile(rb'"(?:%b)"\s*:\s*[{n]|\\u00' % "|".join(VENDORS).encode())
_OBJECT_OR_NULL = b"{n"  # how an object begins, and null
_NESTED_MEMBERS: Mapping[str, Any] = {"messages": {"content": {}, "tool_calls": {}}, "tools": {}}  # beside the root
_KEY = re.compile(rb'"model"[ \t\n\r]*:[ \t\n\r]*')


def with_model(body: bytes, model: str) -> bytes:
    """The body as one that asks for `model`; the same bytes where it does so already, however it is escaped."""
    said = _model_text(body)
    if said and json.loads(said) == model:
        return body
    name = json.dumps(model).encode()
    # Nearly always it is the first member so named, or the last: the body that it makes tells whether it was.
    for find in (body.find, body.rfind):
        key = _KEY.match(body, max(0, find(b'"model"')))
        if said and key and body.startswith(said, key.end()):
            edited = body[: key.end()] + name + body[key.end() + len(said) :]
            if _model_text(edited) == name:
                return edited
    return json_text.replace_member(body, "model", model)


def with_usage(body: bytes) -> bytes:
    """The body as one that asks for a last event with the usage; the same bytes where it does so already."""
    given = {member.key: member for member in json_text.parse_members(body)}
    options = given.get("stream_options")
    if options is None:
        return json_text.with_member(body, "stream_options", b'{"include_usage":true}')
    value = body[options.value_start : options.value_end]
    asked = {member.key: value[member.value_start : member.value_end] for member in json_text.parse_members(value)}
    if asked.get("include_usage") == b"true":
        return body
    asks = json_text.with_member(
        json_text.without_members(value, ["include_usage"]) if asked else b"{}", "include_usage", b"true"
    )
    return json_text.apply_edits(body, [json_text.Edit(options.value_start, options.value_end, asks)])


def without_vendor_members(body: bytes) -> bytes:
    """The body less the objects, and nulls, that are for one vendor only; the same bytes where it has none."""
    return _remove_vendor_members(body, _NESTED_MEMBERS) if _HAS_VENDOR_MEMBER.search(body) else body


def _remove_vendor_members(body: bytes, nested: Mapping[str, Any]) -> bytes:
    edits = [
        json_text.Edit(start, end, _remove_vendor_members(body[start:end], nested[member.key]))
        for member in json_text.parse_members(body)
        if member.key in nested and body[member.value_start : member.value_start + 1] == b"["
        for start, end in json_text.iterate_elements(body, member.value_start)
        if body[start : start + 1] == b"{" and _HAS_VENDOR_MEMBER.search(body, start, end)
    ]
    edited = json_text.apply_edits(body, edits)
    own = [
        m.key
        for m in json_text.parse_members(edited)
        if m.key in VENDORS and edited[m.value_start : m.value_start + 1] in _OBJECT_OR_NULL
    ]
    return json_text.without_members(edited, own)


def _model_text(body: bytes) -> bytes | None:
    """The text of the root's model."""
    return (json_scan.find_members(body, "model") or {}).get("model")

"""Puts into a body that was bound what the upstream is to read there, and takes out what it is not.

Every other byte stays as it is.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from aiserver.wire import json_scan, json_text

VENDORS = ("anthropic", "google", "bedrock")  # the members that hold what only one vendor has words for

_HOLDS_OWN = re.compile(rb'"(?:%b)"\s*:\s*[{n]|\\u00' % "|".join(VENDORS).encode())
_OWN = b"{n"  # how an object begins, and null
_WHERE: Mapping[str, Any] = {"messages": {"content": {}, "tool_calls": {}}, "tools": {}}  # beside the root
_KEY = re.compile(rb'"model"[ \t\n\r]*:[ \t\n\r]*')


def with_model(body: bytes, model: str) -> bytes:
    """The body as one that asks for `model`; the same bytes where it does so already, however it is escaped."""
    said = _said(body)
    if said and json.loads(said) == model:
        return body
    name = json.dumps(model).encode()
    # Nearly always it is the first member so named, or the last: the body that it makes tells whether it was.
    for find in (body.find, body.rfind):
        key = _KEY.match(body, max(0, find(b'"model"')))
        if said and key and body.startswith(said, key.end()):
            edited = body[: key.end()] + name + body[key.end() + len(said) :]
            if _said(edited) == name:
                return edited
    return json_text.replace_member(body, "model", model)


def with_usage(body: bytes) -> bytes:
    """The body as one that asks for a last event with the usage; the same bytes where it does so already."""
    given = {member.key: member for member in json_text.members(body)}
    options = given.get("stream_options")
    if options is None:
        return json_text.with_member(body, "stream_options", b'{"include_usage":true}')
    value = body[options.value_start : options.value_end]
    asked = {member.key: value[member.value_start : member.value_end] for member in json_text.members(value)}
    if asked.get("include_usage") == b"true":
        return body
    asks = json_text.with_member(json_text.less(value, ["include_usage"]) if asked else b"{}", "include_usage", b"true")
    return json_text.apply(body, [json_text.Edit(options.value_start, options.value_end, asks)])


def without_own(body: bytes) -> bytes:
    """The body less the objects, and nulls, that are for one vendor only; the same bytes where it has none."""
    return _less_own(body, _WHERE) if _HOLDS_OWN.search(body) else body


def _less_own(given: bytes, below: Mapping[str, Any]) -> bytes:
    edits = [
        json_text.Edit(start, end, _less_own(given[start:end], below[member.key]))
        for member in json_text.members(given)
        if member.key in below and given[member.value_start : member.value_start + 1] == b"["
        for start, end in json_text.elements(given, member.value_start)
        if given[start : start + 1] == b"{" and _HOLDS_OWN.search(given, start, end)
    ]
    edited = json_text.apply(given, edits)
    own = [
        m.key
        for m in json_text.members(edited)
        if m.key in VENDORS and edited[m.value_start : m.value_start + 1] in _OWN
    ]
    return json_text.less(edited, own)


def _said(body: bytes) -> bytes | None:
    """The text of the root's model."""
    return (json_scan.members(body, "model") or {}).get("model")

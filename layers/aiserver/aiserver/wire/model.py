"""Puts into a body that was bound what the upstream is to read there, and leaves every other byte as it is."""

import json
import re

from aiserver.wire import scan, text

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
    return text.replace_member(text.decode(body), "model", model).encode()


def with_usage(body: bytes) -> bytes:
    """The body as one that asks for a last event with the usage; the same bytes where it does so already."""
    edited = text.decode(body)
    given = {member.key: member for member in text.members(edited)}
    options = given.get("stream_options")
    if options is None:
        return text.with_member(edited, "stream_options", '{"include_usage":true}').encode()
    value = edited[options.value_start : options.value_end]
    asked = {member.key: value[member.value_start : member.value_end] for member in text.members(value)}
    if asked.get("include_usage") == "true":
        return body
    asks = text.with_member(text.less(value, ["include_usage"]) if asked else "{}", "include_usage", "true")
    return text.apply(edited, [text.Edit(options.value_start, options.value_end, asks)]).encode()


def _said(body: bytes) -> bytes | None:
    """The text of the root's model."""
    return (scan.members(body, "model") or {}).get("model")

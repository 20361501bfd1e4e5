"""Puts the upstream's name for a model into a body that was bound, and leaves every other byte as it is."""

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


def _said(body: bytes) -> bytes | None:
    """The text of the root's model."""
    return (scan.members(body, "model") or {}).get("model")

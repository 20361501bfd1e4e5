"""Extracts the message of a provider's error from any known format.

Formats: OpenAI's; FastAPI's `{"detail": [{"loc": …, "msg": …}]}`; Mistral's `{"message": {"detail": …}}`; Cloudflare's
`{"errors": [{"message": …}]}`; MiniMax's `{"base_resp": {"status_msg": …}}`; problem+json (RFC 9457); XML; HTML; text.
"""

import html
import json
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any, cast

from aiserver.limits import MAX_ERROR_BYTES, MAX_ERROR_MESSAGE_CHARS

MEMBERS = (
    "error_description",
    "error",
    "detail",
    "message",
    "msg",
    "errors",
    "error_msg",
    "error_message",
    "errormessage",
    "errmsg",
    "faultstring",
    "status_msg",
    "base_resp",
    "reason",
    "description",
    "title",
)
CONTAINERS = (
    "fault",
    "header",
    "response",
    "result",
    "data",
    "status",
    "details",
)  # objects that may contain one of MEMBERS
MAX_LISTED = 5  # errors used of one list
MAX_LEVELS = 6
MAX_DIGITS = 20
TEXT_BYTES = 64 * 1024  # of a page that are searched for text
_CDATA = re.compile(r"<!\[CDATA\[(.*?)\]\]>", re.DOTALL)
_TAG = re.compile(r"(<[^<>]*>)")
_HIDDEN = ("script", "style")


def extract_message(body: bytes) -> str:
    """Return the error message in the body of a failed response, or an empty string."""
    if body.strip() == b"null" or b"\x00" in body[:TEXT_BYTES]:  # a file, such as an image
        return ""
    if body.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] not in (b"{", b"[", b'"'):
        return truncate(_page_text(body[:TEXT_BYTES].decode("utf-8", "replace").removeprefix("\ufeff")))
    if len(body) > MAX_ERROR_BYTES:
        return ""
    text = body.decode("utf-8-sig", "replace")
    try:
        return truncate(_message_of(json.loads(text, parse_int=_number, strict=False)))
    except RecursionError:
        return ""
    except ValueError:  # truncated JSON, or JSON with trailing text: use it as plain text
        return truncate(_one_line(text[:TEXT_BYTES]))


def _number(digits: str) -> int:
    """Parse an integer; 0 for one that is too long for Python."""
    return int(digits) if len(digits) < MAX_DIGITS else 0


def _message_of(value: Any, levels: int = MAX_LEVELS) -> str:
    if isinstance(value, str):
        return _one_line(value)
    if isinstance(value, list) and levels:
        messages = (_message_of(item, levels - 1) for item in cast(list[Any], value)[:MAX_LISTED])
        return "; ".join(filter(None, messages))
    return _object_message(cast(dict[str, Any], value), levels) if isinstance(value, dict) and levels else ""


def _object_message(value: dict[str, Any], levels: int) -> str:
    members = {name.lower(): value[name] for name in reversed(value)}
    name, message = next(
        ((name, message) for name in MEMBERS if (message := _message_of(members.get(name), levels - 1))), ("", "")
    )
    title, location = members.get("title"), members.get("loc")
    if name == "detail" and isinstance(title, str) and title:
        return f"{_one_line(title)}: {message}"
    if name == "msg" and isinstance(location, list) and location:
        return f"{'.'.join(str(part) for part in cast(list[Any], location)[:MAX_LISTED])}: {message}"
    return message or next(filter(None, (_container_message(members.get(name), levels) for name in CONTAINERS)), "")


def _container_message(value: Any, levels: int) -> str:
    """The message within an object or a list; other types contain none."""
    if isinstance(value, dict | list):
        return _message_of(cast(Any, value), levels - 1)
    return ""


def _page_text(text: str) -> str:
    """Return the visible text of HTML, the values of XML, or plain text."""
    text = _CDATA.sub(lambda match: html.escape(match[1]), text)
    return _one_line(html.unescape(" ".join(_visible_parts(text)))) if "<" in text else _one_line(text)


def _visible_parts(text: str) -> Iterator[str]:
    hidden = ""
    for is_tag, part in zip(_alternating(), _TAG.split(text), strict=False):
        if not is_tag:
            if not hidden:
                yield part
            continue
        name = part[1:-1].strip().lower()
        if hidden:
            hidden = "" if name.startswith("/" + hidden) else hidden
        else:
            hidden = next((tag for tag in _HIDDEN if name.startswith(tag)), "")


def _alternating() -> Iterator[bool]:
    while True:
        yield False
        yield True


def _one_line(text: str) -> str:
    line = " ".join(islice(text.split(), MAX_ERROR_MESSAGE_CHARS))
    return "".join(char for char in line[: MAX_ERROR_MESSAGE_CHARS + 1] if char.isprintable())


def truncate(text: str) -> str:
    """Shorten a message to MAX_REASON_CHARS."""
    return text if len(text) <= MAX_ERROR_MESSAGE_CHARS else text[: MAX_ERROR_MESSAGE_CHARS - 1] + "…"

"""Why a provider says that it failed, whatever the shape of its error.

Shapes: OpenAI's; FastAPI's `{"detail": [{"loc": …, "msg": …}]}`; Mistral's `{"message": {"detail": …}}`; Cloudflare's
`{"errors": [{"message": …}]}`; MiniMax's `{"base_resp": {"status_msg": …}}`; problem+json (RFC 9457); XML; HTML; text.
"""

import html
import json
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any, cast

from aiserver.limits import MAX_ERROR_BYTES, MAX_REASON_CHARS

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
CONTAINERS = ("fault", "header", "response", "result", "data", "status", "details")  # where they hold members
MAX_LISTED = 5  # errors of one list
MAX_LEVELS = 6
MAX_DIGITS = 20
TEXT_BYTES = 64 * 1024  # of a page that are searched for words
_CDATA = re.compile(r"<!\[CDATA\[(.*?)\]\]>", re.DOTALL)
_TAG = re.compile(r"(<[^<>]*>)")
_HIDDEN = ("script", "style")


def extract_message(body: bytes) -> str:
    """The reason given in a response that holds no answer, or an empty string."""
    if body.strip() == b"null":
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
    except ValueError:  # cut off, or followed by something: better read than nothing
        return truncate(_one_line(text[:TEXT_BYTES]))


def _number(digits: str) -> int:
    """Python refuses to read very long ones."""
    return int(digits) if len(digits) < MAX_DIGITS else 0


def _message_of(value: Any, levels: int = MAX_LEVELS) -> str:
    if isinstance(value, str):
        return _one_line(value)
    if isinstance(value, list) and levels:
        listed = (words for item in cast(list[Any], value)[:MAX_LISTED] if (words := _message_of(item, levels - 1)))
        return "; ".join(listed)
    return _object_message(cast(dict[str, Any], value), levels) if isinstance(value, dict) and levels else ""


def _object_message(value: dict[str, Any], levels: int) -> str:
    members = {name.lower(): value[name] for name in reversed(value)}
    name, words = next(
        ((name, words) for name in MEMBERS if (words := _message_of(members.get(name), levels - 1))), ("", "")
    )
    title, place = members.get("title"), members.get("loc")
    if name == "detail" and isinstance(title, str) and title:
        return f"{_one_line(title)}: {words}"
    if name == "msg" and isinstance(place, list) and place:
        return f"{'.'.join(str(part) for part in cast(list[Any], place)[:MAX_LISTED])}: {words}"
    return words or next((said for one in CONTAINERS if (said := _nested_message(members.get(one), levels))), "")


def _nested_message(value: Any, levels: int) -> str:
    """Of an object, or of lists by the names of what is wrong."""
    if isinstance(value, dict | list):
        return _message_of(cast(Any, value), levels - 1)
    return ""


def _page_text(text: str) -> str:
    """What a reader sees of HTML, the values of XML, or a plain text."""
    text = _CDATA.sub(lambda found: html.escape(found[1]), text)
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
            hidden = next((one for one in _HIDDEN if name.startswith(one)), "")


def _alternating() -> Iterator[bool]:
    while True:
        yield False
        yield True


def _one_line(text: str) -> str:
    words = " ".join(islice(text.split(), MAX_REASON_CHARS))
    return "".join(char for char in words[: MAX_REASON_CHARS + 1] if char.isprintable())


def truncate(text: str) -> str:
    """No longer than a message may be."""
    return text if len(text) <= MAX_REASON_CHARS else text[: MAX_REASON_CHARS - 1] + "…"

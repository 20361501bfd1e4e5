"""Server-sent events as bytes: where one ends, and what it says. Nothing is rebuilt.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

import re

HEADERS = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}
PING = b": ping\n\n"  # a comment, which every reader skips
PING_MS = 15_000  # well within the idle times of proxies; API Gateway's is 5 minutes
DONE = b"[DONE]"  # what OpenAI's protocol says last

_LINE_END = rb"(?>\r\n|\n|\r)"
_EVENT_END = re.compile(_LINE_END + _LINE_END)
_BOM = b"\xef\xbb\xbf"
MAX_PREFIX_BYTES = len(_BOM + b"event:")
_FIELD = re.compile(rb"\s*+(?:data|event|id|retry|error)?:")
_LINES = re.compile(rb"\r\n|\n|\r")
_MAX_END_BYTES = len(b"\r\n\r\n")


class EventSplitter:
    """Cuts a stream into whole events, however it arrives; what is no whole event yet is `rest`.

    A last line end of `\\r` alone may be half of one: whether it is, the next byte tells, or the line end before it.
    """

    def __init__(self) -> None:
        self.rest = bytearray()
        self._searched = 0

    def split(self, piece: bytes) -> list[bytes]:
        """The events that `piece` completes, with their line ends, byte for byte."""
        self.rest += piece
        found: list[bytes] = []
        start = 0
        for end in _EVENT_END.finditer(self.rest, self._searched):
            if end.end() == len(self.rest) and end[0].endswith(b"\n\r"):
                break
            found.append(bytes(self.rest[start : end.end()]))
            start = end.end()
        del self.rest[:start]
        self._searched = max(0, len(self.rest) - _MAX_END_BYTES + 1)
        return found


def event_data(event: bytes, field: bytes = b"data") -> bytes:
    """What stands in the event's `data` lines, or in those of another field, joined as a reader would."""
    if field == b"data" and event.startswith(b"data: ") and event.find(b"\n") == len(event) - 2 and b"\r" not in event:
        return event[6:-2]  # as nearly all are
    fields = [line.partition(b":") for line in _LINES.split(event.removeprefix(_BOM))]
    return b"\n".join(value.removeprefix(b" ") for name, _, value in fields if name == field)


def starts_with_field(text: bytes) -> bool:
    """Whether the text begins as an event, or a comment, does; `error` is a field of some servers."""
    return bool(_FIELD.match(text.removeprefix(_BOM)))


def is_error_event(event: bytes) -> bool:
    """Whether its type is `error`."""
    return event_data(event, b"event").strip() == b"error"


def format_event(text: bytes) -> bytes:
    """An event that says this JSON text, in one line: a line break can only be white space there."""
    return b"data: " + text.replace(b"\r", b" ").replace(b"\n", b" ") + b"\n\n"

"""Splits and reads server-sent events as bytes, without serializing them again.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

import re

HEADERS = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}
PING = b": ping\n\n"  # a comment, which readers ignore
PING_MS = 15_000  # below the idle timeouts of proxies; API Gateway's is 5 minutes
DONE = b"[DONE]"  # the data of the last event in OpenAI's protocol

_LINE_END = rb"(?>\r\n|\n|\r)"
_EVENT_END = re.compile(_LINE_END + _LINE_END)
_BOM = b"\xef\xbb\xbf"
MAX_PREFIX_BYTES = len(_BOM + b"event:")
_FIELD = re.compile(rb"\s*+(?:data|event|id|retry|error)?:")
_LINES = re.compile(rb"\r\n|\n|\r")
_MAX_END_BYTES = len(b"\r\n\r\n")


class IncompleteEvent(bytes):
    """The start of an event, without the blank line that ends it."""


class EventSplitter:
    """Splits a stream into complete events, independent of its chunks; `buffer` holds the incomplete event.

    A single `\\r` at the end may be half of a line end: the next byte decides, or the line end before it.
    """

    def __init__(self) -> None:
        self.buffer = bytearray()
        self._searched = 0

    def split(self, chunk: bytes) -> list[bytes]:
        """The events that `chunk` completes, with their line ends, byte for byte."""
        self.buffer += chunk
        events: list[bytes] = []
        start = 0
        for end in _EVENT_END.finditer(self.buffer, self._searched):
            if end.end() == len(self.buffer) and end[0].endswith(b"\n\r"):
                break
            events.append(bytes(self.buffer[start : end.end()]))
            start = end.end()
        del self.buffer[:start]
        self._searched = max(0, len(self.buffer) - _MAX_END_BYTES + 1)
        return events


def event_data(event: bytes, field: bytes = b"data") -> bytes:
    """The event's `data` lines, or those of another field, joined by line breaks."""
    if field == b"data" and event.startswith(b"data: ") and event.find(b"\n") == len(event) - 2 and b"\r" not in event:
        return event[6:-2]  # the form of nearly all events
    fields = [line.partition(b":") for line in _LINES.split(event.removeprefix(_BOM))]
    return b"\n".join(value.removeprefix(b" ") for name, _, value in fields if name == field)


def starts_with_field(text: bytes) -> bool:
    """Whether the text starts with a field or a comment of an event; some servers send the field `error`."""
    return bool(_FIELD.match(text.removeprefix(_BOM)))


def is_error_event(event: bytes) -> bool:
    """Whether the event's type is `error`."""
    return event_data(event, b"event").strip() == b"error"


def format_event(text: bytes) -> bytes:
    """An event with this JSON text as data, in one line: line breaks in a JSON text are always white space."""
    return b"data: " + text.replace(b"\r", b" ").replace(b"\n", b" ") + b"\n\n"

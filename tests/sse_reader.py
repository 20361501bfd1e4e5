"""Reads server-sent events as a browser's EventSource does, by the standard's own rules.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Event:
    """What `onmessage` is given, and the time to wait that came with it."""

    id: str
    data: str
    retry: int | None

    @property
    def document(self) -> dict[str, Any]:
        return json.loads(self.data)


def read(stream: bytes) -> list[Event]:
    """The events of a whole stream."""
    return list(messages(re.split("\r\n|\n|\r", stream.decode())))


def messages(lines: Iterable[str]) -> Iterator[Event]:
    """The events as their lines come; an event of another type is not for `onmessage`."""
    last_id, data, kind, retry = "", list[str](), "", None
    for line in lines:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if line == "":
            if data and kind in ("", "message"):
                yield Event(last_id, "\n".join(data), retry)
            data, kind, retry = [], "", None
        elif name == "data":
            data.append(value)
        elif name == "event":
            kind = value
        elif name == "id" and "\0" not in value:
            last_id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            retry = int(value)

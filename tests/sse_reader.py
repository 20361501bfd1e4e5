"""Read server-sent events as a browser's EventSource does, by the rules of the standard.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Event:
    """An event as passed to `onmessage`, with its reconnection time in milliseconds."""

    id: str
    data: str
    retry: int | None

    @property
    def document(self) -> dict[str, Any]:
        return json.loads(self.data)


def read(stream: bytes) -> list[Event]:
    """Return the events of a complete stream."""
    return list(messages(re.split("\r\n|\n|\r", stream.decode())))


def messages(lines: Iterable[str]) -> Iterator[Event]:
    """Yield the events of a stream of lines; skip event types that `onmessage` does not receive."""
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

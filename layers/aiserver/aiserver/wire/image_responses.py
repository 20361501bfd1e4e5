"""Finds the images of a provider's response: a list in `data`, or events with one image each.

Only spans of the text are read: a response of 64 MB is not built as objects.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from aiserver.errors import InvalidRequest
from aiserver.limits import MAX_EVENT_VALUES, MAX_STORED_IMAGES
from aiserver.wire import json_scan, json_text, sse
from aiserver.wire.json_text import Member

MAX_COUNTED_IMAGES = 1000  # of one response; no provider returns as many
IMAGE_MEMBERS = ("b64_json", "url")
PARTIAL = "partial_image_index"  # of events with an incomplete image


@dataclass(frozen=True)
class ImageMembers:
    """The members of one image with its content: base64 and a URL, as spans of the response's text."""

    base64: Member | None = None
    url: Member | None = None


def find_images(body: bytes) -> tuple[list[ImageMembers], int]:
    """The first MAX_STORED_IMAGES images of a JSON response, and the number of all; empty for another body.

    An element that is not an object is an image without members. Bodies with more than MAX_EVENT_VALUES values are not
    searched: base64 has no commas, so that no response with images is one of them.
    """
    starts = list(islice(_elements(body), MAX_COUNTED_IMAGES))
    return [_read_image(body, start) for start in starts[:MAX_STORED_IMAGES]], len(starts)


def count_images(body: bytes) -> int:
    """The number of objects in `data`, up to MAX_COUNTED_IMAGES."""
    return sum(body[start : start + 1] == b"{" for start in islice(_elements(body), MAX_COUNTED_IMAGES))


def find_event_image(data: bytes) -> ImageMembers | None:
    """The complete image of an event with this data; None where it has none, or an incomplete one."""
    members = json_scan.find_members(data, *IMAGE_MEMBERS, PARTIAL)
    if not members or members.get(PARTIAL, b"null") != b"null" or not members.keys() & set(IMAGE_MEMBERS):
        return None
    return _read_image(data, len(data) - len(data.lstrip()))


def _elements(body: bytes) -> Iterator[int]:
    """The start of each element of `data`."""
    if json_text.count_values(body, MAX_EVENT_VALUES) > MAX_EVENT_VALUES:
        return
    try:
        start = len(json_text.BOM) if body.startswith(json_text.BOM) else 0
        data = next((m for m in reversed(json_text.parse_members(body, start)) if m.key == "data"), None)
        if data and body[data.value_start : data.value_start + 1] == b"[":
            yield from (element for element, _ in json_text.iterate_elements(body, data.value_start))
    except (InvalidRequest, ValueError):  # nested too deeply; a key with half a surrogate pair
        return


def _read_image(body: bytes, start: int) -> ImageMembers:
    if body[start : start + 1] != b"{":
        return ImageMembers()
    try:
        members = {member.key: member for member in json_text.parse_members(body, start)}
    except (InvalidRequest, ValueError):  # as in _elements
        return ImageMembers()
    return ImageMembers(members.get("b64_json"), members.get("url"))


class ImageEvents:
    """The events of a stream that contain a complete image, in order; further ones than are stored are dropped."""

    def __init__(self) -> None:
        self._events: list[bytes] = []

    @property
    def body(self) -> bytes:
        return b"".join(self._events)

    def append(self, data: bytes, /) -> None:
        """Add the complete events of a chunk."""
        if not any(name.encode() in data for name in IMAGE_MEMBERS):
            return
        for event in sse.EventSplitter().split(data):
            if len(self._events) < MAX_STORED_IMAGES and find_event_image(sse.event_data(event)):
                self._events.append(event)

"""Media types of requests and responses, by their Content-Type headers."""

FORM = "multipart/form-data"
EVENT_STREAM = "text/event-stream"
JSON = "application/json"


def media_type(content_type: str) -> str:
    """`text/plain` of `Text/Plain; charset=utf-8`."""
    return content_type.partition(";")[0].strip().lower()


def is_form(content_type: str) -> bool:
    return media_type(content_type) == FORM


def is_event_stream(content_type: str) -> bool:
    return media_type(content_type) == EVENT_STREAM


def is_text(content_type: str) -> bool:
    """Whether a body of that type is text: JSON, or any text type."""
    return media_type(content_type) == JSON or media_type(content_type).startswith("text/")


def is_file(content_type: str | None) -> bool:
    """Whether a stored body of that type is a file, and not text; None is JSON."""
    return content_type is not None and not is_text(content_type)

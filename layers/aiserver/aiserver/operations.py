"""The API operations, as data: a new one is one row. Everything else that differs between operations is its schema.

Source: https://platform.openai.com/docs/api-reference
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType

from aiserver.errors import NotFound


class MediaKind(StrEnum):
    """What a media operation is about; a form is accepted by its content type."""

    AUDIO = "audio"
    IMAGE = "image"


class ResponseKind(StrEnum):
    """The format of a complete response body."""

    JSON = "json"
    TEXT = "text"
    BYTES = "bytes"


@dataclass(frozen=True)
class Result:
    """The member that a JSON response must contain, and the start of its JSON text."""

    member: str
    start: re.Pattern[bytes]


@dataclass(frozen=True)
class Operation:
    """One API operation.

    `path` is its path at providers of OpenAI's protocol. A JSON response must contain `result`.
    `text_formats` are the values of `response_format` for which the response is text.
    `end_events` are the types of the events that complete a stream, without `[DONE]`; a chat's stream is complete
    when all its choices are. `usage_unit` is the member of the usage that a stream's events are counted as.
    `media` is the kind of a media operation. Then the type of a response is its content type, because servers ignore
    `stream` for some models or always; a stream without an end event is complete when the provider closes the
    connection.
    `alternative` is a hint for callers of providers that do not support the operation.
    """

    name: str
    path: str
    response: ResponseKind = ResponseKind.JSON
    result: Result | None = None
    text_formats: tuple[str, ...] = ()
    end_events: tuple[str, ...] = ()
    usage_unit: str = ""
    can_queue: bool = False
    media: MediaKind | None = None
    alternative: str = ""

    @property
    def is_media(self) -> bool:
        return self.media is not None

    @property
    def returns_images(self) -> bool:
        """Whether the `data` of a response are images, which are stored as artifacts."""
        return self.media is MediaKind.IMAGE

    def response_kind(self, response_format: str | None) -> ResponseKind:
        """The format of the response to a request with that `response_format`."""
        return ResponseKind.TEXT if response_format in self.text_formats else self.response


_OBJECTS, _ARRAY = re.compile(rb"\[\s*\{"), re.compile(rb"\[")  # the output of a response may be empty
_STRING = re.compile(rb'"')  # the transcript of silence is empty

CHAT = Operation(
    name="chat.completions",
    path="/chat/completions",
    result=Result("choices", _OBJECTS),
    usage_unit="completion_tokens",
    can_queue=True,
)
EMBEDDINGS = Operation(
    name="embeddings",
    path="/embeddings",
    result=Result("data", _OBJECTS),
    usage_unit="prompt_tokens",
)
RESPONSES = Operation(
    name="responses",
    path="/responses",
    result=Result("output", _ARRAY),
    end_events=("response.completed", "response.incomplete", "response.failed"),
    usage_unit="output_tokens",
    alternative="use /v1/chat/completions (LangChain: use_responses_api=False)",
)

TRANSCRIPTIONS = Operation(
    name="audio.transcriptions",
    path="/audio/transcriptions",
    result=Result("text", _STRING),
    text_formats=("text", "srt", "vtt"),
    end_events=("transcript.text.done", "transcription.done"),  # the second one is Mistral's
    usage_unit="seconds",
    can_queue=True,
    media=MediaKind.AUDIO,
)
TRANSLATIONS = replace(TRANSCRIPTIONS, name="audio.translations", path="/audio/translations")
SPEECH = Operation(
    name="audio.speech",
    path="/audio/speech",
    response=ResponseKind.BYTES,
    end_events=("speech.audio.done",),
    usage_unit="characters",
    can_queue=True,
    media=MediaKind.AUDIO,
)

IMAGES = Operation(
    name="images.generations",
    path="/images/generations",
    result=Result("data", _OBJECTS),
    end_events=("image_generation.completed",),
    usage_unit="images",
    can_queue=True,
    media=MediaKind.IMAGE,
)
IMAGE_EDITS = replace(IMAGES, name="images.edits", path="/images/edits", end_events=("image_edit.completed",))
IMAGE_VARIATIONS = replace(IMAGES, name="images.variations", path="/images/variations", end_events=())

OPERATIONS: Mapping[str, Operation] = MappingProxyType(
    {
        row.name: row
        for row in (
            *(CHAT, EMBEDDINGS, RESPONSES, TRANSCRIPTIONS, TRANSLATIONS, SPEECH),
            *(IMAGES, IMAGE_EDITS, IMAGE_VARIATIONS),
        )
    }
)


def find_operation(name: str) -> Operation:
    """The operation of a stored job. Raises: NotFound, for one of a newer version."""
    operation = OPERATIONS.get(name)
    if operation is None:
        raise NotFound(f"Operation {name} is not supported")
    return operation

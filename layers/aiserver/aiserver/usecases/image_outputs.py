"""Stores the images of a provider's response as artifacts: the provider's URLs expire, mostly within an hour."""

import base64
import binascii
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from aiserver.clock import Clock, Deadline
from aiserver.errors import ProviderError
from aiserver.limits import MAX_DOWNLOAD_BYTES, MAX_STORED_IMAGES
from aiserver.providers.call import Upstream
from aiserver.providers.downloads import DownloadFailed
from aiserver.providers.response import ProviderResponse
from aiserver.usecases.media_outputs import ArtifactStore
from aiserver.usecases.terminal import StoredResponse
from aiserver.wire import json_text, sse
from aiserver.wire.image_responses import ImageMembers, find_event_image, find_images
from aiserver.wire.json_text import Edit, Member
from aiserver.wire.media_types import is_event_stream

DOWNLOAD_TIMEOUT_S = 60  # for all images of one response
PUT_PAUSES_S = (0.2, 1.0)  # before a file is put again: the call that produced it has been paid for
MAX_REASON_CHARS = 200

DATA_URL = "data:"


class FileSource(Protocol):
    """Downloads files: providers.downloads.Downloads."""

    def fetch(self, url: str, upstream: Upstream, *, max_bytes: int, timeout_s: float) -> bytes:
        """Raises: DownloadFailed."""
        ...


@dataclass
class _Images:
    """The images of one response: the keys of those stored so far, and why others have not been.

    `count` images have been read, of `total`.
    """

    upstream: Upstream
    owner: str
    created_at: int
    base_url: str
    deadline: Deadline
    remaining_bytes: int = int(MAX_DOWNLOAD_BYTES)
    keys: list[str] = field(default_factory=list[str])
    reasons: list[str] = field(default_factory=list[str])
    count: int = 0
    total: int = 0


class ImageOutputs:
    """Stores images one at a time, so that one file is in memory beside the response."""

    def __init__(
        self,
        artifacts: ArtifactStore,
        source: FileSource,
        clock: Clock,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._artifacts = artifacts
        self._source = source
        self._clock = clock
        self._sleep = sleep

    def store(
        self,
        response: ProviderResponse,
        upstream: Upstream,
        *,
        owner: str,
        created_at: int,
        base_url: str,
        deadline: Deadline,
    ) -> StoredResponse:
        """Store each image, and put the URL of its artifact, without a signature, in place of the provider's URL.

        `owner` is the id of the API key, `created_at` when the request began (Unix ms). An image that cannot be stored
        keeps its URL, and is named in the error. Raises: errors of the artifact store.
        """
        deadline = min(deadline, Deadline.after(DOWNLOAD_TIMEOUT_S, self._clock))
        images = _Images(upstream, owner, created_at, base_url, deadline)
        if is_event_stream(response.content_type):
            splitter = sse.EventSplitter()
            events = [self._store_event(event, images) for event in splitter.split(response.body)]
            body = b"".join([*events, splitter.buffer])
        else:
            found, images.total = find_images(response.body)
            body = self._store_all(response.body, found, images)
        if images.total > images.count:
            reason = f"image {images.count + 1} and the following: at most {MAX_STORED_IMAGES} images are stored"
            images.reasons.append(reason)
        error = _lost_images(response, images) if images.reasons or not images.keys else None
        return StoredResponse(replace(response, body=body), tuple(images.keys), error)

    def _store_event(self, event: bytes, images: _Images) -> bytes:
        data = sse.event_data(event)
        image = find_event_image(data)
        if image is None:
            return event
        images.total += 1
        if images.total > MAX_STORED_IMAGES:
            return event
        new_data = self._store_all(data, [image], images)
        return (
            event.replace(data, new_data, 1) if data in event else sse.format_event(new_data)
        )  # else of several lines

    def _store_all(self, body: bytes, found: list[ImageMembers], images: _Images) -> bytes:
        """The text with the URLs of the artifacts in place of the provider's."""
        edits: list[Edit] = []
        for image in found:
            images.count += 1
            try:
                content = self._content(body, image, images)
            except DownloadFailed as error:
                images.reasons.append(f"image {images.count}: {error}"[:MAX_REASON_CHARS])
                continue
            key = self._put(content, images)
            images.keys.append(key)
            if image.url and _string(body, image.url):
                url = json.dumps(f"{images.base_url}/{key}").encode()
                edits.append(Edit(image.url.value_start, image.url.value_end, url))
        return json_text.apply_edits(body, edits)

    def _content(self, body: bytes, image: ImageMembers, images: _Images) -> bytes:
        """The bytes of an image. Raises: DownloadFailed."""
        text, url = _string(body, image.base64), _string(body, image.url)
        if text or url[: len(DATA_URL)].lower() == DATA_URL:
            return _decode_base64(text or url)
        if not url:
            raise DownloadFailed("the provider sent neither base64 nor a URL")
        timeout_s = images.deadline.remaining_s(self._clock)
        if timeout_s <= 0:
            raise DownloadFailed("the time for downloads has passed")
        content = self._source.fetch(url, images.upstream, max_bytes=images.remaining_bytes, timeout_s=timeout_s)
        images.remaining_bytes -= len(content)
        return content

    def _put(self, content: bytes, images: _Images) -> str:
        """The key of the stored file. Raises: errors of the artifact store, after the last attempt."""
        for pause_s in PUT_PAUSES_S:
            try:
                return self._artifacts.put(images.owner, images.created_at, content, "")
            except Exception:
                if images.deadline.remaining_s(self._clock) <= pause_s:
                    raise
            self._sleep(pause_s)
        return self._artifacts.put(images.owner, images.created_at, content, "")


def _decode_base64(text: str) -> bytes:
    """The bytes of base64, or of a data URL; line breaks and missing padding are accepted. Raises: DownloadFailed."""
    if text[: len(DATA_URL)].lower() == DATA_URL:
        text = text.partition(",")[2]
    text = "".join(text.split())
    try:
        content = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise DownloadFailed("the provider sent invalid base64") from None
    if not content:
        raise DownloadFailed("the provider sent an empty image")
    return content


def _string(body: bytes, member: Member | None) -> str:
    """The text of a string member; "" for anything else."""
    text = body[member.value_start : member.value_end] if member else b""
    try:
        return json.loads(text) if text[:1] == b'"' else ""
    except ValueError:
        return ""


def _lost_images(response: ProviderResponse, images: _Images) -> ProviderError:
    request_id = response.headers.get("x-request-id")
    origin = f"Provider {images.upstream.provider.name}" + (f", request {request_id}" if request_id else "")
    detail = "; ".join(images.reasons)
    problem = f"{images.total - len(images.keys)} of {images.total} images could not be stored: {detail}"
    problem = problem if detail else "the response contains no images"
    return ProviderError(f"{origin}: {problem}", may_be_billed=True)

"""Stores the images of a provider's response as artifacts: the provider's URLs expire, mostly within an hour."""

import base64
import binascii
import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Protocol

import msgspec

from aiserver.clock import Clock, Deadline
from aiserver.errors import ProviderError
from aiserver.limits import MAX_DOWNLOAD_BYTES, MAX_STORED_IMAGES
from aiserver.providers.call import Upstream
from aiserver.providers.downloads import DownloadFailed
from aiserver.providers.response import ProviderResponse
from aiserver.usecases.media_outputs import ArtifactStore
from aiserver.usecases.terminal import StoredResponse
from aiserver.wire import sse
from aiserver.wire.media_types import is_event_stream

DOWNLOAD_TIMEOUT_S = 60  # for all images of one response
MAX_REASON_CHARS = 200

DATA_URL = "data:"


class FileSource(Protocol):
    """Downloads files: providers.downloads.Downloads."""

    def fetch(self, url: str, upstream: Upstream, *, max_bytes: int, timeout_s: float) -> bytes:
        """Raises: DownloadFailed."""
        ...


class _Output(msgspec.Struct):
    b64_json: msgspec.Raw = msgspec.Raw(b"")
    url: msgspec.Raw = msgspec.Raw(b"")
    partial_image_index: int | None = None


class _Outputs(msgspec.Struct):
    data: list[_Output] = []


_OUTPUTS, _OUTPUT = msgspec.json.Decoder(_Outputs), msgspec.json.Decoder(_Output)


class ImageOutputs:
    """Stores images one at a time, so that one file is in memory beside the response."""

    def __init__(self, artifacts: ArtifactStore, source: FileSource, clock: Clock) -> None:
        self._artifacts = artifacts
        self._source = source
        self._clock = clock

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
        body, keys, reasons = response.body, list[str](), list[str]()
        remaining_bytes = int(MAX_DOWNLOAD_BYTES)
        outputs = _decode_outputs(response)
        for number, output in enumerate(outputs, 1):
            if number > MAX_STORED_IMAGES:
                reasons.append(f"image {number} and the following: at most {MAX_STORED_IMAGES} images are stored")
                break
            url = _string(output.url)
            try:
                content = _decode_content(output)
                if content is None:
                    content = self._download(url, upstream, remaining_bytes, deadline)
                    remaining_bytes -= len(content)
            except DownloadFailed as error:
                reasons.append(f"image {number}: {error}"[:MAX_REASON_CHARS])
                continue
            key = self._artifacts.put(owner, created_at, content, "")
            keys.append(key)
            if url:
                body = body.replace(bytes(output.url), json.dumps(f"{base_url}/{key}").encode())
        error = _lost_images(response, upstream, reasons, len(outputs)) if reasons or not keys else None
        return StoredResponse(replace(response, body=body), tuple(keys), error)

    def _download(self, url: str, upstream: Upstream, max_bytes: int, deadline: Deadline) -> bytes:
        timeout_s = deadline.remaining_s(self._clock)
        if timeout_s <= 0:
            raise DownloadFailed("the time for downloads has passed")
        return self._source.fetch(url, upstream, max_bytes=max_bytes, timeout_s=timeout_s)


def _decode_outputs(response: ProviderResponse) -> list[_Output]:
    """The images of a JSON response, or of the events of a stream, where each contains one; partial ones are left out.

    Empty for anything else.
    """
    try:
        if not is_event_stream(response.content_type):
            return _OUTPUTS.decode(response.body).data
        events = [_OUTPUT.decode(data) for event in sse.EventSplitter().split(response.body) if (data := _json(event))]
    except (msgspec.DecodeError, RecursionError):
        return []
    return [event for event in events if event.partial_image_index is None]


def _json(event: bytes) -> bytes:
    """The data of an event, if it is an object."""
    data = sse.event_data(event)
    return data if data.lstrip()[:1] == b"{" else b""


def _decode_content(output: _Output) -> bytes | None:
    """The bytes of an image within the response; None for one that must be downloaded. Raises: DownloadFailed."""
    text, url = _string(output.b64_json), _string(output.url)
    if not text and not url:
        raise DownloadFailed("the provider sent neither base64 nor a URL")
    if not text and not url.startswith(DATA_URL):
        return None
    try:
        content = base64.b64decode(_base64_text(text or url), validate=True)
    except (binascii.Error, ValueError):
        raise DownloadFailed("the provider sent invalid base64") from None
    if not content:
        raise DownloadFailed("the provider sent an empty image")
    return content


def _base64_text(text: str) -> str:
    """The base64 of a data URL or a bare text, without line breaks, padded."""
    if text.startswith(DATA_URL):
        text = text.partition(",")[2]
    text = "".join(text.split())
    return text + "=" * (-len(text) % 4)


def _string(text: Iterable[int]) -> str:
    """A JSON string; "" for anything else."""
    raw = bytes(text)
    try:
        return json.loads(raw) if raw[:1] == b'"' else ""
    except ValueError:
        return ""


def _lost_images(response: ProviderResponse, upstream: Upstream, reasons: list[str], total: int) -> ProviderError:
    request_id = response.headers.get("x-request-id")
    origin = f"Provider {upstream.provider.name}" + (f", request {request_id}" if request_id else "")
    detail = "; ".join(reasons) or "the response contains no images"
    return ProviderError(
        f"{origin}: {len(reasons)} of {total} images could not be stored: {detail}", may_be_billed=True
    )

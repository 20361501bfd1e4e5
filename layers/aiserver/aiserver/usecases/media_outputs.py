"""What a media job or request produced, in AI Server's format: texts, or files with their URLs."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

from aiserver.artifacts import ArtifactUrls, file_name
from aiserver.jobs.job import Job
from aiserver.wire import json_scan
from aiserver.wire.media_types import JSON, media_type

Output = dict[str, Any]


class ArtifactStore(Protocol):
    """Stores files."""

    def put(self, owner: str, created_at: int, content: bytes, content_type: str) -> str:
        """Store a file of an API key and return its key."""
        ...

    def link(self, key: str, *, seconds: int, is_head: bool = False) -> str | None:
        """A URL of the file for a short time; None when it is missing."""
        ...


def text_outputs(body: bytes, content_type: str | None) -> list[Output]:
    """A transcript as `[{"text": …}]`; one with segments has a second text, JSON with the times.

    Empty for JSON without a transcript.
    """
    if media_type(content_type or JSON) != JSON:
        return [{"text": body.decode(errors="replace")}]
    members = json_scan.find_members(body, "text", "segments") or {}
    if members.get("text", b"")[:1] != b'"':
        return []
    text = json.loads(members["text"])
    times = _render_segments(text, members.get("segments", b""))
    return [{"text": text}, *([{"text": times}] if times else [])]


def _render_segments(text: str, segments: bytes) -> str:
    """JSON with the text and its segments; empty without segments, or where numbers are out of range."""
    try:
        document = {"text": text, "segments": _segments(segments)}
        return json.dumps(document, ensure_ascii=False, allow_nan=False) if document["segments"] else ""
    except ValueError:
        return ""


def _segments(text: bytes) -> list[Output]:
    """The start, end and text of each segment."""
    if text[:1] != b"[":
        return []
    segments: Sequence[object] = json.loads(text)
    objects = [cast(Mapping[str, Any], segment) for segment in segments if isinstance(segment, dict)]
    return [{name: segment.get(name) for name in ("start", "end", "text")} for segment in objects]


def file_output(urls: ArtifactUrls, base_url: str, key: str, provider: str | None) -> Output:
    """A file as `{"url": …, "fileName": …, "provider": …}`; the URL works without an API key."""
    return {"url": urls.url(base_url, key), "fileName": file_name(key), "provider": provider}


def job_files(job: Job, urls: ArtifactUrls | None) -> list[Output]:
    """The files of a completed job. `urls` is None where the function does not create URLs."""
    if urls is None or job.result_location is None or not job.has_file:
        return []
    return [file_output(urls, job.base_url, job.result_location, job.served_by)]

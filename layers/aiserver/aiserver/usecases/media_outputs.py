"""What a media job or request produced, in AI Server's format: texts, or files with their URLs."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, cast

from aiserver.artifacts import ArtifactUrls, artifact_folder, file_name
from aiserver.jobs.job import Job
from aiserver.operations import CHAT, Operation
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


def response_texts(operation: Operation, body: bytes, content_type: str | None) -> list[Output]:
    """The texts of a response as `[{"text": …}]`: those of a transcript, or of the choices of a chat."""
    return chat_outputs(body) if operation is CHAT else text_outputs(body, content_type)


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


def chat_outputs(body: bytes) -> list[Output]:
    """The text of each choice of a chat; empty for another response."""
    try:
        choices: Any = json.loads((json_scan.find_members(body, "choices") or {}).get("choices", b"[]"))
        contents = [choice["message"]["content"] for choice in choices]
    except (ValueError, LookupError, TypeError, RecursionError):
        return []
    return [{"text": content} for content in contents if isinstance(content, str)]


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


def job_file_keys(job: Job) -> list[str]:
    """The keys of a job's files: its result, or the images of its result."""
    if job.result_location is not None and job.has_file:
        return [job.result_location]
    folder = artifact_folder(job.owner, job.created_at)
    return [folder + name for name in job.outputs.split(",")] if job.outputs else []


def job_files(job: Job, urls: ArtifactUrls | None) -> list[Output]:
    """The files of a completed job. `urls` is None where the function does not create URLs."""
    if urls is None:
        return []
    return [file_output(urls, job.base_url, key, job.served_by) for key in job_file_keys(job)]


def sign_urls(body: bytes, base_url: str, keys: Iterable[str], urls: ArtifactUrls) -> bytes:
    """A result with images, in which the URLs of its artifacts work without an API key until they expire."""
    for key in dict.fromkeys(keys):
        body = body.replace(_json_url(f"{base_url}/{key}"), _json_url(urls.url(base_url, key)))
    return body


def _json_url(url: str) -> bytes:
    return json.dumps(url).encode()
